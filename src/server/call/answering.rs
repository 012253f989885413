//! `GET` as a WebSocket that calls are answered on: the connection becomes a responder.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hookbot_protocol::{Filter, Path};
use hookbot_tunnel::{CALL_URL, LEAVING, Line, TUNNEL_V1, Upkeep, WORDS, has_word};
use http::Request;
use http::header::{HOST, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::{debug, info};

use super::exchange::Presence;
use super::upload::Upload;
use crate::server::State;
use crate::server::channels::masked;
use crate::server::credentials::Access;
use crate::server::error::HttpError;
use crate::server::metrics::Responding;
use crate::server::reply::Reply;
use crate::server::roster::{Pass, Seat};
use crate::server::service::Asked;
use crate::server::subscribe::{handshake, is_websocket, take_seat, upgrade, websocket_url};
use crate::server::subscriber::deadline;
use crate::server::transport::Peer;

/// Who is to answer.
struct Responder {
    presence: Presence,
    peer: Peer,
    seat: Seat,
    /// When its token ends, in seconds since 1970.
    expires: Option<u64>,
}

/// Why a responder is gone.
type End = (CloseCode, &'static str);

const LEFT: End = (CloseCode::Normal, "left");
const GOING_AWAY: End = (CloseCode::Away, "the server is shutting down");
const EXPIRED: End = (CloseCode::Policy, "the token has expired");
const REVOKED: End = (CloseCode::Policy, "the token has been revoked");
const SILENT: End = (CloseCode::Protocol, "no HTTP/2 was spoken");

/// How long a responder may take to begin HTTP/2.
const BEGIN_PATIENCE: Duration = Duration::from_secs(10);

/// Agrees to the handshake; calls go to the responder once it speaks.
pub(in crate::server) fn answer(
    asked: Asked<'_>,
    filter: Filter,
    path: &Path,
    access: &Access,
    request: Request<Incoming>,
) -> Result<Reply, HttpError> {
    let Asked { state, peer, .. } = asked;
    let headers = request.headers();
    if !is_websocket(headers) {
        return Err(HttpError::NotWebSocket(websocket_url(asked, path, headers)));
    }
    let mut reply = handshake(&request)?;
    if !has_word(headers, &SEC_WEBSOCKET_PROTOCOL, TUNNEL_V1) {
        return Err(HttpError::Handshake(format!(
            "the subprotocol {TUNNEL_V1} is spoken here"
        )));
    }
    let chosen = HeaderValue::from_static(TUNNEL_V1);
    reply.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, chosen);
    let words = HeaderValue::from_static(LEAVING);
    reply.headers_mut().insert(WORDS, words);
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let call_url = state.call_url(request.uri().path(), host);
    if let Some(Ok(url)) = call_url.map(HeaderValue::try_from) {
        reply.headers_mut().insert(CALL_URL, url);
    }
    let token = access.token.as_ref().ok_or(HttpError::Unauthorized)?;
    let responder = Responder {
        peer,
        seat: take_seat(asked, path, Pass::Token(token.clone()))?,
        presence: state.exchange.expect(&filter),
        expires: access.grant.and_then(|grant| grant.expires),
    };
    take_over(state, responder, request);
    Ok(reply)
}

/// Lets the responder answer on the connection, once hyper has let go of it.
fn take_over(state: &Arc<State>, responder: Responder, request: Request<Incoming>) {
    let own = state.clone();
    let peer = responder.peer;
    upgrade(state, peer, request, move |transport, early| async move {
        let keep_alive = own.settings.calls.keep_alive;
        match Line::open(Box::new(transport), early, keep_alive).await {
            Ok((line, upkeep)) => responder.serve(&own, line, upkeep).await,
            Err(error) => debug!(%peer, %error, "gone before HTTP/2 began"),
        }
    });
}

impl Responder {
    async fn serve(self, state: &State, line: Line<Upload>, mut upkeep: Upkeep<Upload>) {
        let Self {
            mut presence,
            peer,
            seat,
            expires,
        } = self;
        let path = masked(seat.path());
        let began = Instant::now();
        if timeout(BEGIN_PATIENCE, upkeep.heard()).await.is_err() {
            let (code, reason) = SILENT;
            upkeep.hang_up(code, reason).await;
            return debug!(%peer, ?path, "a responder did not begin");
        }
        info!(target: "hookbot::request", %peer, ?path, "responder connected");
        presence.begin(line);
        let counted = Responding::new(&state.metrics);
        let expires = expires.map(deadline);
        let expired = async {
            match expires {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let disowned = async {
            tokio::select! {
                () = poll_fn(|context| seat.poll_dismissed(context)) => REVOKED,
                () = expired => EXPIRED,
            }
        };
        let mut disowned = pin!(disowned);
        let mut end = tokio::select! {
            () = upkeep.run() => LEFT,
            () = state.close.cancelled() => GOING_AWAY,
            why = &mut disowned => why,
        };
        // No new calls from here on, but those that have a place already.
        drop((presence, counted));
        if end.0 != CloseCode::Policy {
            // Those that are under way come to their end, unless the token does before them.
            tokio::select! {
                () = upkeep.finish(end.0, end.1) => {}
                why = &mut disowned => end = why,
            }
        }
        let (code, reason) = end;
        if code == CloseCode::Policy {
            upkeep.hang_up(code, reason).await;
        }
        let seconds = began.elapsed().as_secs_f32();
        info!(target: "hookbot::request", %peer, ?path, seconds, reason, "responder gone");
    }
}

impl State {
    /// Whether the world reaches this server over TLS.
    pub(in crate::server) fn public_scheme(&self) -> &'static str {
        let url = self.settings.public_url.as_deref();
        match url.map_or_else(|| self.tls.is_some(), |url| url.starts_with("https:")) {
            true => "https",
            false => "http",
        }
    }

    /// Where a responder at `path` is called, as the outside world sees this server.
    fn call_url(&self, path: &str, host: Option<&str>) -> Option<String> {
        let scheme = self.public_scheme();
        let base = match (&self.settings.calls.host, &self.settings.public_url) {
            (Some(host), _) => format!("{scheme}://{host}"),
            (None, Some(url)) => url.trim_end_matches('/').to_owned(),
            (None, None) => format!("{scheme}://{}", host?),
        };
        // The word may be written otherwise; then nobody is told, which does not matter.
        let path = path.trim_end_matches('/').replacen("/answer", "/call", 1);
        Some(format!("{base}{path}"))
    }
}

//! `GET` as a WebSocket: the connection becomes a subscriber.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookbot_protocol::{Filter, Path};
use http::header::{
    CONNECTION, HOST, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Request};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::Parts;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tracing::debug;

use super::State;
use super::credentials::Access;
use super::error::{HttpError, Reply};
use super::head::HeadGuard;
use super::socket::{Limits, Socket};
use super::subscriber::Subscriber;
use super::transport::Peer;

/// What a client must say to hear what anybody may publish.
const UNSAFE_IS_OK: (HeaderName, &str) = (
    HeaderName::from_static("x-hookbot-unsafe-is-ok"),
    "I understand the security implications",
);

/// Whether the client has said that it knows what `/unsafe/` means.
pub(super) fn accepts_unsafe(headers: &HeaderMap) -> bool {
    let (name, value) = UNSAFE_IS_OK;
    headers.get(name).is_some_and(|given| given == value)
}

/// Subscribes, and replies with the handshake. From here on nothing published is missed.
pub(super) fn subscribe(
    state: &Arc<State>,
    filter: Filter,
    path: &Path,
    access: &Access,
    mut request: Request<Incoming>,
    peer: Peer,
) -> Result<Reply, HttpError> {
    let skips_gaps = skips_gaps(request.uri().query())?;
    let reply = handshake(state, path, &request)?;
    let subscriber = Subscriber {
        subscription: state.broker.subscribe(filter),
        path: path.as_str().into(),
        peer,
        skips_gaps,
        expires: access.grant.and_then(|grant| grant.expires),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let state = state.clone();
    state.clone().sockets.spawn(async move {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => return debug!(%peer, %error, "gone before the handshake was over"),
        };
        let Ok(Parts { io, read_buf, .. }) = upgraded.downcast::<TokioIo<HeadGuard>>() else {
            unreachable!("every connection is served through a HeadGuard");
        };
        let early = read_buf.to_vec();
        // Hyper's read buffer is larger than everything an idle subscriber needs.
        drop(read_buf);
        let transport = io.into_inner().into_transport();
        // In a task of its own, so that this one's size is not kept as long as the subscriber.
        state.clone().sockets.spawn(async move {
            let socket = Socket::new(transport, early, Limits::SUBSCRIBER).await;
            subscriber.run(&state, socket).await;
        });
    });
    Ok(reply)
}

/// What a subscriber without room for a gap event wants done about gaps.
fn skips_gaps(query: Option<&str>) -> Result<bool, HttpError> {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    match pairs.find(|(name, _)| name == "gap") {
        None => Ok(false),
        Some((_, value)) if value == "skip" => Ok(true),
        Some(_) => Err(HttpError::Gap),
    }
}

/// Checks the handshake (RFC 6455, section 4.2.1) and answers it.
fn handshake(state: &State, path: &Path, request: &Request<Incoming>) -> Result<Reply, HttpError> {
    let headers = request.headers();
    if !has_token(headers, CONNECTION, "upgrade") || !has_token(headers, UPGRADE, "websocket") {
        return Err(HttpError::NotWebSocket(state.websocket_url(path, headers)));
    }
    if headers
        .get(SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return Err(HttpError::WebSocketVersion);
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .and_then(|key| STANDARD.decode(key).ok());
    if key.is_none_or(|key| key.len() != 16) {
        let reason = "Sec-WebSocket-Key must be 16 bytes in base64";
        return Err(HttpError::Handshake(reason.to_owned()));
    }
    create_response_with_body(request, Full::default)
        .map_err(|error| HttpError::Handshake(error.to_string()))
}

/// Whether a list of tokens has this one, in any case.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name);
    let mut texts = values.iter().filter_map(|value| value.to_str().ok());
    texts.any(|text| {
        text.split(',')
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    })
}

impl State {
    /// Where a WebSocket client finds `path`, as the outside world sees this server.
    fn websocket_url(&self, path: &Path, headers: &HeaderMap) -> String {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        let base = match (&self.settings.public_url, host) {
            (Some(url), _) => url.replacen("http", "ws", 1),
            (None, Some(host)) => format!("{scheme}://{host}"),
            (None, None) => format!("{scheme}://localhost"),
        };
        format!(
            "{}{}",
            base.trim_end_matches('/'),
            path.as_str().escape_default()
        )
    }
}

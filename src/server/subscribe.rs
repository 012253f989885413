//! `GET` as a WebSocket or for events: the connection becomes a subscriber.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookbot_protocol::event::{EVENTS_V1, GapNotice};
use hookbot_protocol::{Cursor, Filter, Form, Path};
use http::header::{
    ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Request};
use hyper::body::Incoming;
use hyper::upgrade::Parts;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tracing::debug;

use super::State;
use super::credentials::Access;
use super::error::HttpError;
use super::event_stream::EventStream;
use super::head::HeadGuard;
use super::metrics::{Counted, Way};
use super::reply::{Reply, ReplyBody};
use super::roster::{Full, Seat};
use super::service::Asked;
use super::socket::{Limits, Socket};
use super::subscriber::Subscriber;
use super::wish::Wish;

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

/// Subscribes, and replies with the handshake or with the events themselves. From here on nothing
/// published is missed.
pub(super) async fn subscribe(
    asked: Asked<'_>,
    filter: Filter,
    path: &Path,
    access: &Access,
    request: Request<Incoming>,
) -> Result<Reply, HttpError> {
    let Asked {
        state,
        peer,
        connection,
        ..
    } = asked;
    let wish = Wish::new(request.uri().query(), request.headers(), SystemTime::now())?;
    let epoch = state.broker.epoch();
    let (line, form) = if is_websocket(request.headers()) {
        let mut reply = handshake(&request)?;
        let events = has_token(request.headers(), SEC_WEBSOCKET_PROTOCOL, EVENTS_V1);
        if events {
            let chosen = HeaderValue::from_static(EVENTS_V1);
            reply.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, chosen);
        }
        (
            Some(reply),
            if events {
                Form::Event(epoch)
            } else {
                filter.form()
            },
        )
    } else if wants_events(request.headers()) {
        (None, Form::Event(epoch))
    } else {
        return Err(HttpError::NotWebSocket(
            state.websocket_url(path, request.headers()),
        ));
    };

    let seat = take_seat(asked, access, path)?;
    let (subscription, gap) = match wish.start {
        None => (state.broker.subscribe(filter), None),
        Some(start) => state.broker.resume(filter, start).await?,
    };
    if wish.start.is_some() {
        state.metrics.resumes.inc();
    }
    if gap.is_some() {
        state.metrics.gaps.inc();
    }
    let tells_gaps = matches!(form, Form::Event(_));
    if gap.is_some() && !tells_gaps && !wish.skips_gaps {
        return Err(HttpError::Gone);
    }
    let offset = subscription.next_offset().before();
    let way = if line.is_some() {
        Way::Websocket
    } else {
        Way::EventStream
    };
    let subscriber = Subscriber {
        seat,
        _counted: Counted::new(&state.metrics, way),
        gap: gap.filter(|_| tells_gaps).map(|reason| {
            Box::new(GapNotice {
                asked: wish.asked,
                oldest: Cursor { epoch, offset }.to_string(),
                reason,
            })
        }),
        subscription,
        form,
        peer,
        skips_gaps: wish.skips_gaps,
        resumes: wish.start.is_some(),
        expires: access.grant.and_then(|grant| grant.expires),
    };
    match line {
        Some(reply) => {
            take_over(state, subscriber, request);
            Ok(reply)
        }
        None => {
            connection.subscribes();
            Ok(events(state, subscriber, request.headers()))
        }
    }
}

/// Has one who stays connected be told when its token is no longer good.
pub(super) fn take_seat(asked: Asked<'_>, access: &Access, path: &Path) -> Result<Seat, HttpError> {
    let Asked {
        state, book, peer, ..
    } = asked;
    if state.memory.is_short() {
        return Err(HttpError::Memory);
    }
    let token = access.token.as_ref().ok_or(HttpError::Unauthorized)?;
    let capacity = book.rules.capacity();
    let seat = state.roster.join(token, path, peer.ip(), capacity);
    let seat = seat.map_err(|full| match full {
        Full::All => HttpError::Subscribers,
        Full::Token => HttpError::SubscribersOfToken,
    })?;
    // Of what changed before the seat was taken it has not been told.
    let now = state.book.load_full();
    let same_keys = std::ptr::eq(&raw const *now, book);
    if !state.may_stay(token, peer.ip()) || (!same_keys && !now.still_grants(path, token)) {
        return Err(HttpError::Unauthorized);
    }
    Ok(seat)
}

/// Serves the subscriber on the connection, once hyper has let go of it.
fn take_over(state: &Arc<State>, mut subscriber: Subscriber, mut request: Request<Incoming>) {
    let upgrade = hyper::upgrade::on(&mut request);
    let state = state.clone();
    state.clone().connections.spawn(async move {
        let peer = subscriber.peer;
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
        let mut socket = Socket::new(transport, early, Limits::SUBSCRIBER).await;
        // In a task of its own, so that this one's size is not kept as long as the subscriber.
        // It borrows what it owns: what a future is given by value it has room for twice.
        state.clone().connections.spawn(async move {
            subscriber.run(&state, &mut socket).await;
        });
    });
}

/// The response that events come in.
fn events(state: &Arc<State>, subscriber: Subscriber, headers: &HeaderMap) -> Reply {
    let stream = EventStream::new(state, subscriber);
    let mut reply = Reply::new(ReplyBody::Events(Box::new(stream)));
    let text = HeaderValue::from_static;
    for (name, value) in [
        (CONTENT_TYPE, text("text/event-stream")),
        (CACHE_CONTROL, text("no-cache")),
        // Nginx would otherwise wait for more.
        (HeaderName::from_static("x-accel-buffering"), text("no")),
    ] {
        reply.headers_mut().insert(name, value);
    }
    state.allow_origin(headers, reply.headers_mut());
    reply
}

/// Whether the client wants another protocol on this connection.
pub(super) fn is_websocket(headers: &HeaderMap) -> bool {
    has_token(headers, CONNECTION, "upgrade") && has_token(headers, UPGRADE, "websocket")
}

fn wants_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT);
    let mut texts = values.iter().filter_map(|value| value.to_str().ok());
    texts.any(|text| {
        text.split([',', ';'])
            .any(|item| item.trim().eq_ignore_ascii_case("text/event-stream"))
    })
}

/// Checks the handshake (RFC 6455, section 4.2.1) and answers it.
pub(super) fn handshake(request: &Request<Incoming>) -> Result<Reply, HttpError> {
    let headers = request.headers();
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
    create_response_with_body(request, ReplyBody::default)
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
    pub(super) fn websocket_url(&self, path: &Path, headers: &HeaderMap) -> String {
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

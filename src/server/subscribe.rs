//! `GET` as a WebSocket or for events: the connection becomes a subscriber.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookbot_protocol::event::{EVENTS_V1, GapNotice};
use hookbot_protocol::{Cursor, Filter, Form, Path};
use http::header::{
    ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Request};
use hyper::body::Incoming;
use hyper::upgrade::Parts;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tracing::debug;

use super::State;
use super::channels::{Dialect, masked};
use super::credentials::Access;
use super::error::HttpError;
use super::event_stream::EventStream;
use super::head::HeadGuard;
use super::metrics::{Counted, Way};
use super::reply::{Reply, ReplyBody};
use super::roster::{Full, Pass, Seat};
use super::service::Asked;
use super::socket::{Limits, Socket};
use super::subscriber::Subscriber;
use super::transport::{Peer, Transport};
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

/// Subscribes, and replies with the handshake or with the events themselves.
pub(super) async fn subscribe(
    asked: Asked<'_>,
    filter: Filter,
    path: &Path,
    access: &Access,
    request: Request<Incoming>,
) -> Result<Reply, HttpError> {
    let state = asked.state;
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
        return Err(HttpError::NotWebSocket(websocket_url(
            asked,
            path,
            request.headers(),
        )));
    };
    let token = access.token.as_ref().ok_or(HttpError::Unauthorized)?;
    let wanted = Wanted {
        filter,
        wish,
        form,
        way: if line.is_some() {
            Way::Websocket
        } else {
            Way::EventStream
        },
        pass: Pass::Token(token.clone()),
        expires: access.grant.and_then(|grant| grant.expires),
    };
    let subscriber = begin(asked, path, wanted).await?;
    match line {
        Some(reply) => {
            take_over(state, subscriber, request);
            Ok(reply)
        }
        None => Ok(events(
            asked,
            subscriber,
            Dialect::Hookbot,
            request.headers(),
        )),
    }
}

/// What somebody wants to hear, and by what right.
pub(super) struct Wanted {
    pub(super) filter: Filter,
    pub(super) wish: Wish,
    pub(super) form: Form,
    pub(super) way: Way,
    pub(super) pass: Pass,
    /// When that right ends, in seconds since 1970.
    pub(super) expires: Option<u64>,
}

/// Makes a subscriber. From here on nothing published is missed.
pub(super) async fn begin(
    asked: Asked<'_>,
    path: &Path,
    wanted: Wanted,
) -> Result<Subscriber, HttpError> {
    let Asked { state, peer, .. } = asked;
    let Wanted {
        filter,
        wish,
        form,
        way,
        pass,
        expires,
    } = wanted;
    let seat = take_seat(asked, path, pass)?;
    let epoch = state.broker.epoch();
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
    Ok(Subscriber {
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
        expires,
    })
}

/// Takes a seat for somebody who stays, if there is room for anybody and for more of theirs.
pub(super) fn take_seat(asked: Asked<'_>, path: &Path, pass: Pass) -> Result<Seat, HttpError> {
    let Asked {
        state, book, peer, ..
    } = asked;
    if state.memory.is_short() {
        return Err(HttpError::Memory);
    }
    let capacity = book.rules.capacity();
    let seat = state.roster.join(pass.clone(), path, peer.ip(), capacity);
    let seat = seat.map_err(|full| match full {
        Full::All => HttpError::Subscribers,
        Full::Pass => HttpError::SubscribersOfToken,
        Full::Channels => HttpError::Channels,
    })?;
    // Of what changed before the seat was taken it has not been told.
    let now = state.book.load_full();
    let same_keys = std::ptr::eq(&raw const *now, book);
    if !state.may_stay(&pass, peer.ip()) || (!same_keys && !now.still_grants(path, &pass)) {
        return Err(HttpError::Unauthorized);
    }
    Ok(seat)
}

/// Serves the subscriber on the connection, once hyper has let go of it.
fn take_over(state: &Arc<State>, mut subscriber: Subscriber, request: Request<Incoming>) {
    let own = state.clone();
    let peer = subscriber.peer;
    upgrade(state, peer, request, move |transport, early| async move {
        let mut socket = Socket::new(transport, early, Limits::SUBSCRIBER).await;
        // In a task of its own, so that this one's size is not kept as long as the subscriber.
        // It borrows what it owns: what a future is given by value it has room for twice.
        own.clone().connections.spawn(async move {
            subscriber.run(&own, &mut socket).await;
        });
    });
}

/// Hands the connection over, once hyper has let go of it, with what was read of it too early.
pub(super) fn upgrade<Serving: Future<Output = ()> + Send>(
    state: &Arc<State>,
    peer: Peer,
    mut request: Request<Incoming>,
    serve: impl FnOnce(Transport, Vec<u8>) -> Serving + Send + 'static,
) {
    let upgrade = hyper::upgrade::on(&mut request);
    state.connections.spawn(async move {
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
        serve(io.into_inner().into_transport(), early).await;
    });
}

/// The response that events come in.
pub(super) fn events(
    asked: Asked<'_>,
    subscriber: Subscriber,
    dialect: Dialect,
    headers: &HeaderMap,
) -> Reply {
    let state = asked.state;
    asked.connection.subscribes();
    let stream = EventStream::new(state, subscriber, dialect);
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

pub(super) fn wants_events(headers: &HeaderMap) -> bool {
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

/// Where a WebSocket client finds `path`, as the outside world sees this server.
pub(super) fn websocket_url(asked: Asked<'_>, path: &Path, headers: &HeaderMap) -> String {
    let base = asked.base_url(headers).replacen("http", "ws", 1);
    format!("{base}{}", masked(path.as_str()).escape_default())
}

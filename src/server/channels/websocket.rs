//! The channels of webhook-over-websocket: a sender's request goes to the client at the other end
//! of a WebSocket, and the client's answer is the reply.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, EXPECT, HeaderMap,
    HeaderName, HeaderValue,
};
use http::request::Parts;
use http::{Method, Request};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::timeout;

use super::channel_id::{ChannelId, Kind};
use super::client::Client;
use super::responder::Room;
use super::{Visit, json, mint, raw_response};
use crate::server::credentials::is_like_ours;
use crate::server::error::HttpError;
use crate::server::metrics::{Counted, Way};
use crate::server::publish::read;
use crate::server::reply::{Reply, ReplyBody};
use crate::server::roster::Pass;
use crate::server::service::Asked;
use crate::server::socket::{Limits, Socket};
use crate::server::subscribe::{handshake, is_websocket, take_seat, upgrade, websocket_url};

/// Gives out a channel.
pub(super) fn new(asked: Asked<'_>) -> Result<Reply, HttpError> {
    let id = mint(asked, Kind::Websocket)?;
    Ok(json(format!("{}\n", json!({ "channel_id": id.expose() }))))
}

/// Takes the channel for a client, and serves it once the connection is a WebSocket.
pub(super) fn connect(
    visit: Visit<'_>,
    id: ChannelId,
    request: Request<Incoming>,
) -> Result<Reply, HttpError> {
    let Visit { asked, path, .. } = visit;
    let (state, peer) = (asked.state, asked.peer);
    if !is_websocket(request.headers()) {
        let url = websocket_url(asked, path, request.headers());
        return Err(HttpError::NotWebSocket(url));
    }
    let reply = handshake(&request)?;
    let place = state.responders.take(id.clone());
    let client = Client {
        place: place.ok_or(HttpError::ChannelTaken)?,
        peer,
        seat: take_seat(asked, path, Pass::Channel(id))?,
        _counted: Counted::new(&state.metrics, Way::Websocket),
    };
    let own = state.clone();
    upgrade(state, peer, request, move |transport, early| async move {
        let limits = Limits {
            // An answer in base64, and its JSON.
            message: (own.settings.max_body + MAX_HEAD).div_ceil(3) * 4 + MAX_HEAD,
            read_buffer: READ_BUFFER,
        };
        let socket = Socket::new(transport, early, limits).await;
        own.clone()
            .connections
            .spawn(async move { client.run(&own, socket).await });
    });
    Ok(reply)
}

/// Brings a request to the client, and its answer back.
pub(super) async fn call(
    visit: Visit<'_>,
    id: &ChannelId,
    request: &Parts,
    body: Incoming,
) -> Result<(Reply, Option<usize>), HttpError> {
    let (state, book, peer) = (visit.asked.state, visit.asked.book, visit.asked.peer);
    let responder = state.responders.find(id).ok_or(HttpError::NoClient)?;
    if state.memory.is_short() {
        return Err(HttpError::Memory);
    }
    let (strangers, settings) = (&state.strangers, &state.settings);
    strangers.count_share(peer).map_err(HttpError::TooMany)?;
    strangers.count().map_err(HttpError::TooMany)?;
    book.count_channel(id)?;
    let mut room = Room::new(state);
    let reading = read(request, body, settings.max_body, room.charges());
    let body = timeout(settings.body_timeout, reading).await;
    let body = body.map_err(|_| HttpError::BodyTimeout(settings.body_timeout))??;
    let size = body.len();

    let payload = STANDARD.encode(raw_request(visit, request, &body));
    drop(body);
    room.add(payload.len()).map_err(|_| HttpError::Busy)?;
    let mut call = responder.call().map_err(|_| HttpError::Busy)?;
    let answer = timeout(settings.answer_timeout, call.ask(payload, room)).await;
    let answer = answer.map_err(|_| HttpError::NoAnswer(settings.answer_timeout))?;
    let answer = answer.map_err(|_| HttpError::ClientGone)?;
    let raw = STANDARD.decode(&answer.payload).unwrap_or_default();
    let response = raw_response::parse(&raw, &request.method, settings.max_body)?;

    let (mut parts, body) = response.into_parts();
    keep_to_the_answer(&mut parts.headers, &request.method);
    Ok((
        Reply::from_parts(parts, ReplyBody::Whole(Full::new(body))),
        Some(size),
    ))
}

/// The request as it is on the wire, without what is between the sender and us and without tokens
/// of ours. Its path is the whole one, for so the client has always got it.
fn raw_request(visit: Visit<'_>, request: &Parts, body: &Bytes) -> Vec<u8> {
    let access = visit.access;
    let query = access.kept_query(request.uri.query());
    let query = if query.is_empty() {
        query
    } else {
        format!("?{query}")
    };
    let (method, path) = (&request.method, request.uri.path());
    let mut raw = format!("{method} {path}{query} HTTP/1.1\r\n").into_bytes();
    for (name, value) in access.kept_headers(request).iter() {
        let is_ours = name == AUTHORIZATION && is_like_ours(value);
        if is_ours || name == EXPECT || name == CONTENT_LENGTH {
            continue;
        }
        raw.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    let has_body = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    if has_body || !body.is_empty() {
        // Writing to a vector can't fail.
        let _ = write!(raw, "{CONTENT_LENGTH}: {}\r\n", body.len());
    }
    raw.extend_from_slice(b"\r\n");
    raw.extend_from_slice(body);
    raw
}

/// Takes out of a client's answer what is not for the sender, and what would change how a browser
/// treats this whole host, where other people's pages are as well.
fn keep_to_the_answer(headers: &mut HeaderMap, method: &Method) {
    let connection: Vec<_> = headers.get_all(CONNECTION).iter().cloned().collect();
    let nominated = connection.iter().filter_map(|value| value.to_str().ok());
    for name in nominated.flat_map(|names| names.split(',')) {
        headers.remove(name.trim());
    }
    for name in NOT_PASSED {
        headers.remove(name);
    }
    if *method != Method::HEAD {
        // Written anew.
        headers.remove(CONTENT_LENGTH);
    }
    let policy = HeaderValue::from_static("sandbox");
    headers.insert(CONTENT_SECURITY_POLICY, policy);
}

const NOT_PASSED: [HeaderName; 15] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("te"),
    HeaderName::from_static("trailer"),
    HeaderName::from_static("transfer-encoding"),
    HeaderName::from_static("upgrade"),
    HeaderName::from_static("alt-svc"),
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("service-worker-allowed"),
    HeaderName::from_static("set-cookie"),
    HeaderName::from_static("set-cookie2"),
    HeaderName::from_static("strict-transport-security"),
    HeaderName::from_static("www-authenticate"),
];

/// How long an answer's head may be, in bytes, and what is around it.
const MAX_HEAD: usize = 64 << 10;

/// Every client has it all the time, in bytes.
const READ_BUFFER: usize = 4 << 10;

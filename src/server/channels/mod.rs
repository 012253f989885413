//! Doors for the clients of other systems, which work here unchanged: smee, gosmee and
//! webhook-over-websocket.
//!
//! Each speaks its own protocol at paths of its own, and none of them knows what a token is.
//! Whoever has a channel's id may send to it and listen to it; the id is a secret that this server
//! has given out, and nothing is kept of it. One that nobody was given, or that is revoked, is
//! refused before anything else is done.
//!
//! [`door`] finds out what a path is for. Behind it, [`smee`] publishes and subscribes, on a topic
//! below `/unsafe/smee/`, with what a client sees written by a [`dialect`]. [`websocket`] brings a
//! sender's request to a [`responder`], which a [`client`] at the other end of a WebSocket is, and
//! takes its answer apart, which is a [`raw_response`].

mod channel_id;
mod client;
mod dialect;
mod directory;
mod door;
mod page;
mod raw_response;
mod responder;
mod smee;
mod websocket;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;

use hookbot_protocol::{Name, Path};

use super::cors;
use super::credentials::Access;
use super::error::HttpError;
use super::reply::{Reply, line};
use super::service::{Asked, authorize, count_failure, try_access};

pub(super) use channel_id::{ChannelId, Kind, masked};
pub(super) use dialect::Dialect;
pub(super) use door::Door;
pub(super) use raw_response::BadResponse;
pub(super) use responder::Responders;

/// Answers a request at one of the doors; with it, how large the body was, if it was read.
pub(super) async fn answer(
    asked: Asked<'_>,
    path: &Path,
    request: Request<Incoming>,
    name: &mut Option<Name>,
) -> Result<(Reply, Option<usize>), HttpError> {
    let book = asked.book;
    book.rules.admits(asked.peer)?;
    book.count_address(asked.peer)?;
    let is_open = |door: &Door| {
        door.id()
            .is_none_or(|id| !asked.state.denies_channel(book, id))
    };
    let door = Door::parse(path.as_str(), &book.rules.keys).ok();
    let Some(door) = door.filter(is_open) else {
        count_failure(asked)?;
        return Err(HttpError::NoChannel);
    };
    let (parts, body) = request.into_parts();
    // A browser asks this without credentials.
    if parts.method == Method::OPTIONS
        && !matches!(door, Door::Webhook(_))
        && let Some(reply) = cors::preflight(asked.state, &parts.headers)
    {
        return Ok((reply, None));
    }
    let access = match needs_token(asked, &door) {
        true => authorize(asked, &parts, path)?,
        false => try_access(asked, &parts, path)?,
    };
    *name = access.token_name();
    if let Some(allowed) = refused(&door, &parts.method) {
        return Err(HttpError::Method(allowed));
    }
    let visit = Visit {
        asked,
        path,
        access: &access,
    };
    let whole = |reply| Ok((reply, None));
    match door {
        Door::NewSmee => whole(smee::new(asked, &parts)?),
        Door::Version => whole(version()),
        Door::Smee(id) if parts.method == Method::POST => {
            smee::publish(visit, &id, &parts, body).await
        }
        Door::Smee(id) => whole(smee::listen(visit, id, &parts).await?),
        Door::Events(id) => whole(smee::gosmee(visit, id, &parts).await?),
        Door::Replay(id) => smee::replay(visit, &id, &parts, body).await,
        Door::New => whole(websocket::new(asked)?),
        Door::Socket(id) => {
            let request = Request::from_parts(parts, body);
            whole(websocket::connect(visit, id, request)?)
        }
        Door::Webhook(id) => websocket::call(visit, &id, &parts, body).await,
        Door::Traefik => whole(directory::traefik(asked, &parts)),
        Door::Channels => whole(directory::channels(asked, &parts)),
    }
}

/// A request whose door and rights are known.
#[derive(Clone, Copy)]
struct Visit<'a> {
    asked: Asked<'a>,
    path: &'a Path,
    access: &'a Access,
}

/// The methods of a door, if this is none of them.
fn refused(door: &Door, method: &Method) -> Option<&'static str> {
    let (allowed, is_allowed) = match door {
        Door::Webhook(_) => return (*method == Method::CONNECT).then_some("GET, POST, PUT"),
        Door::Smee(_) => (
            "GET, HEAD, POST",
            matches!(*method, Method::GET | Method::HEAD | Method::POST),
        ),
        Door::NewSmee | Door::Version => {
            ("GET, HEAD", matches!(*method, Method::GET | Method::HEAD))
        }
        Door::Replay(_) => ("POST", *method == Method::POST),
        _ => ("GET", *method == Method::GET),
    };
    (!is_allowed).then_some(allowed)
}

/// Whether a door takes a token for its path.
fn needs_token(asked: Asked<'_>, door: &Door) -> bool {
    match door {
        Door::NewSmee | Door::New => asked.state.settings.channels_token,
        Door::Replay(_) | Door::Traefik | Door::Channels => true,
        _ => false,
    }
}

/// A new channel's id. Nothing is kept of it.
fn mint(asked: Asked<'_>, kind: Kind) -> Result<ChannelId, HttpError> {
    asked.book.count_new_channel(asked.peer)?;
    ChannelId::mint(&asked.book.rules.keys, kind).map_err(|_| HttpError::Busy)
}

/// What gosmee's client asks for before it connects.
fn version() -> Reply {
    let mut reply = json(format!("{{\"version\":\"{GOSMEE}\"}}\n"));
    add_version(&mut reply);
    reply
}

/// Says which gosmee this server is as good as, so that its client does not warn.
pub(super) fn add_version(reply: &mut Reply) {
    let name = HeaderName::from_static("x-gosmee-version");
    let version = HeaderValue::from_static(GOSMEE);
    reply.headers_mut().insert(name, version);
}

/// A reply that is one JSON value, and nobody else's to see.
fn json(text: String) -> Reply {
    let mut reply = line(StatusCode::OK, text);
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// The gosmee whose server's streams are spoken.
const GOSMEE: &str = "0.32.0";

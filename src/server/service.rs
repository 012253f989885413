//! One request: checked, brought to its endpoint, answered, and logged.
//!
//! The order of the checks is the protocol's: a malformed path, a bad token, a missing unsafe
//! header, a wrong method. Nothing of a body is read before all of them have passed.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use hookbot_protocol::{Call, Endpoint, Filter, Name, Path, PathError, Topic};
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN};
use http::request::Parts;
use http::{Method, Request, StatusCode, Version};
use hyper::body::{Body, Incoming};
use tracing::info;

use super::State;
use super::call::LogLine;
use super::channels::{self, Door, masked};
use super::connection::Open;
use super::credentials::{Access, Trial};
use super::error::HttpError;
use super::head::Flaw;
use super::reply::{Reply, ReplyBody, line};
use super::rules::Rulebook;
use super::transport::Peer;
use super::{call, cors, handshake, publish, subscribe};

/// Answers a request, with one line in the log.
pub(super) async fn respond(
    state: &Arc<State>,
    request: Request<Incoming>,
    flaw: Option<Flaw>,
    peer: Peer,
    connection: &Open,
) -> Reply {
    let began = Instant::now();
    let book = state.book.load_full();
    let proxies = &book.rules.proxies;
    let own = if state.tls.is_some() { "https" } else { "http" };
    let scheme = proxies.scheme(peer, request.headers()).unwrap_or(own);
    let peer = proxies.client(peer, request.headers());
    let mut name = None;
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let has_body = !request.body().is_end_stream();

    let asked = Asked {
        state,
        book: &book,
        peer,
        scheme,
        connection,
    };
    let mut refused = None;
    let (mut reply, read) = match answer(asked, request, flaw, &mut name).await {
        Ok(answered) => answered,
        Err(error) => {
            state.metrics.refused(error.reason());
            refused = Some(match &error {
                // It tells whoever sets up a provider what to look for.
                HttpError::Signature(refusal) => refusal.to_string().into(),
                error => Cow::Borrowed(error.reason()),
            });
            (error.reply(), None)
        }
    };
    let is_confused = reply.status() == StatusCode::BAD_REQUEST;
    if (has_body && read.is_none()) || is_confused {
        // What was not read would otherwise be taken for the next request.
        reply
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let bytes = read.unwrap_or_default();
    // What a host of its own says is said by the responder alone.
    if !(matches!(reply.body(), ReplyBody::Call(_)) && state.settings.calls.host.is_some()) {
        let no_sniffing = HeaderName::from_static("x-content-type-options");
        reply
            .headers_mut()
            .insert(no_sniffing, HeaderValue::from_static("nosniff"));
    }

    let status = reply.status().as_u16();
    if let ReplyBody::Call(download) = reply.body_mut() {
        download.log_as(LogLine {
            peer,
            method,
            path: masked(&path).into_owned(),
            status,
            token: name.map(|name| name.to_string()),
            began,
        });
        return reply;
    }
    let ms = began.elapsed().as_secs_f64() * 1e3;
    // Quoted, the path can't break the line; without its query, it has no token. A method may be
    // any word.
    let (path, method) = (masked(&path), masked(method.as_str()));
    let (token, refused) = (name.as_ref().map(Name::as_str), refused.as_deref());
    info!(target: "hookbot::request", %peer, %method, ?path, status, bytes, ms = (ms * 1e3).round() / 1e3, token, refused);
    reply
}

/// What there is to answer a request with.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) state: &'a Arc<State>,
    /// The rules as they were when the request came.
    pub(super) book: &'a Rulebook,
    /// The client, which may be behind a proxy.
    pub(super) peer: Peer,
    /// What the client speaks, with us or with a proxy: `http` or `https`.
    pub(super) scheme: &'static str,
    pub(super) connection: &'a Open,
}

/// What a request is for, once its method is known to fit its path.
enum Task {
    Publish(Topic),
    Subscribe(Filter),
    Call(Call),
    Answer(Filter),
}

/// Finds the answer; with it, how large the body was, if it was read. Notes the name of the token
/// that was good for it.
async fn answer(
    asked: Asked<'_>,
    request: Request<Incoming>,
    flaw: Option<Flaw>,
    name: &mut Option<Name>,
) -> Result<(Reply, Option<usize>), HttpError> {
    let Asked {
        state, book, peer, ..
    } = asked;
    if let Some(flaw) = flaw {
        return Err(flaw.into());
    }
    check_host(&request)?;
    let path = Path::parse(request.uri().path())?;
    check_place(state, &request, &path)?;
    let method = request.method();
    if let (Endpoint::Combined(Filter::Prefix(_)), &Method::POST | &Method::PUT) =
        (path.endpoint(), method)
    {
        return Err(PathError::PublishToPrefix.into());
    }
    if state.settings.open_channels && Door::is_door(path.as_str()) {
        // Boxed, as every connection has room for what is not, whatever it asks for.
        return Box::pin(channels::answer(asked, &path, request, name)).await;
    }
    if *path.endpoint() == Endpoint::Other {
        let (parts, _) = request.into_parts();
        return Ok((housekeeping(asked, &parts, &path)?, None));
    }
    book.rules.admits(peer)?;
    book.count_address(peer)?;

    // A browser asks this without credentials.
    let is_call = matches!(path.endpoint(), Endpoint::Call(_));
    if *method == Method::OPTIONS
        && !is_call
        && let Some(reply) = cors::preflight(state, request.headers())
    {
        return Ok((reply, None));
    }

    let (parts, body) = request.into_parts();
    let access = authorize(asked, &parts, &path)?;
    *name = access.token_name();
    let is_unsafe = path.is_unsafe();
    if let Some(reply) = handshake::answer(asked, path.endpoint(), &parts)? {
        return Ok((reply, None));
    }
    match task(path.endpoint(), &parts.method, is_unsafe, &parts)? {
        Task::Publish(topic) => {
            let (reply, bytes) = publish::publish(asked, topic, &access, &parts, body).await?;
            Ok((reply, Some(bytes)))
        }
        Task::Subscribe(filter) => {
            let request = Request::from_parts(parts, body);
            let subscribing = subscribe::subscribe(asked, filter, &path, &access, request);
            let reply = Box::pin(subscribing).await?;
            Ok((reply, None))
        }
        Task::Call(to) => {
            let request = Request::from_parts(parts, body);
            Box::pin(call::call(asked, &to, &access, request)).await
        }
        Task::Answer(filter) => {
            let request = Request::from_parts(parts, body);
            let reply = call::answer(asked, filter, &path, &access, request)?;
            Ok((reply, None))
        }
    }
}

/// HTTP/1.1 requires one Host; two would let two readers see two different requests.
fn check_host(request: &Request<Incoming>) -> Result<(), HttpError> {
    let hosts = request.headers().get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Err(HttpError::Host);
    }
    Ok(())
}

/// Where calls have a host of their own, they are served there alone and nothing else is: what a
/// responder's pages do there is done to nobody else.
fn check_place(state: &State, request: &Request<Incoming>, path: &Path) -> Result<(), HttpError> {
    let Some(own) = &state.settings.calls.host else {
        return Ok(());
    };
    let given = request.headers().get(HOST);
    let given = given.and_then(|host| host.to_str().ok());
    let is_same = given.is_some_and(|given| {
        let without_port = match given.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => given,
        };
        own.eq_ignore_ascii_case(given) || own.eq_ignore_ascii_case(without_port)
    });
    if is_same == matches!(path.endpoint(), Endpoint::Call(_)) {
        return Ok(());
    }
    Err(HttpError::NotFound)
}

/// Tries the request's credentials. Only publishing to an unsafe topic and calling there needs
/// none.
pub(super) fn authorize(
    asked: Asked<'_>,
    request: &Parts,
    path: &Path,
) -> Result<Access, HttpError> {
    let is_for_all = matches!(path.endpoint(), Endpoint::Publish(_) | Endpoint::Call(_));
    let is_open = path.is_unsafe() && is_for_all;
    let access = try_access(asked, request, path)?;
    if access.grant.is_none() && !is_open {
        count_failure(asked)?;
        return Err(HttpError::Unauthorized);
    }
    Ok(access)
}

/// Counts a guess, at a token or at something else that nobody is to guess.
pub(super) fn count_failure(asked: Asked<'_>) -> Result<(), HttpError> {
    let counted = asked.state.failures.count(asked.peer);
    counted.map_err(HttpError::TooManyFailures)
}

/// Tries the request's credentials, and notes that they were good for something, if they were.
pub(super) fn try_access(
    asked: Asked<'_>,
    request: &Parts,
    path: &Path,
) -> Result<Access, HttpError> {
    let Asked {
        state, book, peer, ..
    } = asked;
    let now = now();
    let trial = Trial {
        path,
        keys: &book.rules.keys,
        verified: &book.verified,
        denied: [&book.rules.denied, &state.revoked.load()],
        now,
    };
    let access = Access::new(request, trial);
    if access.grant.is_some() && access.only_basic && !is_same_origin(state, request) {
        return Err(HttpError::Origin);
    }
    if let (Some(token), Some(grant)) = (&access.token, access.grant) {
        book.count_token(token)?;
        state.token_uses.note(token, grant.key, path, peer, now);
    }
    Ok(access)
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// Whether a page that may use the browser's password asks, or no page at all.
fn is_same_origin(state: &State, request: &Parts) -> bool {
    let text = |name| {
        request
            .headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let Some(origin) = request.headers.get(ORIGIN) else {
        return true;
    };
    let Some(origin) = origin.to_str().ok() else {
        return false;
    };
    if state
        .settings
        .origins
        .iter()
        .any(|allowed| allowed == "*" || allowed == origin)
    {
        return true;
    }
    // Clients of the Go program leave the scheme out.
    let (scheme, authority) = origin.split_once("//").unwrap_or_default();
    let default_port = if scheme == "https:" { ":443" } else { ":80" };
    let without_port = |host: &str| {
        host.strip_suffix(default_port)
            .unwrap_or(host)
            .to_ascii_lowercase()
    };
    let host = request
        .uri
        .authority()
        .map(http::uri::Authority::as_str)
        .or_else(|| text(HOST));
    !authority.is_empty() && host.is_some_and(|host| without_port(host) == without_port(authority))
}

/// Brings method and path together.
fn task(
    endpoint: &Endpoint,
    method: &Method,
    is_unsafe: bool,
    request: &Parts,
) -> Result<Task, HttpError> {
    let publishes = matches!(*method, Method::POST | Method::PUT);
    let subscribes = *method == Method::GET;
    match endpoint {
        Endpoint::Publish(topic) if publishes => Ok(Task::Publish(topic.clone())),
        Endpoint::Publish(_) => Err(HttpError::Method("POST, PUT")),
        Endpoint::Call(call) => Ok(Task::Call(call.clone())),
        Endpoint::Subscribe(_) | Endpoint::Answer(_)
            if is_unsafe && !subscribe::accepts_unsafe(&request.headers) =>
        {
            Err(HttpError::UnsafeHeader)
        }
        Endpoint::Answer(filter) if subscribes => Ok(Task::Answer(filter.clone())),
        Endpoint::Answer(_) => Err(HttpError::Method("GET")),
        Endpoint::Subscribe(filter) if subscribes => Ok(Task::Subscribe(filter.clone())),
        Endpoint::Subscribe(_) => Err(HttpError::Method("GET")),
        Endpoint::Combined(Filter::Topic(topic)) if publishes => Ok(Task::Publish(topic.clone())),
        Endpoint::Combined(filter) if subscribes => Ok(Task::Subscribe(filter.clone())),
        Endpoint::Combined(Filter::Topic(_)) => Err(HttpError::Method("GET, POST, PUT")),
        Endpoint::Combined(Filter::Prefix(_)) => Err(HttpError::Method("GET")),
        Endpoint::Other => Err(HttpError::NotFound),
    }
}

/// The server's own pages.
fn housekeeping(asked: Asked<'_>, request: &Parts, path: &Path) -> Result<Reply, HttpError> {
    let state = asked.state;
    let (text, content_type) = match path.as_str() {
        "/status" => ("OK\n".to_owned(), TEXT),
        "/healthz" => ("{\"status\":\"OK\"}\n".to_owned(), JSON),
        "/readyz" if state.broker.is_writable() => ("OK\n".to_owned(), TEXT),
        "/readyz" => return Err(HttpError::NotReady),
        "/version" => (
            concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}\n").to_owned(),
            JSON,
        ),
        "/metrics" => {
            asked.book.rules.admits(asked.peer)?;
            authorize(asked, request, path)?;
            (state.metrics.text(), OPEN_METRICS)
        }
        _ => return Err(HttpError::NotFound),
    };
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(HttpError::Method("GET, HEAD"));
    }
    let mut reply = line(StatusCode::OK, text);
    let content_type = HeaderValue::from_static(content_type);
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    if state.settings.open_channels && path.as_str() == "/version" {
        // Gosmee's client asks here, whatever is in front of the channel's id.
        channels::add_version(&mut reply);
    }
    Ok(reply)
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

//! Providers that ask whether anybody is there: answered here, and never published.

use std::sync::Arc;

use hookbot_protocol::{Endpoint, Headers};
use hookbot_signatures::{Answer, Request};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use tracing::info;

use super::error::HttpError;
use super::gate::Gate;
use super::reply::{Reply, line};
use super::service::{Asked, now};

/// The answer to a handshake that comes without a body, by `GET` or `HEAD`.
pub(super) fn answer(
    asked: Asked<'_>,
    endpoint: &Endpoint,
    request: &Parts,
) -> Result<Option<Reply>, HttpError> {
    let Endpoint::Publish(topic) = endpoint else {
        return Ok(None);
    };
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Ok(None);
    }
    let Some(gate) = asked.book.gate(topic).filter(|gate| gate.verifies()) else {
        return Ok(None);
    };
    gate.admit(asked.peer)?;
    let share = asked.state.strangers.count_share(asked.peer);
    share.map_err(HttpError::TooMany)?;
    let headers = request.headers.iter();
    let headers: Headers = headers
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    let greeting = Request {
        method: request.method.as_str(),
        url: &url(asked, request),
        headers: &headers,
        body: &[],
    };
    let answer = gate.greet(&greeting, now());
    Ok(answer.map(|answer| reply(gate, answer)))
}

/// What a provider is told.
pub(super) fn reply(gate: &Arc<Gate>, answer: Answer) -> Reply {
    let source = &gate.source.name;
    if let Some(url) = &answer.confirm {
        // Nothing is fetched: the operator decides whether this server is to be subscribed.
        info!(source, url, "open this URL to confirm the subscription");
    }
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut reply = line(status, answer.body);
    let content_type = HeaderValue::from_static(answer.content_type);
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

/// The URL as the sender typed it: what this server is called outside, and path and query as they
/// came.
pub(super) fn url(asked: Asked<'_>, request: &Parts) -> String {
    let sent = request
        .uri
        .path_and_query()
        .map_or("/", |sent| sent.as_str());
    asked.base_url(&request.headers) + sent
}

//! The channels of smee and gosmee: messages on a topic that only its id leads to.

use std::time::SystemTime;

use hookbot_protocol::{Filter, Form, Topic};
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, REFERRER_POLICY,
};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use super::channel_id::{ChannelId, Kind};
use super::dialect::{self, Dialect};
use super::{Visit, mint, page};
use crate::server::error::HttpError;
use crate::server::metrics::Way;
use crate::server::reply::{Reply, ReplyBody, line};
use crate::server::roster::Pass;
use crate::server::service::Asked;
use crate::server::subscribe::{Wanted, begin, events, wants_events};
use crate::server::wish::{LAST_EVENT_ID, Wish};

/// Gives out a channel: its URL as a line of text, or as a place to go on to for smee's client,
/// which asks by `HEAD`.
pub(super) fn new(asked: Asked<'_>, request: &Parts) -> Result<Reply, HttpError> {
    let id = mint(asked, Kind::Smee)?;
    let url = url(asked, request, &id);
    let mut reply = line(StatusCode::OK, format!("{url}\n"));
    if request.method == Method::HEAD {
        *reply.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        // Of a Host that is no text there is no URL.
        let url = HeaderValue::try_from(url).map_err(|_| HttpError::Host)?;
        reply.headers_mut().insert(LOCATION, url);
    }
    keep_secret(reply.headers_mut());
    Ok(reply)
}

/// Publishes a body, whatever it is.
pub(super) async fn publish(
    visit: Visit<'_>,
    id: &ChannelId,
    request: &Parts,
    body: Incoming,
) -> Result<(Reply, Option<usize>), HttpError> {
    let Visit { asked, access, .. } = visit;
    asked.book.count_channel(id)?;
    let topic = topic(id)?;
    let published = crate::server::publish::publish(asked, topic, access, request, body).await?;
    let (reply, size) = published;
    Ok((reply, Some(size)))
}

/// Publishes as somebody with a token.
pub(super) async fn replay(
    visit: Visit<'_>,
    id: &ChannelId,
    request: &Parts,
    body: Incoming,
) -> Result<(Reply, Option<usize>), HttpError> {
    let (mut reply, size) = publish(visit, id, request, body).await?;
    *reply.status_mut() = StatusCode::ACCEPTED;
    *reply.body_mut() = ReplyBody::Whole(Full::from("replayed\n"));
    Ok((reply, size))
}

/// The events for smee's clients, or a page that tells a person what to do.
pub(super) async fn listen(
    visit: Visit<'_>,
    id: ChannelId,
    request: &Parts,
) -> Result<Reply, HttpError> {
    if wants_events(&request.headers) && request.method == Method::GET {
        return subscribe(visit, id, request, Dialect::Smee).await;
    }
    let url = url(visit.asked, request, &id);
    let mut reply = line(StatusCode::OK, page::text(&url));
    let headers = reply.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    let policy = HeaderValue::from_static(page::POLICY);
    headers.insert(http::header::CONTENT_SECURITY_POLICY, policy);
    keep_secret(headers);
    Ok(reply)
}

/// The events for gosmee's client.
pub(super) async fn gosmee(
    visit: Visit<'_>,
    id: ChannelId,
    request: &Parts,
) -> Result<Reply, HttpError> {
    let query = request.uri.query().unwrap_or_default();
    if form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "pubkey") {
        // Its user wants nobody else to read what comes.
        return Err(HttpError::Encrypted);
    }
    subscribe(visit, id, request, Dialect::Gosmee).await
}

async fn subscribe(
    visit: Visit<'_>,
    id: ChannelId,
    request: &Parts,
    dialect: Dialect,
) -> Result<Reply, HttpError> {
    let Visit { asked, path, .. } = visit;
    let wanted = Wanted {
        filter: Filter::Topic(topic(&id)?),
        wish: wish(request)?,
        form: Form::Event(asked.state.broker.epoch()),
        way: Way::EventStream,
        pass: Pass::Channel(id),
        expires: None,
    };
    let subscriber = begin(asked, path, wanted).await?;
    let mut reply = events(asked, subscriber, dialect, &request.headers);
    keep_secret(reply.headers_mut());
    Ok(reply)
}

/// Where a client wants to go on; gosmee's writes the place in its own way.
fn wish(request: &Parts) -> Result<Wish, HttpError> {
    let mut headers = HeaderMap::new();
    let said = request.headers.get(LAST_EVENT_ID);
    let text = said.and_then(|value| value.to_str().ok());
    let numbers = text
        .and_then(dialect::cursor)
        .map(|cursor| cursor.to_string());
    let place = numbers
        .as_ref()
        .and_then(|text| HeaderValue::from_str(text).ok());
    if let Some(place) = place.as_ref().or(said) {
        headers.insert(LAST_EVENT_ID, place.clone());
    }
    let mut wish = Wish::new(request.uri.query(), &headers, SystemTime::now())?;
    if let (Some(text), Some(_)) = (text, numbers) {
        text.clone_into(&mut wish.asked);
    }
    Ok(wish)
}

/// Where a channel's messages are.
fn topic(id: &ChannelId) -> Result<Topic, HttpError> {
    Topic::parse(&format!("/unsafe/smee/{}", id.expose())).map_err(|_| HttpError::NoChannel)
}

fn url(asked: Asked<'_>, request: &Parts, id: &ChannelId) -> String {
    format!("{}/smee/{}", asked.base_url(&request.headers), id.expose())
}

/// Keeps a page's address, and what is in it, from being told to others.
fn keep_secret(headers: &mut HeaderMap) {
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store"),
    );
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let robots = HeaderName::from_static("x-robots-tag");
    headers.insert(robots, HeaderValue::from_static("noindex"));
}

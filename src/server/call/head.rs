//! The head of a call as a responder sees it.

use std::net::IpAddr;

use hookbot_tunnel::strip_hop_by_hop;
use http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri, Version};
use hyper::ext::Protocol;

use crate::server::credentials::Access;
use crate::server::error::HttpError;
use crate::server::service::Asked;
use crate::server::transport::Peer;

/// The query's name for what is to be done with a call that nobody answers.
const FALLBACK: &str = "fallback";

/// Whether a call is to be published if nobody is there to answer it.
pub(super) fn wants_fallback(query: Option<&str>) -> Result<bool, HttpError> {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    match pairs.find(|(name, _)| name == FALLBACK) {
        None => Ok(false),
        Some((_, value)) if value == "publish" => Ok(true),
        Some(_) => Err(HttpError::Query {
            name: FALLBACK,
            expected: "publish",
        }),
    }
}

/// The head of a call whose path is `rest`, behind what the responder is connected for.
pub(super) fn to_responder(
    asked: Asked<'_>,
    access: &Access,
    request: &Parts,
    rest: &str,
    becoming: Option<&str>,
) -> Result<Parts, HttpError> {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.version = Version::HTTP_2;
    parts.method = request.method.clone();
    let path = if rest.is_empty() { "/" } else { rest };
    let query = kept_query(access, request.uri.query());
    let mark = if query.is_empty() { "" } else { "?" };
    // Whose URL it is, the responder knows.
    let uri: Result<Uri, _> = format!("http://hookbot{path}{mark}{query}").parse();
    parts.uri = uri.map_err(|_| HttpError::NotFound)?;
    parts.headers = access.passed_headers(request);
    let host = request.headers.get(HOST);
    strip_hop_by_hop(&mut parts.headers, &SAID_ANEW);
    let own = &request.uri.path()[..request.uri.path().len() - rest.len()];
    tell_of_the_caller(asked, host, &mut parts.headers, own);
    if let Some(protocol) = becoming {
        parts.method = Method::CONNECT;
        parts.extensions.insert(Protocol::from(protocol));
    }
    Ok(parts)
}

/// The query, without our token and what was for us alone.
fn kept_query(access: &Access, query: Option<&str>) -> String {
    let kept = access.kept_query(query);
    let is_ours = |pair: &&str| {
        let mut named = form_urlencoded::parse(pair.as_bytes());
        named.next().is_some_and(|(name, _)| name == FALLBACK)
    };
    let kept: Vec<_> = kept.split('&').filter(|pair| !is_ours(pair)).collect();
    kept.join("&")
}

/// Says who calls, and what for, in place of what the caller may have said (RFC 7239, and what is
/// older).
fn tell_of_the_caller(
    asked: Asked<'_>,
    host: Option<&HeaderValue>,
    headers: &mut HeaderMap,
    path: &str,
) {
    let text = host.and_then(|host| host.to_str().ok());
    let proto = asked.state.public_scheme();
    let ip = match asked.peer {
        Peer::Ip(address) => Some(address.ip().to_canonical()),
        Peer::Local => None,
    };
    let node = match ip {
        Some(IpAddr::V6(ip)) => format!("\"[{ip}]\""),
        Some(ip) => ip.to_string(),
        None => "unknown".to_owned(),
    };
    let mut forwarded = format!("for={node};proto={proto}");
    if let Some(text) = text.filter(|text| !text.contains(['"', '\\'])) {
        forwarded += &format!(";host=\"{text}\"");
    }
    for (name, value) in [
        (FORWARDED, Some(forwarded)),
        (
            HeaderName::from_static("x-forwarded-for"),
            ip.map(|ip| ip.to_string()),
        ),
        (
            HeaderName::from_static("x-forwarded-host"),
            text.map(str::to_owned),
        ),
        (
            HeaderName::from_static("x-forwarded-prefix"),
            Some(path.to_owned()),
        ),
        (
            HeaderName::from_static("x-forwarded-proto"),
            Some(proto.to_owned()),
        ),
    ] {
        if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
            headers.insert(name, value);
        }
    }
}

/// What is said anew, or is no longer so: hyper says itself when a body is asked for.
const SAID_ANEW: [&str; 10] = [
    "expect",
    "forwarded",
    "host",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
];

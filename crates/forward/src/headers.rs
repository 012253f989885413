//! The headers of a request to a target.
//!
//! End-to-end headers pass as they came. Hop-by-hop ones (RFC 9110, section 7.6.1) were the
//! sender's connection's, and what a proxy says of a sender is said anew, so that nobody can lie
//! about it.

use std::net::{IpAddr, SocketAddr};

use hookbot_protocol::HOP_BY_HOP;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::message::Message;

/// The place of a message in its log.
const HOOKBOT_CURSOR: HeaderName = HeaderName::from_static("hookbot-cursor");

/// The topic it was published on, percent-encoded where it is not ASCII.
const HOOKBOT_TOPIC: HeaderName = HeaderName::from_static("hookbot-topic");

/// Which attempt this is, counted from 1.
const HOOKBOT_ATTEMPT: HeaderName = HeaderName::from_static("hookbot-attempt");

/// The `Host` that a target sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// The target's own, as its URL has it.
    #[default]
    Target,
    /// The one that the sender used; the target's where it used none.
    Original,
    /// This one.
    Fixed(HeaderValue),
}

/// The headers of a message, without `Host`, as a target gets them on this attempt.
pub(crate) fn forwarded(message: &Message, attempt: u32) -> HeaderMap {
    let event = &message.event;
    let mut headers = HeaderMap::with_capacity(event.headers.len() + 8);
    let nominated = nominated(message);
    for (name, value) in &event.headers {
        let name = name.to_ascii_lowercase();
        if HOP_BY_HOP.contains(&&*name) || DROPPED.contains(&&*name) || nominated.contains(&name) {
            continue;
        }
        // What HTTP can't carry has not come by HTTP.
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = value.bytes().map(HeaderValue::try_from);
        if let (Ok(name), Some(Ok(value))) = (name, value) {
            headers.append(name, value);
        }
    }
    tell_of_the_sender(message, &mut headers);
    let mut tell = |name: HeaderName, text: &str| match HeaderValue::try_from(text) {
        Ok(value) if !text.is_empty() => drop(headers.insert(name, value)),
        _ => {}
    };
    tell(HOOKBOT_CURSOR, &event.cursor);
    tell(HOOKBOT_TOPIC, &ascii(&event.topic));
    tell(HOOKBOT_ATTEMPT, &attempt.to_string());
    headers
}

/// `Forwarded` (RFC 7239) and what is older: who sent it, and to which host.
fn tell_of_the_sender(message: &Message, headers: &mut HeaderMap) {
    let address = &message.event.address;
    let ip = address.parse::<IpAddr>().ok();
    let ip = ip.or_else(|| Some(address.parse::<SocketAddr>().ok()?.ip()));
    let host = original_host(message);
    let mut forwarded = Vec::new();
    if let Some(ip) = ip {
        forwarded.push(match ip {
            IpAddr::V4(ip) => format!("for={ip}"),
            IpAddr::V6(ip) => format!("for=\"[{ip}]\""),
        });
        if let Ok(value) = HeaderValue::try_from(ip.to_string()) {
            headers.insert(HeaderName::from_static("x-forwarded-for"), value);
        }
    }
    if let Some(host) = host {
        if let Some(text) = host
            .to_str()
            .ok()
            .filter(|text| !text.contains(['"', '\\']))
        {
            forwarded.push(format!("host=\"{text}\""));
        }
        headers.insert(HeaderName::from_static("x-forwarded-host"), host);
    }
    if let Ok(value) = HeaderValue::try_from(forwarded.join(";"))
        && !value.is_empty()
    {
        headers.insert(header::FORWARDED, value);
    }
}

/// The host that the sender asked for.
pub(crate) fn original_host(message: &Message) -> Option<HeaderValue> {
    let mut headers = message.event.headers.iter();
    let (_, value) = headers.find(|(name, _)| name.eq_ignore_ascii_case("host"))?;
    HeaderValue::try_from(value.bytes()?).ok()
}

/// The names that the sender's `Connection` declares to be about the connection.
fn nominated(message: &Message) -> Vec<String> {
    let headers = message.event.headers.iter();
    let connection = headers.filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
    let values = connection.filter_map(|(_, value)| String::from_utf8(value.bytes()?).ok());
    values
        .flat_map(|value| {
            let names = value
                .split(',')
                .map(|name| name.trim().to_ascii_lowercase());
            names.collect::<Vec<_>>()
        })
        .collect()
}

/// A text as a header can hold it: percent-encoded where it is not printable ASCII.
fn ascii(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::CONTROLS).to_string()
}

/// What does not pass either: it is recomputed here, or said anew.
const DROPPED: [&str; 11] = [
    "trailer",
    "host",
    "content-length",
    // The body is here already, so nobody has to be asked for it.
    "expect",
    // The answer is read here, so how it may be coded is not for the sender to say.
    "accept-encoding",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "hookbot-cursor",
    "hookbot-topic",
    "hookbot-attempt",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::test_message;

    fn sent(headers: &[(&str, &str)]) -> HeaderMap {
        let mut message = test_message(headers, b"");
        message.event.cursor = "e.1".to_owned();
        message.event.address = "192.0.2.7:99".to_owned();
        forwarded(&message, 3)
    }

    #[test]
    fn what_is_between_two_hops_does_not_pass_and_the_rest_does_with_its_repeats() {
        let headers = sent(&[
            ("host", "hooks.example.com"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("proxy-authorization", "Basic x"),
            ("x-a", "1"),
            ("authorization", "Bearer theirs"),
            ("x-a", "2"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("hookbot-attempt", "99"),
        ]);
        let all: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        assert_eq!(
            all,
            [
                "x-a: 1",
                "x-a: 2",
                "authorization: Bearer theirs",
                "x-forwarded-proto: https",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: hooks.example.com",
                "forwarded: for=192.0.2.7;host=\"hooks.example.com\"",
                "hookbot-cursor: e.1",
                "hookbot-topic: a/b",
                "hookbot-attempt: 3",
            ]
        );
    }

    #[test]
    fn what_http_can_not_carry_is_left_out() {
        let headers = sent(&[("a b", "1"), ("x-b", "a\nb"), ("X-Upper", "ü")]);
        assert!(!headers.contains_key("x-b"));
        assert_eq!(headers["x-upper"].as_bytes(), "ü".as_bytes());
    }
}

//! The event streams that other systems' clients understand.
//!
//! Their events mix headers and body in one object, so the rule that counts is in [`RESERVED`]:
//! nothing that a sender calls a header ever takes the place of the body.

use std::borrow::Cow;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hookbot_protocol::event::{GapNotice, server_sent_gap, server_sent_ping};
use hookbot_protocol::{Cursor, Epoch, Headers, Message, Offset};
use serde::de::IgnoredAny;
use serde_json::json;

/// How a stream's events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Dialect {
    /// Our own.
    Hookbot,
    /// That of smee.io, for smee-client and pysmee: the body as JSON.
    Smee,
    /// That of gosmee: the body in base64, and ids of two numbers, for its client takes no others
    /// for places to go on from.
    Gosmee,
}

impl Dialect {
    /// What comes first, from which a client knows that it is connected; then what it has missed,
    /// if it has.
    pub(in crate::server) fn greeting(self, place: Cursor, gap: Option<&GapNotice>) -> Bytes {
        let greeting = match self {
            Self::Hookbot => ": connected\n\n".to_owned(),
            // With a place, so that even one who is cut off before the first message goes on there.
            Self::Smee => event("ready", place),
            Self::Gosmee => ["connected", "ready"]
                .map(|message| format!("data: {}\n\n", json!({ "message": message })))
                .concat(),
        };
        let gap = gap.map(|gap| self.gap(gap)).unwrap_or_default();
        [greeting.as_bytes(), &gap].concat().into()
    }

    /// A message.
    pub(in crate::server) fn message(self, message: &Message, epoch: Epoch) -> Bytes {
        let cursor = Cursor {
            epoch,
            offset: message.offset,
        };
        let id = self.id(cursor);
        let data = match self {
            Self::Hookbot => return message.server_sent(epoch),
            Self::Smee => smee(message),
            Self::Gosmee => gosmee(message),
        };
        // In one piece: one of the clients reads chunks as if they were all there is to a stream.
        format!("id: {id}\ndata: {}\n\n", ascii(&data)).into()
    }

    /// That messages are missing here.
    pub(in crate::server) fn gap(self, gap: &GapNotice) -> Bytes {
        match self {
            Self::Hookbot | Self::Smee => server_sent_gap(gap),
            Self::Gosmee => {
                let oldest = gap.oldest.parse().map(|cursor| self.id(cursor));
                let data = json!({
                    "error": "missed_history",
                    "requested_id": gap.asked,
                    "oldest_id": oldest.unwrap_or_default(),
                });
                format!("event: gosmee-gap\ndata: {data}\n\n").into()
            }
        }
    }

    /// A sign of life.
    pub(in crate::server) fn ping(self, place: Cursor) -> Bytes {
        match self {
            Self::Hookbot => server_sent_ping(place),
            Self::Smee => event("ping", place).into(),
            Self::Gosmee => Bytes::from_static(b": keepalive\n\n"),
        }
    }

    fn id(self, cursor: Cursor) -> String {
        match self {
            Self::Gosmee => format!("{}-{}", cursor.epoch.0, cursor.offset),
            _ => cursor.to_string(),
        }
    }
}

/// The place that gosmee's client writes as two numbers.
pub(super) fn cursor(id: &str) -> Option<Cursor> {
    let (epoch, offset) = id.split_once('-')?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| text.parse().ok().filter(|_| is_number(text));
    Some(Cursor {
        epoch: Epoch(number(epoch)?),
        offset: Offset(number(offset)?),
    })
}

/// An event without data.
fn event(name: &str, place: Cursor) -> String {
    format!("id: {place}\nevent: {name}\ndata: {{}}\n\n")
}

/// Names at the top of an event that are not headers. `bodyb` is one, for gosmee's client does not
/// tell capital letters from small ones.
const RESERVED: [&str; 5] = ["body", "bodyb", "query", "timestamp", BODY_ENCODING];

/// Where smee's body is text that stands for bytes, this says `base64`. Its clients hand it on as
/// a header.
const BODY_ENCODING: &str = "x-hookbot-body-encoding";

/// The event as smee.io has it.
fn smee(message: &Message) -> String {
    let publication = &message.publication;
    let content_type = publication.headers.get("content-type");
    let (body, is_base64) = body(content_type, &publication.body);
    let mut data = "{".to_owned();
    // The clients make a body of their own, which is not compressed as this one was.
    headers(&mut data, &publication.headers, &["content-encoding"]);
    if is_base64 {
        let _ = write!(data, "\"{BODY_ENCODING}\":\"base64\",");
    }
    let query = query(&publication.query);
    let timestamp = timestamp(message);
    let _ = write!(
        data,
        "\"body\":{body},\"query\":{query},\"timestamp\":{timestamp}}}"
    );
    data
}

/// The event as gosmee's server has it.
fn gosmee(message: &Message) -> String {
    let publication = &message.publication;
    let mut data = "{".to_owned();
    headers(&mut data, &publication.headers, &[]);
    let body = STANDARD.encode(&publication.body);
    let query = query(&publication.query);
    let timestamp = timestamp(message);
    let _ = write!(
        data,
        "\"bodyB\":\"{body}\",\"query\":{query},\"timestamp\":\"{timestamp}\"}}"
    );
    data
}

/// Writes all headers but reserved ones and those `besides`, one with several values once.
fn headers(data: &mut String, headers: &Headers, besides: &[&str]) {
    let mut all: Vec<(&str, String)> = Vec::new();
    for (name, value) in headers.iter() {
        // It was between the sender and us, and the clients can't send it on.
        let is_kept = name != "expect" && !besides.contains(&name) && !RESERVED.contains(&name);
        let value = match str::from_utf8(value) {
            Ok(text) => text.to_owned(),
            // As old HTTP reads what is no UTF-8.
            Err(_) => value.iter().copied().map(char::from).collect(),
        };
        match all.iter_mut().find(|(other, _)| *other == name) {
            _ if !is_kept => {}
            Some((_, before)) => {
                before.push_str(", ");
                before.push_str(&value);
            }
            None => all.push((name, value)),
        }
    }
    for (name, value) in all {
        let _ = write!(data, "{}:{},", json!(name), json!(value));
    }
}

/// The body as JSON, and whether it had to be put into base64 for that.
fn body(content_type: Option<&[u8]>, body: &[u8]) -> (String, bool) {
    let kind = content_type.map(|kind| String::from_utf8_lossy(kind).to_ascii_lowercase());
    let kind = kind
        .as_deref()
        .map(|kind| kind.split(';').next().unwrap_or_default().trim());
    if body.is_empty() {
        return ("{}".to_owned(), false);
    }
    let Ok(text) = str::from_utf8(body) else {
        return (json!(STANDARD.encode(body)).to_string(), true);
    };
    let says_json = kind.is_none_or(|kind| kind.ends_with("/json") || kind.ends_with("+json"));
    if says_json && serde_json::from_str::<IgnoredAny>(text).is_ok() {
        return (without_spaces(text), false);
    }
    if kind == Some("application/x-www-form-urlencoded") {
        return (query(text), false);
    }
    (json!(text).to_string(), false)
}

/// The pairs of a query or a form as an object in their order; a name with several values has a
/// list.
fn query(text: &str) -> String {
    let mut all: Vec<(Cow<str>, Vec<Cow<str>>)> = Vec::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        match all.iter_mut().find(|(other, _)| *other == name) {
            Some((_, values)) => values.push(value),
            None => all.push((name, vec![value])),
        }
    }
    let pairs = all.iter().map(|(name, values)| match &values[..] {
        [value] => format!("{}:{}", json!(name), json!(value)),
        values => format!("{}:{}", json!(name), json!(values)),
    });
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
}

/// When the log took the message, in milliseconds since 1970.
fn timestamp(message: &Message) -> u128 {
    let since = message.time.duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_millis()
}

/// JSON without the space between its parts. Nothing else about it changes, so that what a client
/// makes of it is what the sender signed, where the sender's has no spaces either.
fn without_spaces(json: &str) -> String {
    let (mut is_text, mut is_escaped) = (false, false);
    let kept = json.chars().filter(|&char| {
        match char {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_text = !is_text,
            ' ' | '\t' | '\r' | '\n' => return is_text,
            _ => {}
        }
        true
    });
    kept.collect()
}

/// JSON in which every character beyond ASCII is escaped: some clients take a stream of text to
/// be Latin-1, and some end a line at characters that only Unicode calls line breaks.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for char in json.chars() {
        if char.is_ascii() && char != '\x7f' {
            text.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            let _ = write!(text, "\\u{unit:04x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    use hookbot_protocol::event::GapReason;
    use hookbot_protocol::{Publication, Topic};
    use serde_json::Value;

    const EPOCH: Epoch = Epoch(0xabc);

    fn message(headers: &[(&str, &[u8])], body: &[u8]) -> Message {
        let topic = Topic::parse("/unsafe/smee/x").unwrap();
        let publication = Publication {
            query: "a=1&b=2&b=%C3%BC&c".into(),
            headers: headers.iter().copied().collect(),
            ..Publication::new(topic, body.to_vec())
        };
        let time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        Message::new(publication, Offset(7), time)
    }

    /// The data of the one event.
    fn data(dialect: Dialect, message: &Message) -> Value {
        let text = String::from_utf8(dialect.message(message, EPOCH).to_vec()).unwrap();
        assert!(text.is_ascii(), "{text}");
        let lines: Vec<_> = text.lines().collect();
        let [id, data, ""] = lines[..] else {
            panic!("{text:?}")
        };
        let expected = match dialect {
            Dialect::Gosmee => "id: 2748-7",
            _ => "id: 0000000000000abc.7",
        };
        assert_eq!(id, expected);
        serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap()
    }

    #[test]
    fn an_event_has_headers_and_body_side_by_side() {
        let headers: [(&str, &[u8]); 5] = [
            ("content-type", b"application/json"),
            ("x-a", b"1"),
            ("x-b", b"\xc3\xbc"),
            ("x-a", b"2"),
            ("x-c", b"\xff"),
        ];
        let message = message(&headers, b"{\"z\": 1.0,\n \"a\": \"\xc3\xbc \\\" \"}");
        let query = json!({ "a": "1", "b": ["2", "ü"], "c": "" });
        assert_eq!(
            data(Dialect::Smee, &message),
            json!({
                "content-type": "application/json", "x-a": "1, 2", "x-b": "ü", "x-c": "ÿ",
                "body": { "z": 1.0, "a": "ü \" " }, "query": query,
                "timestamp": 1_700_000_000_123_u64,
            })
        );
        assert_eq!(
            data(Dialect::Gosmee, &message),
            json!({
                "content-type": "application/json", "x-a": "1, 2", "x-b": "ü", "x-c": "ÿ",
                "bodyB": STANDARD.encode(&message.publication.body), "query": query,
                "timestamp": "1700000000123",
            })
        );
    }

    #[test]
    fn no_header_takes_the_place_of_what_is_not_one() {
        let forged: Vec<(&str, &[u8])> = RESERVED.map(|name| (name, &b"forged"[..])).to_vec();
        let message = message(&forged, b"true");
        for dialect in [Dialect::Smee, Dialect::Gosmee] {
            let data = data(dialect, &message);
            assert!(!data.to_string().contains("forged"), "{data}");
            assert_eq!(data.as_object().unwrap().len(), 3, "{data}");
        }
    }

    #[test]
    fn smees_body_is_what_its_type_says_it_is() {
        let form = "application/x-www-form-urlencoded";
        for (kind, sent, body) in [
            ("application/json", &b"[1 , \"a b\"]"[..], json!([1, "a b"])),
            ("application/json; charset=utf-8", b" null ", Value::Null),
            ("application/vnd.github+json", b"{}", json!({})),
            ("application/json", b"{broken", json!("{broken")),
            ("", b"{\"a\":1}", json!({ "a": 1 })),
            ("", b"hello", json!("hello")),
            ("text/plain", b"{\"a\":1}", json!("{\"a\":1}")),
            (
                form,
                b"a=1&b=%20+&a=2",
                json!({ "a": ["1", "2"], "b": "  " }),
            ),
            ("application/json", b"", json!({})),
            ("image/png", b"\x89PNG\xff", json!("iVBOR/8=")),
        ] {
            let headers = [("content-type", kind.as_bytes())];
            let headers = if kind.is_empty() { &[][..] } else { &headers };
            let data = data(Dialect::Smee, &message(headers, sent));
            assert_eq!(data["body"], body, "{kind} {sent:?}");
            let encoding = if kind == "image/png" {
                json!("base64")
            } else {
                Value::Null
            };
            assert_eq!(data[BODY_ENCODING], encoding, "{kind} {sent:?}");
        }
    }

    #[test]
    fn json_keeps_its_order_its_numbers_and_its_spelling() {
        let text = r#"{"z":1.0,"a":12345678901234567890,"z":1e2,"u":"\u00fc\\ \" \/"}"#;
        let spaced = text.replace(',', " ,\n\t").replace(':', " : ");
        assert_eq!(without_spaces(&spaced), text);
        assert_eq!(
            ascii("a\u{7f}ü\u{2028}😀"),
            r"a\u007f\u00fc\u2028\ud83d\ude00"
        );
    }

    #[test]
    fn each_client_is_greeted_pinged_and_told_of_gaps_as_it_expects() {
        let place = Cursor {
            epoch: EPOCH,
            offset: Offset(6),
        };
        let gap = GapNotice {
            asked: "1-2".to_owned(),
            oldest: place.to_string(),
            reason: GapReason::Trimmed,
        };
        assert_eq!(
            Dialect::Smee.greeting(place, None),
            "id: 0000000000000abc.6\nevent: ready\ndata: {}\n\n"
        );
        assert_eq!(
            Dialect::Smee.ping(place),
            "id: 0000000000000abc.6\nevent: ping\ndata: {}\n\n"
        );
        assert_eq!(
            Dialect::Gosmee.greeting(place, Some(&gap)),
            "data: {\"message\":\"connected\"}\n\ndata: {\"message\":\"ready\"}\n\n\
             event: gosmee-gap\ndata: {\"error\":\"missed_history\",\
             \"oldest_id\":\"2748-6\",\"requested_id\":\"1-2\"}\n\n"
        );
        assert_eq!(Dialect::Gosmee.ping(place), ": keepalive\n\n");
        assert_eq!(cursor("2748-6"), Some(place));
        for none in ["", "-", "1-", "-1", "1-2-3", "abc.6", "+1-2"] {
            assert_eq!(cursor(none), None, "{none}");
        }
    }
}

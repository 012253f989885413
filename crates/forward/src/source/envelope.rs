//! The JSON in which smee and gosmee pass a request on.
//!
//! Both put the request's headers at the top level, beside what they add themselves. What they add
//! is told apart by its name alone, so a name of theirs is never a header here: else a sender could
//! put a header in the place of the body.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use form_urlencoded::Serializer;
use hookbot_protocol::event::{Event, HeaderText};
use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::message::Message;

/// What one event of a channel says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Envelope {
    /// Somebody has sent something.
    Message(Box<Message>, Fidelity),
    /// The server greets.
    Greeting,
    /// A message for whoever has the key.
    Encrypted,
}

/// Whether the bytes are the sender's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fidelity {
    /// They are.
    Exact,
    /// They were parsed and written again on the way: what was signed may have been others.
    Rewritten,
}

impl Envelope {
    /// Reads an event's data. `now` is its time if it says none.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn parse(data: &str, topic: &str, now: Timestamp) -> Result<Self, &'static str> {
        // What older gosmee servers greet with.
        if data == "ready" {
            return Ok(Self::Greeting);
        }
        let Members(members) = serde_json::from_str(data).map_err(|_| "it is no JSON object")?;
        let mut own: BTreeMap<&str, &RawValue> = BTreeMap::new();
        let mut headers = Vec::new();
        for (name, value) in &members {
            if !OWN.contains(&&**name) {
                headers.extend(values(value).map(|text| (name.to_ascii_lowercase(), text)));
            } else if own.insert(name, value).is_some() {
                return Err("it has one of its members twice");
            }
        }
        let has = |names: &[&str]| {
            names
                .iter()
                .all(|name| members.iter().any(|(own, _)| own == name))
        };
        let (payload, fidelity) = match (own.get("bodyB"), own.get("body")) {
            (Some(body), _) => {
                let text: Cow<'_, str> =
                    serde_json::from_str(body.get()).map_err(|_| "its bodyB is no text")?;
                let bytes = STANDARD
                    .decode(&*text)
                    .map_err(|_| "its bodyB is no base64")?;
                (Bytes::from(bytes), Fidelity::Exact)
            }
            (None, Some(body)) => {
                let kind = headers.iter().find(|(name, _)| name == "content-type");
                let kind = kind.map_or("", |(_, kind)| kind.as_str());
                (rewritten(body, kind), Fidelity::Rewritten)
            }
            (None, None) if has(&["encrypted", "epk", "nonce", "ciphertext"]) => {
                return Ok(Self::Encrypted);
            }
            // `{}`, or `{"message":"connected"}` and the like.
            (None, None) if members.iter().all(|(name, _)| name == "message") => {
                return Ok(Self::Greeting);
            }
            // gosmee leaves out what is empty.
            (None, None) => (Bytes::new(), Fidelity::Exact),
        };
        let time = own.get("timestamp").and_then(|value| milliseconds(value));
        let event = Event {
            cursor: String::new(),
            topic: topic.to_owned(),
            time: format!("{:.3}", time.unwrap_or(now)),
            method: "POST".to_owned(),
            query: own
                .get("query")
                .map(|query| encoded(query))
                .unwrap_or_default(),
            address: String::new(),
            headers: headers
                .into_iter()
                .map(|(name, value)| (name, HeaderText::Text(value)))
                .collect(),
            attributes: BTreeMap::new(),
        };
        Ok(Self::Message(
            Box::new(Message { event, payload }),
            fidelity,
        ))
    }
}

/// The members that are not headers.
const OWN: [&str; 4] = ["body", "bodyB", "query", "timestamp"];

/// A body that was parsed, as near to what was sent as can be.
fn rewritten(body: &RawValue, content_type: &str) -> Bytes {
    let is = |kind: &str| content_type.to_ascii_lowercase().starts_with(kind);
    if is("application/x-www-form-urlencoded")
        && let Ok(Members(fields)) = serde_json::from_str(body.get())
    {
        return form(&fields).into();
    }
    match serde_json::from_str::<String>(body.get()) {
        // Text stands for itself, but where it was JSON.
        Ok(text) if !is("application/json") => text.into(),
        _ => body.get().to_owned().into(),
    }
}

/// A query as it goes into a URL.
fn encoded(query: &RawValue) -> String {
    if let Ok(Members(fields)) = serde_json::from_str(query.get()) {
        return form(&fields);
    }
    serde_json::from_str(query.get()).unwrap_or_default()
}

fn form(fields: &[(Cow<'_, str>, &RawValue)]) -> String {
    let mut form = Serializer::new(String::new());
    for (name, value) in fields {
        for text in values(value) {
            form.append_pair(name, &text);
        }
    }
    form.finish()
}

/// A value's texts: it is one, or a list of them, or a number and the like as it is written.
fn values(value: &RawValue) -> impl Iterator<Item = String> {
    let text = |value: &RawValue| {
        serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned())
    };
    match serde_json::from_str::<Vec<&RawValue>>(value.get()) {
        Ok(list) => list.into_iter().map(text).collect::<Vec<_>>(),
        Err(_) => vec![text(value)],
    }
    .into_iter()
}

fn milliseconds(value: &RawValue) -> Option<Timestamp> {
    let text = value.get().trim_matches('"');
    Timestamp::from_millisecond(text.parse().ok()?).ok()
}

/// A JSON object's members in their order, unparsed, repeats included.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(data: &str) -> Result<Envelope, &'static str> {
        Envelope::parse(data, "smee.io", Timestamp::UNIX_EPOCH)
    }

    fn message(data: &str) -> (Message, Fidelity) {
        match parse(data) {
            Ok(Envelope::Message(message, fidelity)) => (*message, fidelity),
            other => panic!("{data} is a message, not {other:?}"),
        }
    }

    #[test]
    fn what_smee_says_is_a_message_and_its_numbers_stay_as_written() {
        let data = r#"{"host":"smee.io","x-github-event":"push","x-n":7,
            "body":{"b":1.10,"a":12345678901234567890123},"query":{"q":"a b","r":["1","2"]},
            "timestamp":1769862600007}"#;
        let (message, fidelity) = message(data);
        assert_eq!(fidelity, Fidelity::Rewritten);
        assert_eq!(message.payload, r#"{"b":1.10,"a":12345678901234567890123}"#);
        let Message { event, .. } = message;
        assert_eq!((&*event.method, &*event.query), ("POST", "q=a+b&r=1&r=2"));
        assert_eq!(event.time, "2026-01-31T12:30:00.007Z");
        let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().into());
        assert_eq!(
            event.headers,
            [
                header("host", "smee.io"),
                header("x-github-event", "push"),
                header("x-n", "7"),
            ]
        );
    }

    #[test]
    fn what_gosmee_says_is_every_byte() {
        let (message, fidelity) = message(
            r#"{"Content-Type":"application/json","bodyB":"/wB7fQ==","timestamp":"1769862600007"}"#,
        );
        assert_eq!(fidelity, Fidelity::Exact);
        assert_eq!(message.payload, &b"\xff\0{}"[..]);
        assert_eq!(message.event.time, "2026-01-31T12:30:00.007Z");
        assert_eq!(message.event.headers[0].0, "content-type");
    }

    #[test]
    fn no_header_takes_the_place_of_the_body() {
        // gosmee passes on a header that is called body, in any order.
        for data in [
            r#"{"body":"forged","bodyB":"b3du"}"#,
            r#"{"bodyB":"b3du","body":{"forged":1}}"#,
        ] {
            let (message, fidelity) = message(data);
            assert_eq!(message.payload, "own");
            assert_eq!(fidelity, Fidelity::Exact);
            assert!(message.event.headers.is_empty());
        }
        assert!(parse(r#"{"bodyB":"b3du","bodyB":"Zm9yZ2Vk"}"#).is_err());
        assert!(parse(r#"{"body":1,"body":2}"#).is_err());
        // In lower case it is a header.
        let (message, _) = message(r#"{"bodyb":"Zm9yZ2Vk","bodyB":"b3du"}"#);
        assert_eq!(
            (&*message.payload, &*message.event.headers[0].0),
            (&b"own"[..], "bodyb")
        );
    }

    #[test]
    fn a_form_and_a_text_become_what_they_were() {
        for (kind, body, payload) in [
            (
                "application/x-www-form-urlencoded",
                r#"{"a":"1 2","b":["x","y"]}"#,
                "a=1+2&b=x&b=y",
            ),
            ("text/plain", r#""a\nb""#, "a\nb"),
            ("application/json", r#""a""#, r#""a""#),
            ("application/json", "[1, 2]", "[1, 2]"),
            ("application/json", "null", "null"),
        ] {
            let data = format!(r#"{{"body":{body},"content-type":"{kind}"}}"#);
            assert_eq!(message(&data).0.payload, payload, "{kind} {body}");
        }
    }

    #[test]
    fn greetings_are_no_messages_and_what_is_broken_is_refused() {
        for data in [
            "{}",
            r#"{"message":"connected"}"#,
            r#"{"message":"ready"}"#,
            "ready",
        ] {
            assert_eq!(parse(data), Ok(Envelope::Greeting), "{data}");
        }
        let encrypted = r#"{"encrypted":true,"version":1,"epk":"a","nonce":"b","ciphertext":"c"}"#;
        assert_eq!(parse(encrypted), Ok(Envelope::Encrypted));
        for data in [
            "",
            "[]",
            "1",
            "{",
            r#"{"bodyB":1}"#,
            r#"{"bodyB":"?"}"#,
            "null",
        ] {
            assert!(parse(data).is_err(), "{data}");
        }
    }
}

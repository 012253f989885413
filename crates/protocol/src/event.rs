//! A message with everything that is known of it: event frames and server-sent events.
//!
//! An event frame is JSON, NUL, and the body as it was sent, so that a provider's signature still
//! verifies at the far end. A server-sent event has the body inside the JSON, because a stream of
//! text has no room for bytes. Readers ignore keys they don't know.

use std::collections::BTreeMap;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cursor::{Cursor, Epoch};
use crate::message::Message;

/// The subprotocol that a subscriber asks for to get event frames.
pub const EVENTS_V1: &str = "hookbot.events.v1";

/// What is known of a message besides its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the log.
    pub cursor: String,
    /// Where it was published.
    pub topic: String,
    /// When the log took it: RFC 3339, UTC, with milliseconds.
    pub time: String,
    /// The HTTP method it came by; empty where a router published it.
    pub method: String,
    /// The query as it was sent.
    pub query: String,
    /// The sender's address.
    pub address: String,
    /// The sender's headers, in order, with repeats; names in lower case.
    pub headers: Vec<(String, HeaderText)>,
    /// What the server has found out about the message, by names that are none of the above, such
    /// as `source` and `verified_by`. Nothing that a sender sends gets here.
    #[serde(flatten)]
    pub attributes: BTreeMap<String, Value>,
}

impl Event {
    /// What is known of a message in a log of this epoch.
    #[must_use]
    pub fn new(message: &Message, epoch: Epoch) -> Self {
        let publication = &message.publication;
        let cursor = Cursor {
            epoch,
            offset: message.offset,
        };
        let headers = publication.headers.iter();
        Self {
            cursor: cursor.to_string(),
            topic: publication.topic.to_string(),
            time: rfc3339(message.time),
            method: publication.method.to_string(),
            query: publication.query.to_string(),
            address: publication.address.to_string(),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect(),
            attributes: publication
                .attributes
                .iter()
                .filter(|(name, _)| !OWN_KEYS.contains(name))
                .map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into()))
                .collect(),
        }
    }

    /// One line of JSON with the body in it: `body` where it is UTF-8, else `body_base64`.
    #[must_use]
    pub fn to_json(&self, body: &[u8]) -> String {
        #[derive(Serialize)]
        struct Whole<'a> {
            #[serde(flatten)]
            event: &'a Event,
            #[serde(skip_serializing_if = "Option::is_none")]
            body: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            body_base64: Option<String>,
        }
        let text = str::from_utf8(body).ok();
        json(&Whole {
            event: self,
            body: text,
            body_base64: text.is_none().then(|| STANDARD.encode(body)),
        })
    }
}

/// The keys that no attribute may take.
const OWN_KEYS: [&str; 11] = [
    "cursor",
    "topic",
    "time",
    "method",
    "query",
    "address",
    "headers",
    "body",
    "body_base64",
    "at",
    "gap",
];

/// A header's value, which need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HeaderText {
    /// As it is.
    Text(String),
    /// In base64, where it is not UTF-8.
    Bytes {
        /// The bytes.
        base64: String,
    },
}

impl HeaderText {
    /// The value as it was sent; `None` where its base64 is broken.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.clone().into_bytes()),
            Self::Bytes { base64 } => STANDARD.decode(base64).ok(),
        }
    }
}

impl From<&[u8]> for HeaderText {
    fn from(value: &[u8]) -> Self {
        str::from_utf8(value).map_or_else(
            |_| Self::Bytes {
                base64: STANDARD.encode(value),
            },
            |text| Self::Text(text.to_owned()),
        )
    }
}

/// Messages that a subscriber asked for and that it can't be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapNotice {
    /// Where the subscriber wanted to go on, as it said it.
    pub asked: String,
    /// The place where it goes on instead, right before the oldest message that is still kept.
    pub oldest: String,
    /// What became of the messages.
    pub reason: GapReason,
}

/// Why messages are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum GapReason {
    /// Retention has dropped them.
    Trimmed,
    /// The cursor is another log's.
    Epoch,
    /// The cursor is beyond this log's end.
    Ahead,
    /// Something that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What an event frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventFrame {
    /// A message.
    Message(Box<Event>, Bytes),
    /// Messages are missing here.
    Gap(GapNotice),
    /// Nothing happened; this is the place to resume from.
    At(String),
}

impl EventFrame {
    /// Takes a frame apart.
    ///
    /// # Errors
    ///
    /// When it is not JSON, NUL and a payload, or says nothing that is known.
    pub fn parse(frame: &Bytes) -> Result<Self, EventError> {
        let end = frame
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(EventError::NoNul)?;
        match serde_json::from_slice(&frame[..end])? {
            Said::Event(event) => Ok(Self::Message(event, frame.slice(end + 1..))),
            Said::Gap { gap } => Ok(Self::Gap(gap)),
            Said::At { at } => Ok(Self::At(at)),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Gap { gap: GapNotice },
    At { at: String },
    Event(Box<Event>),
}

/// Why a frame is not an event frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// There is no NUL in it.
    #[error("an event frame without a NUL")]
    NoNul,
    /// What is before the NUL is not what it should be.
    #[error("an event frame that does not say what it is")]
    Json(#[from] serde_json::Error),
}

/// The frame payload, up to and with the NUL, that goes before a message's own payload.
pub(crate) fn frame_start(message: &Message, epoch: Epoch) -> Vec<u8> {
    with_nul(&Event::new(message, epoch))
}

/// The payload of a frame that tells of a gap.
#[must_use]
pub fn gap_frame(gap: &GapNotice) -> Vec<u8> {
    #[derive(Serialize)]
    struct Frame<'a> {
        gap: &'a GapNotice,
    }
    with_nul(&Frame { gap })
}

/// The payload of a frame that tells an idle reader its place.
#[must_use]
pub fn at_frame(at: Cursor) -> Vec<u8> {
    #[derive(Serialize)]
    struct Frame {
        at: String,
    }
    with_nul(&Frame { at: at.to_string() })
}

/// A message as a server-sent event (WHATWG HTML, section 9.2).
///
/// JSON has no line breaks of its own, so nothing in a message can end a line of the stream.
pub(crate) fn server_sent(message: &Message, epoch: Epoch) -> Bytes {
    let event = Event::new(message, epoch);
    let data = event.to_json(&message.publication.body);
    format!("id: {}\ndata: {data}\n\n", event.cursor).into()
}

/// A server-sent event that tells of a gap. It has no id: resuming is from the last message.
#[must_use]
pub fn server_sent_gap(gap: &GapNotice) -> Bytes {
    format!("event: gap\ndata: {}\n\n", json(gap)).into()
}

/// What keeps an idle stream open: a comment for proxies, and an event that scripts see, with the
/// place to resume from.
#[must_use]
pub fn server_sent_ping(at: Cursor) -> Bytes {
    format!(": ping\n\nevent: ping\nid: {at}\ndata: {{}}\n\n").into()
}

/// RFC 3339, UTC, with milliseconds.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or_default();
    format!("{time:.3}")
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings always serialise")
}

fn with_nul(value: &impl Serialize) -> Vec<u8> {
    let mut frame = json(value).into_bytes();
    frame.push(0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Form, Offset, Publication, Topic};
    use std::time::Duration;

    const EPOCH: Epoch = Epoch(0xe);

    fn message(body: &[u8]) -> Message {
        let mut publication = Publication::new(Topic::parse("a/b").unwrap(), body.to_vec());
        publication.method = "POST".into();
        publication.query = "x=1".into();
        publication.address = "10.0.0.1:5".into();
        publication.headers.push("x-a", b"1");
        publication.headers.push("x-b", b"\xff");
        publication.headers.push("x-a", "ü".as_bytes());
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_007);
        Message::new(publication, Offset(7), time)
    }

    fn payload(frame: [&[u8]; 2]) -> Bytes {
        let frame = frame.concat();
        let header = match frame[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        Bytes::from(frame).slice(header..)
    }

    #[test]
    fn an_event_frame_is_json_and_the_payload_as_it_is() {
        let message = message(b"x\0\xff");
        let frame = payload(message.frame(Form::Event(EPOCH)));
        let json = r#"{"cursor":"000000000000000e.7","topic":"a/b","time":"2023-11-14T22:13:20.007Z","method":"POST","query":"x=1","address":"10.0.0.1:5","headers":[["x-a","1"],["x-b",{"base64":"/w=="}],["x-a","ü"]]}"#;
        assert_eq!(frame, [json.as_bytes(), b"\0x\0\xff"].concat());
        let Ok(EventFrame::Message(event, body)) = EventFrame::parse(&frame) else {
            panic!("it reads back");
        };
        assert_eq!((event.topic.as_str(), &*body), ("a/b", &b"x\0\xff"[..]));
        assert_eq!(event.headers[1].1.bytes().unwrap(), b"\xff");
    }

    #[test]
    fn what_the_server_found_out_is_shown_and_takes_no_key_of_the_message() {
        let mut publication = Publication::new(Topic::parse("a").unwrap(), "x");
        publication.attributes.push("verified_by", b"github");
        publication.attributes.push("topic", b"b");
        publication.attributes.push("body", b"y");
        let message = Message::new(publication, Offset(7), SystemTime::UNIX_EPOCH);
        let frame = payload(message.frame(Form::Event(EPOCH)));
        let Ok(EventFrame::Message(event, _)) = EventFrame::parse(&frame) else {
            panic!("it reads back");
        };
        assert_eq!(event.topic, "a");
        let shown: Vec<_> = event.attributes.iter().collect();
        assert_eq!(shown, [(&"verified_by".to_owned(), &"github".into())]);
        let json = event.to_json(b"x");
        assert!(
            json.ends_with(r#","headers":[],"verified_by":"github","body":"x"}"#),
            "{json}"
        );
    }

    #[test]
    fn notices_read_back_and_unknown_keys_are_ignored() {
        let gap = GapNotice {
            asked: "start".into(),
            oldest: "e.1".into(),
            reason: GapReason::Trimmed,
        };
        let parse = |frame: Vec<u8>| EventFrame::parse(&frame.into()).unwrap();
        assert_eq!(parse(gap_frame(&gap)), EventFrame::Gap(gap.clone()));
        let at = Cursor {
            epoch: EPOCH,
            offset: Offset(3),
        };
        assert_eq!(parse(at_frame(at)), EventFrame::At(at.to_string()));
        let newer = br#"{"at":"e.1","more":true}"#.iter().chain(b"\0").copied().collect();
        assert_eq!(parse(newer), EventFrame::At("e.1".into()));
        let newer = r#"{"gap":{"asked":"a","oldest":"b","reason":"eaten","more":1}}"#;
        let EventFrame::Gap(gap) = parse([newer.as_bytes(), b"\0"].concat()) else {
            panic!("it is a gap");
        };
        assert_eq!(gap.reason, GapReason::Unknown);
        for bad in [
            &b""[..],
            b"{}",
            b"{}\0",
            b"\0",
            b"[]\0x",
            b"{\"cursor\":1}\0",
        ] {
            assert!(
                EventFrame::parse(&Bytes::from_static(bad)).is_err(),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn nothing_in_a_message_breaks_a_line_of_the_stream() {
        let text = "a\r\nid: 9\n\rdata: {}\u{2028}\0\n\n";
        let event = server_sent(&message(text.as_bytes()), EPOCH);
        let event = str::from_utf8(&event).unwrap();
        let [id, data] = event.trim_end_matches('\n').split('\n').collect::<Vec<_>>()[..] else {
            panic!("two lines: {event:?}");
        };
        assert!(event.ends_with("\n\n") && !event.contains(['\r', '\0']));
        assert_eq!(id, "id: 000000000000000e.7");
        let data: Value = serde_json::from_str(&data["data: ".len()..]).unwrap();
        assert_eq!(
            (&data["body"], &data["topic"]),
            (&text.into(), &"a/b".into())
        );

        let event = server_sent(&message(b"\xff"), EPOCH);
        let data = str::from_utf8(&event).unwrap().lines().nth(1).unwrap();
        let data: Value = serde_json::from_str(&data["data: ".len()..]).unwrap();
        assert_eq!(
            (&data["body_base64"], data.get("body")),
            (&"/w==".into(), None)
        );
    }
}

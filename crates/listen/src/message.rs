//! A message, and how it is read from a frame.

use bytes::Bytes;
use hookbot_protocol::event::{Event, EventFrame, GapNotice};
use hookbot_protocol::{Endpoint, Filter, Path, split_prefixed};
use percent_encoding::percent_decode_str;

use crate::error::Error;

/// A message that somebody published to a topic this subscription matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it was published to.
    pub topic: String,
    /// Its bytes, as they were published.
    pub payload: Bytes,
    /// What else is known of it, where the server tells: its place in the log, its time, and how
    /// it was sent.
    pub event: Option<Box<Event>>,
}

impl Message {
    /// The place to go on behind, where the server tells.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        self.event.as_deref().map(|event| &*event.cursor)
    }
}

/// What a frame says.
#[derive(Debug)]
pub(crate) enum Said {
    Message(Message),
    /// Messages are missing here.
    Gap(GapNotice),
    /// Nothing but the place to resume from.
    Place(String),
}

/// Where a frame's topic is found, which depends on the subscription alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Naming {
    /// Every message is on this topic, and a frame is its payload.
    Topic(String),
    /// The frame begins with the topic.
    InFrame,
    /// The frame says everything there is to know.
    Event,
}

impl Naming {
    /// Finds out from the path of the URL, as typed.
    pub(crate) fn of(path: &str) -> Self {
        let parsed = Path::parse(path);
        if let Ok(Endpoint::Subscribe(filter) | Endpoint::Combined(filter)) =
            parsed.as_ref().map(Path::endpoint)
        {
            return match filter {
                Filter::Topic(topic) => Self::Topic(topic.to_string()),
                Filter::Prefix(_) => Self::InFrame,
            };
        }
        // The server may be mounted below a path of its own, which only it can make sense of.
        let path = percent_decode_str(path).decode_utf8_lossy();
        if path.ends_with('/') || path.ends_with("?recursive") {
            return Self::InFrame;
        }
        let topic = path.split_once("/sub/").map_or(&*path, |(_, topic)| topic);
        Self::Topic(topic.to_owned())
    }

    /// Reads one frame.
    pub(crate) fn read(&self, frame: Bytes) -> Result<Said, Error> {
        let (topic, payload, event) = match self {
            Self::Topic(topic) => (topic.clone(), frame, None),
            Self::InFrame => {
                let (topic, payload) = split_prefixed(&frame).ok_or(Error::Frame)?;
                (topic.to_owned(), frame.slice_ref(payload), None)
            }
            Self::Event => match EventFrame::parse(&frame).map_err(|_| Error::Frame)? {
                EventFrame::Message(event, payload) => (event.topic.clone(), payload, Some(event)),
                EventFrame::Gap(gap) => return Ok(Said::Gap(gap)),
                EventFrame::At(at) => return Ok(Said::Place(at)),
            },
        };
        Ok(Said::Message(Message {
            topic,
            payload,
            event,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_says_where_the_topic_is() {
        let topic = |text: &str| Naming::Topic(text.to_owned());
        for (path, naming) in [
            ("/sub/a/b", topic("a/b")),
            ("/sub/a%20b", topic("a b")),
            ("/unsafe/sub/a", topic("/unsafe/a")),
            ("/a/b", topic("a/b")),
            ("/sub/a/", Naming::InFrame),
            ("/sub/", Naming::InFrame),
            ("/", Naming::InFrame),
            ("/sub/a%3Frecursive", Naming::InFrame),
            ("/sub/a/%3frecursive", Naming::InFrame),
            ("/webhook/sub/a", topic("a")),
            ("/webhook/sub/a/", Naming::InFrame),
            ("/webhook/sub/a%3Frecursive", Naming::InFrame),
            ("/webhook//a", topic("/webhook//a")),
        ] {
            assert_eq!(Naming::of(path), naming, "{path}");
        }
    }

    #[test]
    fn a_frame_is_split_at_its_first_nul_only() {
        let read = |frame: &'static [u8]| Naming::InFrame.read(Bytes::from_static(frame));
        let Ok(Said::Message(message)) = read(b"a/b\0x\0y") else {
            panic!("it is a message");
        };
        assert_eq!((&*message.topic, &*message.payload), ("a/b", &b"x\0y"[..]));
        assert!(matches!(read(b"no nul"), Err(Error::Frame)));
        assert!(matches!(read(b"\xff\0x"), Err(Error::Frame)));
    }
}

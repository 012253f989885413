//! What is published, and what it becomes once the log has given it a place.

use std::sync::OnceLock;
use std::time::SystemTime;

use bytes::Bytes;

use crate::cursor::{Epoch, Offset};
use crate::envelope::Envelope;
use crate::event::server_sent;
use crate::frame::{Form, head};
use crate::headers::Headers;
use crate::topic::Topic;

/// What a publisher hands over. Bytes in are bytes out: nothing of it is ever rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Where it goes.
    pub topic: Topic,
    /// The HTTP method it came by, or empty for what the broker itself publishes.
    pub method: Box<str>,
    /// The query as it was sent, without the question mark and without our own token.
    pub query: Box<str>,
    /// The sender's address.
    pub address: Box<str>,
    /// The sender's headers, without hop-by-hop ones and credentials of ours.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
    /// How subscribers get to see the body.
    pub format: Format,
    /// What the sender calls this delivery, by which a second one is known.
    pub delivery_id: Option<Box<str>>,
    /// What the broker has found out about the message, by name.
    pub attributes: Headers,
}

impl Publication {
    /// What the broker itself publishes: a topic and a body.
    #[must_use]
    pub fn new(topic: Topic, body: impl Into<Bytes>) -> Self {
        Self {
            topic,
            method: Box::default(),
            query: Box::default(),
            address: Box::default(),
            headers: Headers::default(),
            body: body.into(),
            format: Format::Raw,
            delivery_id: None,
            attributes: Headers::default(),
        }
    }

    /// How much memory it takes, in bytes, near enough to bound a log by.
    #[must_use]
    pub fn size(&self) -> usize {
        let texts = self.topic.as_str().len() + self.query.len() + self.address.len();
        let bodies = match self.format {
            Format::Raw => self.body.len(),
            // The envelope holds it once more, in base64.
            Format::Github => self.body.len() + self.body.len() / 3 * 4,
        };
        let tables = self.headers.size() + self.attributes.size();
        let delivery_id = self.delivery_id.as_deref().map_or(0, str::len);
        size_of::<Message>() + texts + tables + delivery_id + bodies
    }
}

/// How subscribers see a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As it was sent.
    Raw,
    /// In an [`Envelope`], with GitHub's headers.
    Github,
}

/// A publication with its place in the log: immutable, shared by everybody it is delivered to.
#[derive(Debug)]
pub struct Message {
    /// Its place in the log.
    pub offset: Offset,
    /// When the log took it.
    pub time: SystemTime,
    /// What was published.
    pub publication: Publication,
    envelope: OnceLock<Bytes>,
    plain: OnceLock<Box<[u8]>>,
    prefixed: OnceLock<Box<[u8]>>,
    event: OnceLock<Box<[u8]>>,
    server_sent: OnceLock<Bytes>,
}

impl Message {
    /// Gives a publication its place.
    #[must_use]
    pub fn new(publication: Publication, offset: Offset, time: SystemTime) -> Self {
        Self {
            offset,
            time,
            publication,
            envelope: OnceLock::new(),
            plain: OnceLock::new(),
            prefixed: OnceLock::new(),
            event: OnceLock::new(),
            server_sent: OnceLock::new(),
        }
    }

    /// Where it was published.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.publication.topic
    }

    /// What subscribers to plain frames see of the body.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        let Publication { headers, body, .. } = &self.publication;
        match self.publication.format {
            Format::Raw => body,
            Format::Github => self
                .envelope
                .get_or_init(|| Envelope::new(headers, body.clone()).to_json()),
        }
    }

    /// The message as one WebSocket frame, in two parts to be written one behind the other.
    #[must_use]
    pub fn frame(&self, form: Form) -> [&[u8]; 2] {
        let part = match form {
            Form::Plain => &self.plain,
            Form::Prefixed => &self.prefixed,
            Form::Event(_) => &self.event,
        };
        [part.get_or_init(|| head(form, self)), self.body_in(form)]
    }

    /// What comes last in a frame of this form. An event has the headers, and so the body as it
    /// was sent, whatever the publisher wants others to see.
    pub(crate) fn body_in(&self, form: Form) -> &Bytes {
        match form {
            Form::Plain | Form::Prefixed => self.payload(),
            Form::Event(_) => &self.publication.body,
        }
    }

    /// The message as one server-sent event, for a log of this epoch. A large one is not kept:
    /// escaped, a body may be six times as long.
    #[must_use]
    pub fn server_sent(&self, epoch: Epoch) -> Bytes {
        if self.publication.body.len() > MAX_KEPT {
            return server_sent(self, epoch);
        }
        self.server_sent
            .get_or_init(|| server_sent(self, epoch))
            .clone()
    }
}

/// The largest body whose server-sent event is kept with the message, in bytes.
const MAX_KEPT: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(publication: Publication) -> Message {
        Message::new(publication, Offset(1), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_frame_is_encoded_once_and_shared() {
        let topic = Topic::parse("a/b").unwrap();
        let message = message(Publication::new(topic, "hello"));
        assert_eq!(message.frame(Form::Plain).concat(), b"\x82\x05hello");
        assert_eq!(
            message.frame(Form::Prefixed).concat(),
            b"\x82\x09a/b\0hello"
        );
        let [first, again] = [message.frame(Form::Plain), message.frame(Form::Plain)];
        assert_eq!(first[0].as_ptr(), again[0].as_ptr());
        assert_eq!(first[1].as_ptr(), message.publication.body.as_ptr());
    }

    #[test]
    fn subscribers_see_the_envelope_and_the_body_stays_as_it_was() {
        let topic = Topic::parse("/unsafe/github.com/org/acme").unwrap();
        let publication = Publication {
            format: Format::Github,
            ..Publication::new(topic, "{}")
        };
        let message = message(publication);
        let envelope = Envelope::from_json(message.payload()).unwrap();
        assert_eq!(envelope.payload, "{}");
        assert_eq!(message.publication.body, "{}");
        let event = message.frame(Form::Event(Epoch(1))).concat();
        assert!(event.ends_with(b"\0{}"));
    }
}

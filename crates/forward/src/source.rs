//! Where messages come from.
//!
//! A source reconnects by itself, for ever, and says what goes wrong between the messages. Whoever
//! reads it keeps the place behind the last message it has dealt with, and opens it there another
//! time.

use futures_util::stream::BoxStream;

use crate::message::Message;

pub mod channel;
pub mod files;
pub mod hookbot;
pub mod past;

mod envelope;
mod event_stream;
pub mod sealed;

/// Something that gives messages.
pub trait Source: Send + Sync {
    /// What it is called where a place in it is remembered. No token is in it.
    fn name(&self) -> &str;

    /// Begins behind a place that it gave, or without one with what comes next.
    ///
    /// It is read only as fast as messages are dealt with, and ends only if nothing can come any
    /// more.
    fn open(&self, after: Option<&str>) -> BoxStream<'static, Given>;
}

/// What a source gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// A message, and the place behind it where the source has places.
    Message(Box<Message>, Option<String>),
    /// A place behind which the next message will come, without a message: so that one who has
    /// never had any can begin there another time.
    Place(String),
    /// Nothing, but the source is alive.
    Heard,
    /// Something went wrong.
    Trouble(Trouble),
}

/// What may go wrong with a source. None of it ends it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// There is no connection; another one is tried.
    #[error("{0}")]
    Lost(String),
    /// The source says no, as to a wrong token. It is asked again: it may be put right there.
    #[error("{0}")]
    Refused(String),
    /// Messages are missing here that the source does not have any more.
    #[error("{0}")]
    Missing(String),
}

//! What a forwarder tells whoever runs it.

use std::sync::Arc;
use std::time::Duration;

use crate::letters::LetterError;
use crate::message::Message;
use crate::source::Trouble;
use crate::taker::Answer;

/// What has just happened to one target.
#[derive(Debug)]
#[non_exhaustive]
pub enum Told<'a> {
    /// A message was taken.
    Delivered {
        /// Which one, as it was offered.
        message: &'a Message,
        /// At which attempt, counted from 1.
        attempt: u32,
        /// What the target said.
        answer: &'a Answer,
    },
    /// A message was not taken, and is offered again.
    Failed {
        /// Which one.
        message: &'a Message,
        /// At which attempt.
        attempt: u32,
        /// What the target said.
        answer: &'a Answer,
        /// In how long it is offered again.
        again: Duration,
    },
    /// A message will not be taken, and has been put aside.
    Parked {
        /// Which one.
        message: &'a Message,
        /// After how many attempts.
        attempts: u32,
        /// What the target said last, or what else is wrong with it.
        reason: &'a str,
        /// As which dead letter; `None` where nothing is kept, so that it is lost.
        letter: Option<u64>,
    },
    /// A message should be put aside and can't be. It is offered again.
    NotParked(&'a LetterError),
    /// A message is none of those that the target wants.
    Skipped,
    /// The target has failed so often that it is only asked now and then.
    Opened,
    /// The target works again.
    Closed,
    /// The target wants no more messages, ever.
    Gone(&'a Answer),
    /// Something is wrong with the source.
    Trouble(&'a Trouble),
    /// Everything up to this place is dealt with.
    Place(&'a str),
    /// The source has said something, if only that it is there.
    Heard,
    /// The place can't be kept: after a crash, messages will be offered again.
    NotKept(&'a std::io::Error),
}

/// Whom to tell. It is called from the forwarder's task, and must not block.
pub type Tell = Arc<dyn Fn(&Told<'_>) + Send + Sync>;

//! The message log: append, read from an offset, trim.
//!
//! One log holds the messages of all topics and counts them with one [`Offset`], so one number
//! resumes any subscription. [`Log`] is what the broker knows of it; [`DiskLog`] keeps what it
//! has acknowledged whatever happens, [`MemoryLog`] the newest messages in a bounded ring.
//!
//! A log knows nothing of subscribers. The rule a reader would get wrong: whoever fans messages
//! out takes them from [`Log::tail`], never from the hand of the publisher, because only the
//! tail's order is the order of the offsets.

mod batch;
mod blocks;
mod bloom;
mod commit;
mod disk;
mod disk_log;
mod error;
mod index;
mod lane;
mod memory;
mod meta;
mod newest;
mod options;
mod queue;
mod read;
mod record;
mod recover;
mod repair;
mod retention;
mod scan;
mod segment;
mod sidecar;
mod stats;
mod store;
mod survey;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_core::future::BoxFuture;
use hookbot_protocol::{Cursor, Epoch, Filter, Message, Offset, Publication};

pub use disk_log::DiskLog;
pub use error::{Located, OpenError};
pub use memory::MemoryLog;
pub use options::{Options, Retention};
pub use stats::{Commits, LaneStats, Stats};
pub use survey::verify;

/// An ordered, bounded store of messages. There is one for the whole broker.
pub trait Log: Send + Sync + 'static {
    /// Which log this is; offsets of another epoch mean nothing here.
    fn epoch(&self) -> Epoch;

    /// Gives a publication the next offset and keeps it. Once this returns, the message is as
    /// safe as this log can make it.
    ///
    /// With a window, a publication whose topic, delivery id and body were all appended within
    /// it is not appended again.
    ///
    /// # Errors
    ///
    /// When it can't be kept. It is then not in the log, and the publisher may try again.
    fn append(
        &self,
        publication: Publication,
        deduplicate: Option<Duration>,
    ) -> BoxFuture<'_, Result<Appended, AppendError>>;

    /// Appends these in order, each as [`Self::append`] does, and without waiting for one before
    /// the next. Ends at the first that the log does not take on, so there are as many answers as
    /// have been tried.
    fn append_all(
        &self,
        publications: Vec<Publication>,
        deduplicate: Option<Duration>,
    ) -> BoxFuture<'_, Vec<Result<Appended, AppendError>>>;

    /// What can be read now.
    fn bounds(&self) -> Bounds;

    /// Reads what `filter` matches, in order, from `from` on. Returns early at `limit`, at the
    /// end, or when it has looked at enough for one go; [`Page::next`] says where to go on.
    ///
    /// The read borrows nothing, so that a slow reader can hold on to one half done.
    ///
    /// # Errors
    ///
    /// When `from` has been trimmed away.
    fn read(
        &self,
        filter: Filter,
        from: Offset,
        limit: Limit,
    ) -> BoxFuture<'static, Result<Page, ReadError>>;

    /// The first offset whose message is not older than `time`, or the end.
    fn seek(&self, time: SystemTime) -> BoxFuture<'static, Result<Offset, ReadError>>;

    /// Whether the next append can be expected to work.
    fn is_writable(&self) -> bool;

    /// Figures about the log, where it keeps any.
    fn stats(&self) -> Option<Stats> {
        None
    }

    /// Drops the messages before `upto`. A log may keep some of them for a while.
    fn trim(&self, upto: Offset);

    /// Every message appended from now on, in order. A log has one tail: the one taken last.
    ///
    /// A message is not trimmed before the tail has handed it out.
    fn tail(&self) -> Box<dyn Tail>;
}

/// The log's newest end, as it grows.
pub trait Tail: Send {
    /// Waits for messages and returns at least one. Cancel safe.
    fn next(&mut self) -> BoxFuture<'_, Vec<Arc<Message>>>;
}

/// Where a publication is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its place, or that of the one it repeats.
    pub cursor: Cursor,
    /// It was there before.
    pub is_duplicate: bool,
}

/// Which offsets a log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest message's, or `next` where there is none.
    pub first: Offset,
    /// What the next message will get.
    pub next: Offset,
}

/// How much one read may return. At least one message is returned, whatever its size.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Messages.
    pub messages: usize,
    /// Bytes, by [`Publication::size`].
    pub bytes: usize,
}

/// What one read found.
#[derive(Debug)]
pub struct Page {
    /// The messages that match, in order.
    pub messages: Vec<Arc<Message>>,
    /// Everything before this has been looked at. Moves on even where nothing matched.
    pub next: Offset,
}

/// Why a publication was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// One message larger than the whole log may be.
    #[error("the message is larger than the log, which holds {capacity} bytes")]
    TooLarge {
        /// What the log may hold, in bytes.
        capacity: usize,
    },
    /// There is no room now; there may be later.
    #[error("there is no room to keep the message")]
    Full,
    /// The log has failed and takes nothing any more.
    #[error("the log has failed and takes no more messages")]
    Failed,
}

/// Why nothing was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The place has been trimmed away.
    #[error("messages before offset {first} are no longer kept")]
    Trimmed {
        /// The oldest that can be read.
        first: Offset,
    },
    /// What is there can't be read, or is damaged.
    #[error("cannot read the log at offset {at}: {reason}")]
    Broken {
        /// Where.
        at: Offset,
        /// Why not.
        reason: Arc<str>,
    },
}

#[cfg(test)]
mod fault;
#[cfg(test)]
mod tests;

//! How a log on disk is to be kept.

use std::time::Duration;

use crate::segment::Space;

/// What is kept, whichever limit is reached first. Messages go by whole segments, so for a
/// while there may be one segment more than this in each lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long.
    pub age: Duration,
    /// How many bytes on disk.
    pub bytes: u64,
    /// How many messages.
    pub messages: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            age: Duration::from_secs(7 * 24 * 3_600),
            bytes: 10 << 30,
            messages: u64::MAX,
        }
    }
}

/// Options of a [`crate::DiskLog`].
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// What is kept.
    pub retain: Retention,
    /// The part of the bytes and of the messages that unsafe topics have for themselves, from
    /// 0 to 1. The safe ones have the rest.
    pub unsafe_share: f64,
    /// When a segment is closed. By default a sixteenth of the bytes kept, within reason.
    pub segment_bytes: Option<u64>,
    /// How much of the newest messages stays in memory.
    pub tail_bytes: usize,
    /// How much may wait to be written. Appends beyond are refused.
    pub queue_bytes: usize,
    /// Give damaged messages up instead of refusing to open. Reads all of the log.
    pub repair: bool,
    /// Whether a message is acknowledged only once it is on disk. Without, a crash of the
    /// machine loses acknowledged messages: this is for measuring what syncing costs, and for
    /// showing that the tests notice.
    pub sync: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            retain: Retention::default(),
            unsafe_share: 0.25,
            segment_bytes: None,
            tail_bytes: 16 << 20,
            queue_bytes: 64 << 20,
            repair: false,
            sync: true,
        }
    }
}

impl Options {
    /// What one lane may keep.
    pub(crate) fn budget(&self, space: Space) -> Retention {
        let unsafe_share = self.unsafe_share.clamp(0.0, 1.0);
        let share = match space {
            Space::Safe => 1.0 - unsafe_share,
            Space::Unsafe => unsafe_share,
        };
        let part = |whole: u64| match whole {
            u64::MAX => u64::MAX,
            _ => (whole as f64 * share) as u64,
        };
        Retention {
            age: self.retain.age,
            bytes: part(self.retain.bytes),
            messages: part(self.retain.messages),
        }
    }

    /// When a segment is closed.
    pub(crate) fn segment_bytes(&self) -> u64 {
        let sixteenth = (self.retain.bytes / 16).clamp(8 << 20, 64 << 20);
        // Positions in a segment are 32 bits.
        self.segment_bytes.unwrap_or(sixteenth).min(1 << 30)
    }

    /// How old the first message of a segment gets before it is closed, so that a quiet log
    /// forgets, too.
    pub(crate) fn segment_age(&self) -> Duration {
        self.retain.age / 8
    }
}

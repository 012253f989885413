//! What a log on disk can tell of itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hookbot_protocol::Offset;

/// Figures of a [`crate::DiskLog`], as they are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Of the safe topics.
    pub safe: LaneStats,
    /// Of the unsafe ones.
    pub r#unsafe: LaneStats,
    /// Since the log was opened.
    pub commits: Commits,
    /// What waits to be written, in bytes.
    pub queued_bytes: usize,
    /// How often somebody was not served because a record is damaged or can't be read.
    pub failed_reads: u64,
}

/// Figures of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneStats {
    /// Files.
    pub segments: usize,
    /// Bytes on disk, sidecars included.
    pub bytes: u64,
    /// Messages.
    pub messages: u64,
    /// The oldest message's offset, or `next`.
    pub first: Offset,
    /// What the next message on any topic will get.
    pub next: Offset,
}

/// What committing has cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commits {
    /// Batches written.
    pub batches: u64,
    /// Messages in them.
    pub messages: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Batches that could not be written.
    pub failed: u64,
    /// Time spent on writing and syncing.
    pub time: Duration,
    /// How many batches took less than 2^n microseconds, and not less than half of that.
    pub by_time: [u64; BUCKETS],
    /// How many batches had less than 2^n messages, and not less than half of that.
    pub by_size: [u64; BUCKETS],
}

/// What is counted while the log is open.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    batches: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    failed_reads: AtomicU64,
    micros: AtomicU64,
    by_time: [AtomicU64; BUCKETS],
    by_size: [AtomicU64; BUCKETS],
}

impl Counters {
    pub(crate) fn committed(&self, messages: usize, bytes: usize, time: Duration) {
        if messages == 0 {
            return;
        }
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.batches.fetch_add(1, Relaxed);
        self.messages.fetch_add(messages as u64, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
        self.by_time[bucket(micros)].fetch_add(1, Relaxed);
        self.by_size[bucket(messages as u64)].fetch_add(1, Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    pub(crate) fn could_not_read(&self) {
        self.failed_reads.fetch_add(1, Relaxed);
    }

    pub(crate) fn failed_reads(&self) -> u64 {
        self.failed_reads.load(Relaxed)
    }

    pub(crate) fn now(&self) -> Commits {
        let all = |buckets: &[AtomicU64; BUCKETS]| buckets.each_ref().map(|n| n.load(Relaxed));
        Commits {
            batches: self.batches.load(Relaxed),
            messages: self.messages.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            failed: self.failed.load(Relaxed),
            time: Duration::from_micros(self.micros.load(Relaxed)),
            by_time: all(&self.by_time),
            by_size: all(&self.by_size),
        }
    }
}

fn bucket(number: u64) -> usize {
    let bits = (u64::BITS - number.leading_zeros()) as usize;
    bits.min(BUCKETS - 1)
}

/// How many powers of two are told apart.
const BUCKETS: usize = 24;

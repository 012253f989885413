//! What all subscribers received together, as it comes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock;
use crate::latency::Latencies;

/// Counts that every subscriber adds to, once a read and not once a message.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// From when a message was sent, or due, until its subscriber had read it.
    pub(crate) waits: Latencies,
    received: AtomicU64,
    last: AtomicU64,
    watched: AtomicBool,
    progress: Notify,
}

/// For how long nothing may come before all that was to come is believed to have come.
const QUIET: Duration = Duration::from_millis(100);
const STEP: Duration = Duration::from_millis(2);

impl Arrivals {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            waits: Latencies::new(),
            received: AtomicU64::new(0),
            last: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            progress: Notify::new(),
        }
    }

    /// Enters messages that one read brought.
    pub(crate) fn add(&self, waits: &[u64], now: u64) {
        self.last.fetch_max(now, Ordering::Relaxed);
        if waits.is_empty() {
            return;
        }
        self.waits.record(waits.iter().copied());
        self.received
            .fetch_add(waits.len() as u64, Ordering::Release);
        if self.watched.load(Ordering::Relaxed) {
            self.progress.notify_one();
        }
    }

    /// How many messages came, each counted once a subscriber.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }

    /// When the last bytes came.
    pub(crate) fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Lets one task wait for progress.
    pub(crate) fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// Waits until something may have come since the last time.
    pub(crate) async fn progress(&self) {
        self.progress.notified().await;
    }

    /// Waits until so many have come, or nothing has for as long as `patience`.
    pub(crate) async fn reach(&self, expected: u64, patience: Duration) {
        let mut seen = (self.received(), clock::now());
        while self.received() < expected {
            if self.received() > seen.0 {
                seen = (self.received(), clock::now());
            }
            if clock::now() - seen.1 > patience.as_nanos() as u64 {
                return;
            }
            tokio::time::sleep(STEP).await;
        }
    }

    /// Waits until nothing comes any more: what comes twice comes late.
    pub(crate) async fn quiet(&self) {
        let mut since = clock::now();
        let mut last = self.last();
        while clock::now() - since < QUIET.as_nanos() as u64 {
            tokio::time::sleep(STEP).await;
            if self.last() != last {
                (last, since) = (self.last(), clock::now());
            }
        }
    }
}

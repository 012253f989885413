//! Histograms of waits, in nanoseconds.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;

/// A histogram that many tasks write to: one part a thread, so that nobody waits.
#[derive(Debug)]
pub(crate) struct Latencies(Vec<Mutex<Histogram<u64>>>);

/// The longest wait that is told from a longer one: ten minutes.
const MAX: u64 = 600_000_000_000;
const PARTS: usize = 8;

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static PART: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed) % PARTS);
}

impl Latencies {
    /// Empty ones.
    pub(crate) fn new() -> Self {
        Self((0..PARTS).map(|_| Mutex::new(empty())).collect())
    }

    /// Enters waits that ended together.
    pub(crate) fn record(&self, waits: impl IntoIterator<Item = u64>) {
        let part = &self.0[PART.get()];
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        for wait in waits {
            part.saturating_record(wait);
        }
    }

    /// All of them, and begins anew.
    pub(crate) fn take(&self) -> Histogram<u64> {
        let mut all = empty();
        for part in &self.0 {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            all += &*part;
            part.reset();
        }
        all
    }
}

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, MAX, 3).expect("the bounds are in order")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_record_is_taken_together_and_once() {
        let latencies = Latencies::new();
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                let latencies = &latencies;
                scope.spawn(move || latencies.record([thread * 1_000_000, u64::MAX]));
            }
        });
        let all = latencies.take();
        assert_eq!(all.len(), 8);
        assert!(all.max() >= MAX);
        assert!(latencies.take().is_empty());
    }
}

//! The open loop: when each message is to be sent is fixed before the first one is.
//!
//! A wait is measured from the time a message was due, not from when it could be sent, so a server
//! that stalls is charged for every message it held up.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock;

/// When each of a number of messages is due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Schedule {
    start: u64,
    rate: f64,
    count: u64,
}

impl Schedule {
    /// So many messages a second for so long, the first at `start`.
    pub(crate) fn new(start: u64, rate: f64, time: Duration) -> Self {
        Self {
            start,
            rate,
            count: (rate * time.as_secs_f64()).round() as u64,
        }
    }

    /// When this one is due.
    pub(crate) fn due(&self, number: u64) -> u64 {
        self.start + (number as f64 * 1e9 / self.rate) as u64
    }

    /// Parts it among so many publishers, in turn, and starts the thread that tells them what is
    /// due.
    pub(crate) fn start(self, publishers: usize) -> Vec<Share> {
        let gates: Arc<[Gate]> = (0..publishers).map(|_| Gate::default()).collect();
        let shares = (0..publishers).map(|number| Share {
            schedule: self,
            gates: gates.clone(),
            number,
            taken: 0,
        });
        let shares = shares.collect();
        std::thread::spawn(move || {
            // The usual slack of 50 µs would be part of every latency. Without leave to change it,
            // it is.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
            for number in 0..self.count {
                // Tokio's timers are good to a millisecond, which is too coarse.
                let wait = self.due(number).saturating_sub(clock::now());
                if wait > 0 {
                    std::thread::sleep(Duration::from_nanos(wait));
                }
                gates[(number % publishers as u64) as usize].open();
                if Arc::strong_count(&gates) == 1 {
                    return;
                }
            }
        });
        shares
    }
}

/// How many of one publisher's messages are due.
#[derive(Debug, Default)]
struct Gate {
    due: AtomicU64,
    more: Notify,
}

impl Gate {
    fn open(&self) {
        self.due.fetch_add(1, Ordering::Release);
        self.more.notify_one();
    }
}

/// One publisher's part of a schedule.
#[derive(Debug)]
pub(crate) struct Share {
    schedule: Schedule,
    gates: Arc<[Gate]>,
    number: usize,
    taken: u64,
}

impl Share {
    /// The due time of the next message, if it is due.
    pub(crate) fn take(&mut self) -> Option<u64> {
        if self.taken == self.gates[self.number].due.load(Ordering::Acquire) {
            return None;
        }
        let number = self.taken * self.gates.len() as u64 + self.number as u64;
        self.taken += 1;
        Some(self.schedule.due(number))
    }

    /// How many are left, due or not.
    pub(crate) fn left(&self) -> u64 {
        let publishers = self.gates.len() as u64;
        let behind = self.schedule.count.saturating_sub(self.number as u64);
        behind.div_ceil(publishers) - self.taken
    }

    /// Waits until one may be due.
    pub(crate) async fn wait(&self) {
        self.gates[self.number].more.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_are_fixed_whatever_happens() {
        let schedule = Schedule::new(1_000, 200.0, Duration::from_millis(50));
        let due: Vec<_> = (0..schedule.count).map(|n| schedule.due(n)).collect();
        let step = 5_000_000;
        assert_eq!(due.len(), 10);
        assert!(due.iter().zip(0..).all(|(due, n)| *due == 1_000 + n * step));
    }

    #[tokio::test]
    async fn publishers_share_a_schedule_and_leave_nothing_out() {
        let schedule = Schedule::new(clock::now(), 1e6, Duration::from_micros(7));
        let mut due = Vec::new();
        for mut share in schedule.start(3) {
            while share.left() > 0 {
                match share.take() {
                    Some(time) => due.push(time),
                    None => share.wait().await,
                }
            }
            assert_eq!(share.take(), None);
        }
        due.sort_unstable();
        let all: Vec<_> = (0..7).map(|number| schedule.due(number)).collect();
        assert_eq!(due, all);
    }

    #[tokio::test]
    async fn nothing_is_due_before_its_time() {
        let schedule = Schedule::new(
            clock::now() + 3_600_000_000_000,
            1.0,
            Duration::from_secs(1),
        );
        let mut share = schedule.start(1).remove(0);
        assert_eq!((share.take(), share.left()), (None, 1));
    }
}

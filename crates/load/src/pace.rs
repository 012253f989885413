//! When a publisher sends its next message.

use std::sync::Arc;
use std::time::Duration;

use crate::arrivals::Arrivals;
use crate::clock;
use crate::schedule::Share;

/// What a publisher waits for before it sends.
#[derive(Debug)]
pub(crate) enum Pace {
    /// For the last answer alone, until a time.
    Closed {
        /// When no more is sent.
        until: u64,
    },
    /// For the last answer alone, so many times.
    Burst {
        /// How often.
        left: u64,
    },
    /// For the time that a schedule gives.
    Open {
        /// What is due when.
        share: Share,
        /// When what is left is given up.
        until: u64,
    },
    /// For messages to reach their subscribers, all but so many, until a time.
    Window {
        /// What the subscribers received.
        arrivals: Arc<Arrivals>,
        /// How many there are.
        subscribers: u64,
        /// How many messages may be under way.
        window: u64,
        /// How many deliveries there are to be of what was sent.
        expected: u64,
        /// When no more is sent.
        until: u64,
    },
}

/// How long a busy loop may take over its time to send what was due in it.
const OVERTIME: u32 = 2;

impl Pace {
    /// A closed loop for so long.
    pub(crate) fn closed(time: Duration) -> Self {
        Self::Closed {
            until: clock::now() + time.as_nanos() as u64,
        }
    }

    /// An open loop of this share of a schedule of such a length.
    pub(crate) fn open(share: Share, time: Duration) -> Self {
        let longest = time * OVERTIME + Duration::from_secs(5);
        Self::Open {
            share,
            until: clock::now() + longest.as_nanos() as u64,
        }
    }

    /// The time from which the next message's wait is counted, if it may be sent now.
    pub(crate) fn take(&mut self) -> Option<u64> {
        if self.is_over() {
            return None;
        }
        match self {
            Self::Closed { .. } => {}
            Self::Burst { left } => *left -= 1,
            Self::Open { share, .. } => return share.take(),
            Self::Window {
                arrivals,
                subscribers,
                window,
                expected,
                ..
            } => {
                let under_way = expected.saturating_sub(arrivals.received());
                if under_way > (*window - 1) * *subscribers {
                    return None;
                }
                *expected += *subscribers;
            }
        }
        Some(clock::now())
    }

    /// Whether nothing more is to be sent.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Burst { left } => *left == 0,
            Self::Open { share, until } => share.left() == 0 || clock::now() >= *until,
            Self::Closed { until } | Self::Window { until, .. } => clock::now() >= *until,
        }
    }

    /// How many messages of a schedule were not sent.
    pub(crate) fn unsent(&self) -> u64 {
        match self {
            Self::Open { share, .. } => share.left(),
            _ => 0,
        }
    }

    /// Whether a message may come to be due while answers are waited for.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Window { .. })
    }

    /// Waits until the next one may be due.
    pub(crate) async fn wait(&self) {
        // Whoever waits must see that the time is over, though nothing comes.
        let step = Duration::from_millis(100);
        match self {
            Self::Closed { .. } | Self::Burst { .. } => {}
            Self::Open { share, .. } => {
                let _ = tokio::time::timeout(step, share.wait()).await;
            }
            Self::Window { arrivals, .. } => {
                let _ = tokio::time::timeout(step, arrivals.progress()).await;
            }
        }
    }
}

//! What a delivery tells of itself to whoever asks.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::board::Entry;

/// How a delivery is doing. The figures are since the server started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryReport {
    /// Its name.
    pub name: String,
    /// The topic or prefix that it reads.
    pub topic: String,
    /// Where it delivers, without what may be secret in the URL.
    pub url: String,
    /// What it is doing.
    pub state: DeliveryState,
    /// The cursor up to which everything is dealt with.
    pub place: Option<String>,
    /// How many messages are read and not dealt with.
    pub waiting: usize,
    /// How long the oldest message that is read and not dealt with has been in the log, in
    /// seconds.
    pub lag: u64,
    /// Messages that the service has taken.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Messages that were put aside.
    pub parked: u64,
    /// Messages that its condition was not true of.
    pub skipped: u64,
    /// Connections that were not made, for where they led.
    pub forbidden: u64,
    /// How often messages were no longer kept when their turn came.
    pub gaps: u64,
    /// The status that the service answered last.
    pub last_status: Option<u16>,
    /// What went wrong with the last attempt, if something did.
    pub last_error: Option<String>,
    /// When it is tried again, in seconds since 1970.
    pub next_attempt: Option<u64>,
}

/// What became of a message that was put aside and offered again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retried {
    /// Its id.
    pub id: u64,
    /// Whether the service has taken it, so that it is not aside any longer.
    pub is_taken: bool,
    /// What the service said.
    pub text: String,
}

/// What a delivery is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// It delivers, or waits for messages.
    #[default]
    Running,
    /// The service has not taken a message, which is tried again.
    Retrying,
    /// The service fails so much that it is only asked now and then.
    Paused,
    /// The service wants no more messages, and gets none until the delivery is resumed or changed,
    /// or the server starts again.
    Gone,
    /// It could not begin.
    Failed,
}

impl DeliveryState {
    /// Whether messages are delivered as they come.
    #[must_use]
    pub fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Retrying)
    }
}

impl DeliveryReport {
    pub(super) fn new(entry: &Entry) -> Self {
        let figures = entry.tally.figures();
        let since_1970 = |time: SystemTime| {
            let time = time.duration_since(SystemTime::UNIX_EPOCH);
            time.unwrap_or_default().as_secs()
        };
        Self {
            name: entry.name.clone(),
            topic: entry.topic.clone(),
            url: entry.url.clone(),
            state: figures.state,
            place: figures.place.map(|place| place.to_string()),
            waiting: figures.waiting(),
            lag: figures.lag(SystemTime::now()).as_secs(),
            delivered: figures.delivered,
            failed: figures.failed,
            parked: figures.parked,
            skipped: figures.skipped,
            forbidden: figures.forbidden,
            gaps: figures.gaps,
            last_status: figures.last_status,
            last_error: figures.last_error,
            next_attempt: figures.next_attempt.map(since_1970),
        }
    }
}

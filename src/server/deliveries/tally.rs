//! What a delivery has done, and what it is doing, for whoever asks.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use hookbot_forward::{Answer, Told, Trouble, Verdict};
use hookbot_protocol::{Cursor, Offset};

use super::report::DeliveryState;

/// The figures of one delivery since the server started, however often it was changed meanwhile.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Figures>);

/// What is known of a delivery.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    /// Messages that were taken.
    pub(super) delivered: u64,
    /// Attempts that failed.
    pub(super) failed: u64,
    /// Messages that were put aside.
    pub(super) parked: u64,
    /// Messages that its condition was not true of.
    pub(super) skipped: u64,
    /// Connections that were not made, for where they led.
    pub(super) forbidden: u64,
    /// How often messages were no longer kept when their turn came.
    pub(super) gaps: u64,
    /// The status of the last answer.
    pub(super) last_status: Option<u16>,
    /// What went wrong with the last attempt, if something did.
    pub(super) last_error: Option<String>,
    /// When it is tried again, if it is.
    pub(super) next_attempt: Option<SystemTime>,
    /// How it is doing.
    pub(super) state: DeliveryState,
    /// Up to where everything is dealt with.
    pub(super) place: Option<Cursor>,
    /// What was read and is not dealt with, with the time at which the log took it.
    waiting: VecDeque<(Offset, SystemTime)>,
}

impl Figures {
    /// How many messages are read and not dealt with.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How long the oldest message that is not dealt with has been in the log.
    pub(super) fn lag(&self, now: SystemTime) -> Duration {
        let oldest = self.waiting.front();
        let lag = oldest.and_then(|(_, time)| now.duration_since(*time).ok());
        lag.unwrap_or_default()
    }
}

impl Tally {
    pub(super) fn figures(&self) -> Figures {
        self.lock().clone()
    }

    /// It begins, or begins again after a change.
    pub(super) fn begin(&self, place: Option<Cursor>) {
        let mut own = self.lock();
        own.state = DeliveryState::Running;
        own.place = place;
        own.next_attempt = None;
        own.waiting.clear();
    }

    /// It has ended, or could not begin.
    pub(super) fn end(&self, state: DeliveryState, error: Option<String>) {
        let mut own = self.lock();
        own.state = state;
        own.next_attempt = None;
        if error.is_some() {
            own.last_error = error;
        }
    }

    /// A message was read that the log took then.
    pub(super) fn read(&self, offset: Offset, time: SystemTime) {
        self.lock().waiting.push_back((offset, time));
    }

    /// A connection would have led where none may.
    pub(super) fn forbid(&self) {
        self.lock().forbidden += 1;
    }

    /// The service has answered, or has not.
    pub(super) fn note(&self, answer: &Answer) {
        let mut own = self.lock();
        own.last_status = answer.code.or(own.last_status);
        own.next_attempt = None;
        own.last_error = (answer.verdict != Verdict::Taken).then(|| answer.text.clone());
        own.failed += u64::from(own.last_error.is_some());
    }

    /// Something has happened.
    pub(super) fn hear(&self, told: &Told<'_>) {
        let mut own = self.lock();
        match told {
            Told::Delivered { .. } => {
                own.delivered += 1;
                own.state = DeliveryState::Running;
            }
            Told::Parked { .. } => {
                own.parked += 1;
                if own.state == DeliveryState::Retrying {
                    own.state = DeliveryState::Running;
                }
            }
            Told::Skipped => own.skipped += 1,
            Told::Failed { again, .. } => {
                own.next_attempt = Some(SystemTime::now() + *again);
                if own.state == DeliveryState::Running {
                    own.state = DeliveryState::Retrying;
                }
            }
            Told::Opened => own.state = DeliveryState::Paused,
            Told::Closed => own.state = DeliveryState::Running,
            Told::Place(place) => {
                let Ok(place) = place.parse::<Cursor>() else {
                    return;
                };
                own.place = Some(place);
                let is_done = |(offset, _): &(Offset, SystemTime)| *offset <= place.offset;
                while own.waiting.front().is_some_and(is_done) {
                    own.waiting.pop_front();
                }
            }
            Told::Trouble(Trouble::Missing(_)) => own.gaps += 1,
            Told::NotParked(error) => own.last_error = Some(error.to_string()),
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

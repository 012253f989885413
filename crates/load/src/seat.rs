//! One subscriber's place in the crowd: its account, which outlives its connection.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hookbot_protocol::event::EventFrame;

use crate::ledger::Ledger;

/// A subscriber's account.
#[derive(Debug)]
pub(crate) struct Seat(Mutex<Account>);

/// What is known of one subscriber.
#[derive(Debug)]
pub(crate) struct Account {
    /// What it received.
    pub(crate) ledger: Ledger,
    /// Where it may resume, for those that get event frames.
    pub(crate) cursor: Option<String>,
    /// How often it was told that messages are missing.
    pub(crate) gaps: u64,
    /// How often it came back.
    pub(crate) resumed: u64,
    /// How often the server ended its connection.
    pub(crate) cut_off: u64,
}

impl Seat {
    /// A subscriber that has nothing yet.
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self(Mutex::new(Account {
            ledger,
            cursor: None,
            gaps: 0,
            resumed: 0,
            cut_off: 0,
        }))
    }

    /// The account; only this subscriber's task uses it while a run goes on.
    pub(crate) fn account(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    /// Enters an event frame. Gives the send time of a message that had not come before.
    pub(crate) fn enter_event(&mut self, frame: &[u8]) -> Option<u64> {
        match EventFrame::parse(&frame.to_vec().into()) {
            Ok(EventFrame::Message(event, body)) => {
                self.cursor = Some(event.cursor);
                self.ledger.enter(&body, body.len() as u64)
            }
            Ok(EventFrame::At(cursor)) => {
                self.cursor = Some(cursor);
                None
            }
            Ok(EventFrame::Gap(gap)) => {
                self.cursor = Some(gap.oldest);
                self.gaps += 1;
                None
            }
            Err(_) => self.ledger.enter(b"", 0),
        }
    }
}

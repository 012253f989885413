//! Many subscribers at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::arrivals::Arrivals;
use crate::failure::Failure;
use crate::guest::Guest;
use crate::ledger::{Ledger, Tally};
use crate::publisher::{Plan, Publisher};
use crate::seat::Seat;
use crate::target::Target;

pub(crate) use crate::guest::{Habit, Interruptions};

/// Subscribers, connected for as long as this exists.
#[derive(Debug)]
pub(crate) struct Crowd {
    /// What they receive.
    pub(crate) arrivals: Arc<Arrivals>,
    seats: Vec<Arc<Seat>>,
    tasks: JoinSet<()>,
    connections: usize,
    call: Call,
    target: Arc<Target>,
}

/// What subscribers are told beforehand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// Which run it is.
    pub(crate) run: u16,
    /// How large each payload is going to be.
    pub(crate) size: usize,
    /// How many publish.
    pub(crate) publishers: usize,
}

/// So many handshakes are under way at once.
const CONNECTING: usize = 256;

impl Call {
    /// For so many publishers of this plan.
    pub(crate) fn new(plan: Plan, publishers: usize) -> Self {
        Self {
            run: plan.run,
            size: plan.size,
            publishers,
        }
    }
}

impl Crowd {
    /// Nobody yet.
    pub(crate) fn new(target: &Arc<Target>, call: Call) -> Self {
        Self {
            arrivals: Arc::new(Arrivals::new()),
            seats: Vec::new(),
            tasks: JoinSet::new(),
            connections: 0,
            call,
            target: target.clone(),
        }
    }

    /// Connects a subscriber to each of these topics, as fast as it goes, and tells how long that
    /// took.
    pub(crate) async fn join(
        &mut self,
        topics: impl IntoIterator<Item = u32>,
        habit: Habit,
    ) -> Result<Duration, Failure> {
        let began = Instant::now();
        let gate = Arc::new(Semaphore::new(CONNECTING));
        let (connected, mut outcomes) = mpsc::channel(CONNECTING);
        for topic in topics {
            let guest = Guest {
                target: self.target.clone(),
                arrivals: self.arrivals.clone(),
                seat: Arc::new(Seat::new(self.ledger(topic))),
                run: self.call.run,
                topic,
                number: self.connections,
                habit,
            };
            self.connections += 1;
            if !matches!(habit, Habit::Stall) {
                self.seats.push(guest.seat.clone());
            }
            let (gate, connected) = (gate.clone(), connected.clone());
            self.tasks.spawn(async move {
                // It is never closed.
                let turn = gate.acquire_owned().await;
                // In a box of its own, so that an idle task is not as large as a handshake.
                let (outcome, subscriber) = match Box::pin(guest.connect()).await {
                    Ok(subscriber) => (Ok(()), Some(subscriber)),
                    Err(failure) => (Err(failure), None),
                };
                drop(turn);
                // Nobody waits for the others once one has failed.
                let _ = connected.send(outcome).await;
                drop(connected);
                if let Some(subscriber) = subscriber {
                    guest.stay(subscriber).await;
                }
            });
        }
        drop(connected);
        while let Some(outcome) = outcomes.recv().await {
            outcome?;
        }
        Ok(began.elapsed())
    }

    fn ledger(&self, topic: u32) -> Ledger {
        let Call {
            run,
            size,
            publishers,
        } = self.call;
        Ledger::new(run, topic, size, publishers)
    }

    /// How many deliveries these publishers' acknowledged messages make.
    pub(crate) fn expected(&self, publishers: &[Publisher]) -> u64 {
        let topics = self.seats.iter().map(|seat| seat.account().ledger.topic());
        let acknowledged = |topic| {
            let sent = publishers.iter().map(|publisher| publisher.sent(topic));
            sent.map(crate::ledger::Sent::acknowledged).sum::<u64>()
        };
        topics.map(acknowledged).sum()
    }

    /// The counts of everybody, held against what was sent.
    pub(crate) fn settle(&self, publishers: &[Publisher]) -> Tally {
        let mut all = Tally::default();
        for seat in &self.seats {
            let ledger = &seat.account().ledger;
            let sent = publishers
                .iter()
                .map(|publisher| publisher.sent(ledger.topic()));
            all.add(&ledger.settle(sent));
        }
        all
    }

    /// How often subscribers were told that messages are missing.
    pub(crate) fn gaps(&self) -> u64 {
        self.seats.iter().map(|seat| seat.account().gaps).sum()
    }

    /// How often subscribers hung up and went on where they were.
    pub(crate) fn resumed(&self) -> u64 {
        self.seats.iter().map(|seat| seat.account().resumed).sum()
    }

    /// How many connections the server ended, or did not let resume.
    pub(crate) fn cut_off(&self) -> u64 {
        self.seats.iter().map(|seat| seat.account().cut_off).sum()
    }
}

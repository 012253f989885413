//! Many subscribers at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::arrivals::Arrivals;
use crate::failure::Failure;
use crate::ledger::{Ledger, Tally};
use crate::publisher::Publisher;
use crate::seat::Seat;
use crate::subscriber::Subscriber;
use crate::target::{Peculiar, Target};

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

/// How often subscribers hang up and resume.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interruptions {
    /// How often each does.
    pub(crate) times: u32,
    /// How long it stays between.
    pub(crate) every: Duration,
}

/// So many handshakes are under way at once.
const CONNECTING: usize = 256;

/// The receive buffer of those that do not read; the kernel makes it as small as it allows.
const SMALL: usize = 2_048;

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
    ) -> Result<Duration, Failure> {
        self.connect(topics, true, |subscriber, seat, arrivals| async move {
            subscriber.read(&seat, &arrivals).await;
        })
        .await
    }

    /// Connects subscribers that never read.
    pub(crate) async fn join_stalled(
        &mut self,
        topics: impl IntoIterator<Item = u32>,
    ) -> Result<Duration, Failure> {
        self.connect(topics, false, |subscriber, _, _| subscriber.stall())
            .await
    }

    async fn connect<F>(
        &mut self,
        topics: impl IntoIterator<Item = u32>,
        reads: bool,
        serve: impl Fn(Subscriber, Arc<Seat>, Arc<Arrivals>) -> F + Copy + Send + Sync + 'static,
    ) -> Result<Duration, Failure>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let began = Instant::now();
        let gate = Arc::new(Semaphore::new(CONNECTING));
        let (connected, mut outcomes) = mpsc::channel(CONNECTING);
        for topic in topics {
            let Call { run, .. } = self.call;
            let seat = Arc::new(Seat::new(self.ledger(topic)));
            if reads {
                self.seats.push(seat.clone());
            }
            let peculiar = Peculiar {
                number: self.connections,
                receive_buffer: (!reads).then_some(SMALL),
            };
            self.connections += 1;
            let (gate, connected) = (gate.clone(), connected.clone());
            let (target, arrivals) = (self.target.clone(), self.arrivals.clone());
            self.tasks.spawn(async move {
                // It is never closed.
                let turn = gate.acquire_owned().await;
                let connecting = Subscriber::connect(&target, run, topic, None, peculiar);
                // In a box of its own, so that an idle task is not as large as a handshake.
                let (outcome, subscriber) = match Box::pin(connecting).await {
                    Ok(subscriber) => (Ok(()), Some(subscriber)),
                    Err(failure) => (Err(failure), None),
                };
                drop((turn, target));
                // Nobody waits for the others once one has failed.
                let _ = connected.send(outcome).await;
                drop(connected);
                if let Some(subscriber) = subscriber {
                    serve(subscriber, seat, arrivals).await;
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

    /// How many connections the server ended.
    pub(crate) fn cut_off(&self) -> u64 {
        self.seats.iter().map(|seat| seat.account().cut_off).sum()
    }
}

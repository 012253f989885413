//! How one subscriber spends its time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::arrivals::Arrivals;
use crate::failure::Failure;
use crate::seat::Seat;
use crate::subscriber::Subscriber;
use crate::target::{Peculiar, Target};

/// A subscriber before, between and during its connections.
#[derive(Debug)]
pub(crate) struct Guest {
    /// Where it connects to.
    pub(crate) target: Arc<Target>,
    /// Where all of them enter what comes.
    pub(crate) arrivals: Arc<Arrivals>,
    /// Its own account.
    pub(crate) seat: Arc<Seat>,
    /// The run that it belongs to.
    pub(crate) run: u16,
    /// What it subscribes to.
    pub(crate) topic: u32,
    /// Which of all connections its own is.
    pub(crate) number: usize,
    /// What it does.
    pub(crate) habit: Habit,
}

/// What a subscriber does once it is connected.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Habit {
    /// Reads all there is.
    Read,
    /// Never reads.
    Stall,
    /// Gets event frames, hangs up now and then, and goes on where it was.
    Resume(Interruptions),
}

/// How often a subscriber hangs up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interruptions {
    /// How often.
    pub(crate) times: u32,
    /// How long it stays between, more or less.
    pub(crate) every: Duration,
}

/// The receive buffer of those that do not read; the kernel makes it as small as it allows.
const SMALL: usize = 2_048;

/// How long to wait before asking again to be let in, and how often.
const PAUSE: Duration = Duration::from_millis(100);
const ATTEMPTS: u32 = 50;

impl Guest {
    /// Connects, where it was if it is to go on.
    pub(crate) async fn connect(&self) -> Result<Subscriber, Failure> {
        let stalls = matches!(self.habit, Habit::Stall);
        let peculiar = Peculiar {
            number: self.number,
            receive_buffer: stalls.then_some(SMALL),
        };
        let after = matches!(self.habit, Habit::Resume(_)).then(|| {
            let cursor = self.seat.account().cursor.clone();
            // Its topic is of this run alone, so nothing else is there.
            cursor.unwrap_or_else(|| "start".to_owned())
        });
        let Self {
            target, run, topic, ..
        } = self;
        Subscriber::connect(target, *run, *topic, after.as_deref(), peculiar).await
    }

    /// Does what it does, for as long as the server lets it.
    pub(crate) async fn stay(self, subscriber: Subscriber) {
        match self.habit {
            Habit::Read => subscriber.read(&self.seat, &self.arrivals).await,
            Habit::Stall => subscriber.stall().await,
            Habit::Resume(interruptions) => {
                Box::pin(self.come_and_go(subscriber, interruptions)).await;
            }
        }
    }

    async fn come_and_go(&self, mut subscriber: Subscriber, interruptions: Interruptions) {
        for _ in 0..interruptions.times {
            // Not all at once.
            let stays = interruptions.every.mul_f64(0.5 + fastrand::f64());
            let reading = subscriber.read(&self.seat, &self.arrivals);
            // Whether it hangs up or the server does, it comes back.
            let _ = timeout(stays, reading).await;
            let Some(back) = self.come_back().await else {
                return;
            };
            self.seat.account().resumed += 1;
            subscriber = back;
        }
        subscriber.read(&self.seat, &self.arrivals).await;
    }

    async fn come_back(&self) -> Option<Subscriber> {
        for _ in 0..ATTEMPTS {
            if let Ok(subscriber) = self.connect().await {
                return Some(subscriber);
            }
            self.seat.account().cut_off += 1;
            sleep(PAUSE).await;
        }
        None
    }
}

//! A forwarder: carries the messages of one source to one taker.
//!
//! It knows nothing of HTTP, command lines or brokers. Each target has a forwarder of its own, with
//! its own subscription, place, retries and breaker: the server keeps what one has not got to, so
//! nothing has to be queued here for a target that is down, and no target waits for another.
//!
//! At least once, and no more often than can be helped: the place moves over a message when it was
//! taken or is on disk as a dead letter, and only over messages without a hole between them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::breaker::Breaker;
use crate::letters::Letters;
use crate::message::Message;
use crate::offering::{Done, End, Offering};
use crate::place::Place;
use crate::selection::{Selected, Selection};
use crate::source::{Given, Source};
use crate::taker::Taker;
use crate::told::{Tell, Told};
use crate::window::{Lanes, Progress, Window};

/// How hard a forwarder tries.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many messages are on offer at once. With more than one, those with the same key are in
    /// order, and without keys nothing is.
    pub concurrency: usize,
    /// How often a message is offered again before it is put aside; `None` for ever.
    pub retries: Option<u32>,
    /// The longest first pause before it is offered again.
    pub first_pause: Duration,
    /// The longest pause of all.
    pub last_pause: Duration,
    /// After so many failures in a row the target is only asked now and then,
    pub patience: u32,
    /// if they took so long together.
    pub patience_span: Duration,
    /// How often it is asked then, at least.
    pub probe: Duration,
    /// How large the messages may be together that are read and not dealt with, in bytes. The last
    /// one may exceed it.
    pub ahead: usize,
    /// How long an offer that has begun may take when the forwarder is told to stop.
    pub grace: Duration,
    /// Stop after so many messages.
    pub count: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: 1,
            retries: None,
            first_pause: Duration::from_millis(100),
            last_pause: Duration::from_secs(30),
            patience: 5,
            patience_span: Duration::from_secs(2),
            probe: Duration::from_secs(5),
            ahead: 32 << 20,
            grace: Duration::from_secs(10),
            count: None,
        }
    }
}

/// What a forwarder has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Messages that were taken.
    pub delivered: u64,
    /// Attempts beyond the first.
    pub retried: u64,
    /// Messages that were put aside.
    pub parked: u64,
    /// Messages that the target did not want.
    pub skipped: u64,
    /// Whether the target wants no more messages.
    pub is_gone: bool,
}

/// Carries messages from a source to a taker.
pub struct Forwarder {
    /// Who is to take them.
    pub taker: Arc<dyn Taker>,
    /// Which of them.
    pub selection: Selection,
    /// How hard it tries.
    pub settings: Settings,
    /// How far it has got.
    pub place: Place,
    /// Where messages are put aside; without, they are lost.
    pub letters: Option<Letters>,
    /// Whom to tell what happens.
    pub tell: Tell,
}

impl Forwarder {
    /// Runs until it is stopped, the source ends, or the target wants no more.
    ///
    /// When it is stopped, it takes no more messages, gives those on offer its grace, and keeps
    /// its place before those that were not taken.
    pub async fn run(self, source: &dyn Source, stop: CancellationToken) -> Summary {
        self.run_on(source, stop).await.0
    }

    /// As [`Self::run`]; also gives back the place, for another one to go on there.
    pub async fn run_on(self, source: &dyn Source, stop: CancellationToken) -> (Summary, Place) {
        let Self {
            taker,
            selection,
            settings,
            place,
            letters,
            tell,
        } = self;
        let mut given = source.open(place.current());
        let offering = Offering {
            taker: &*taker,
            settings: &settings,
            letters: letters.as_ref(),
            tell: &tell,
            breaker: Breaker::new(settings.patience, settings.patience_span, settings.probe),
            stop: stop.child_token(),
        };
        let mut books = Books::new(place, settings.ahead, &tell);
        let selection = Arc::new(selection);
        let mut lanes = Lanes::default();
        let mut offers = FuturesUnordered::new();
        let mut wanted = 0;
        let mut has_ended = false;
        let mut now_and_then = interval(SYNC_INTERVAL);
        now_and_then.set_missed_tick_behavior(MissedTickBehavior::Delay);

        loop {
            if offering.stop.is_cancelled() {
                lanes.clear();
            }
            while offers.len() < settings.concurrency.max(1)
                && let Some((key, (number, message))) = lanes.next()
            {
                offers.push(offering.carry(number, key, message));
            }
            let is_enough = settings.count.is_some_and(|count| wanted >= count);
            let wants_more = !has_ended && !is_enough && !offering.stop.is_cancelled();
            if !wants_more && offers.is_empty() && lanes.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                _ = now_and_then.tick() => {
                    books.sync().await;
                    if !books.window.has_room() {
                        // It is the source that waits for us then.
                        tell(&Told::Heard);
                    }
                }
                Some(done) = offers.next() => {
                    let Done { number, key, end, retries } = done;
                    books.summary.retried += retries;
                    match end {
                        End::Taken => books.summary.delivered += 1,
                        End::Parked => books.summary.parked += 1,
                        End::Gone => books.summary.is_gone = true,
                        End::Interrupted => {}
                    }
                    match end {
                        End::Taken | End::Parked => books.finish(number),
                        End::Gone => offering.stop.cancel(),
                        End::Interrupted => {}
                    }
                    lanes.release(key);
                }
                next = given.next(), if wants_more && books.window.has_room() => match next {
                    None => has_ended = true,
                    Some(Given::Message(message, place)) => {
                        tell(&Told::Heard);
                        if place.as_deref().is_some_and(|place| books.place.is_ahead(place)) {
                            books.pass(place);
                            continue;
                        }
                        let size = message.payload.len();
                        match select(&selection, message).await {
                            Selected::Skipped => {
                                tell(&Told::Skipped);
                                books.summary.skipped += 1;
                                books.pass(place);
                            }
                            Selected::Wanted(message, key) => {
                                wanted += 1;
                                let number = books.window.push(place, size);
                                let key = match settings.concurrency {
                                    0 | 1 => Some(String::new()),
                                    _ => key,
                                };
                                lanes.push(key, (number, Ok(message)));
                            }
                            Selected::Unfit(message, reason) => {
                                wanted += 1;
                                let number = books.window.push(place, size);
                                lanes.push(None, (number, Err((message, reason))));
                            }
                        }
                    }
                    Some(Given::Place(place)) => {
                        let is_first = books.place.current().is_none();
                        books.pass(Some(place));
                        if is_first {
                            books.sync().await;
                        }
                        tell(&Told::Heard);
                    }
                    Some(Given::Heard) => tell(&Told::Heard),
                    Some(Given::Trouble(trouble)) => tell(&Told::Trouble(&trouble)),
                },
                () = stop.cancelled(), if wants_more => {}
            }
        }
        drop(offers);
        books.sync().await;
        (books.summary, books.place)
    }
}

/// What is done about each message, and where that is written down.
struct Books<'a> {
    window: Window,
    place: Place,
    summary: Summary,
    tell: &'a Tell,
    /// Whether the last attempt to keep the place went wrong.
    fails: bool,
}

impl<'a> Books<'a> {
    fn new(place: Place, ahead: usize, tell: &'a Tell) -> Self {
        Self {
            window: Window::new(ahead),
            place,
            summary: Summary::default(),
            tell,
            fails: false,
        }
    }

    /// A message is dealt with for good.
    fn finish(&mut self, number: u64) {
        let kept = match self.window.finish(number) {
            Progress::Through(place, passed) => {
                (self.tell)(&Told::Place(&place));
                self.place.advance(place, &passed)
            }
            Progress::Ahead(place) => self.place.take(place),
            Progress::Unknown => Ok(()),
        };
        self.heed(kept);
    }

    /// There is nothing to be done up to a place, which nobody has to remember in a hurry.
    fn pass(&mut self, place: Option<String>) {
        let number = self.window.push(place, 0);
        if let Progress::Through(place, passed) = self.window.finish(number) {
            (self.tell)(&Told::Place(&place));
            self.place.note(place, &passed);
        }
    }

    async fn sync(&mut self) {
        let kept = self.place.sync().await;
        self.heed(kept);
    }

    fn heed(&mut self, kept: std::io::Result<()>) {
        if let Err(error) = &kept
            && !self.fails
        {
            (self.tell)(&Told::NotKept(error));
        }
        self.fails = kept.is_err();
    }
}

/// Decides about a message; about a large one where nobody waits for anything else.
async fn select(selection: &Arc<Selection>, message: Box<Message>) -> Selected {
    if !selection.is_work() || message.payload.len() <= LARGE {
        return selection.select(message);
    }
    let selection = selection.clone();
    let kept = message.clone();
    let selected = spawn_blocking(move || selection.select(message)).await;
    selected.unwrap_or_else(|error| Selected::Unfit(kept, error.to_string()))
}

/// From so many bytes on, a body is large.
const LARGE: usize = 64 << 10;

/// How long the disk may be behind.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

//! Deliveries: messages pushed to HTTP services, each until the service takes it.
//!
//! A delivery reads the log at its own pace, so one whose service is down costs the others, and
//! whoever publishes, nothing but a bounded piece of memory. Its place, and the messages that its
//! service will not take, are in a folder of the data folder that belongs to its name. The place is
//! written at each step: after a crash only what was on its way is delivered a second time.

mod board;
mod delivery;
mod log_source;
mod report;
mod service;
mod signer;
mod tally;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use hookbot_forward::store::{Pair, Store};
use hookbot_forward::{Forwarder, Place, Tell, Told, Trouble};
use hookbot_protocol::Cursor;
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::State;
use super::address_guard::AddressGuard;
use super::channels::masked;
pub(super) use board::Board;
use board::{Aside, Entry};
pub use delivery::{Delivery, DeliveryError};
use log_source::LogSource;
pub use report::{DeliveryReport, DeliveryState, Retried};
use service::Service;
pub use signer::{Signer, SignerError};
use tally::Tally;

/// The deliveries at work, which can be exchanged while the server runs.
pub(super) struct Deliveries {
    state: Arc<State>,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    running: Vec<Running>,
    /// Of those that there were, for when they are there again.
    known: HashMap<String, Known>,
}

/// What is remembered of a delivery that does not run.
#[derive(Default)]
struct Known {
    tally: Arc<Tally>,
    /// If it is nowhere on disk.
    place: Option<Place>,
}

/// A delivery at work.
struct Running {
    delivery: Delivery,
    entry: Entry,
    stop: CancellationToken,
    task: JoinHandle<Option<Place>>,
}

impl Running {
    /// Ends it. What is on its way has the server's grace.
    async fn stop(self) -> (String, Known) {
        self.stop.cancel();
        let known = Known {
            tally: self.entry.tally,
            // One that panicked has kept its place on disk.
            place: self.task.await.ok().flatten(),
        };
        (self.entry.name, known)
    }
}

impl Deliveries {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self {
            state,
            current: Mutex::default(),
        }
    }

    /// Runs these deliveries and no others. One that is the same as before is not disturbed; one
    /// that has the name of another goes on at its place. What is published once this returns is
    /// delivered. A server that stops stays as it is.
    pub(super) async fn replace(&self, deliveries: &[Delivery]) {
        let mut current = self.current.lock().await;
        if self.state.stop.is_cancelled() {
            return;
        }
        let Current { running, known } = &mut *current;
        let is_wanted = |one: &Running| {
            let has_failed = one.entry.tally.figures().state == DeliveryState::Failed;
            deliveries.contains(&one.delivery) && !has_failed
        };
        let gone = running.extract_if(.., |one| !is_wanted(one));
        known.extend(join_all(gone.map(Running::stop)).await);
        let mut entries = Vec::new();
        for delivery in deliveries {
            let same = running.iter().find(|one| one.delivery == *delivery);
            if let Some(same) = same {
                entries.push(same.entry.clone());
                continue;
            }
            let known = known.remove(&delivery.name).unwrap_or_default();
            let started = start(&self.state, delivery.clone(), known).await;
            entries.push(started.entry.clone());
            running.push(started);
        }
        self.state.deliveries.replace(entries);
    }
}

/// Starts a delivery. One that can't be started is told of, and tried again when the file is read
/// again.
async fn start(state: &Arc<State>, delivery: Delivery, known: Known) -> Running {
    let Known { tally, place } = known;
    let name = delivery.name.clone();
    let entry = Entry {
        name: name.clone(),
        topic: delivery.filter.to_string(),
        url: String::new(),
        tally: tally.clone(),
        aside: None,
        resumed: Arc::default(),
    };
    let stop = state.stop.child_token();
    let ready = prepare(state, &delivery, &tally, place).await;
    let (entry, work) = match ready {
        Ok(ready) => {
            let url = ready.service.target.to_string();
            let topic = masked(&entry.topic);
            info!(delivery = name, topic = &*topic, to = url, "delivering");
            let service = ready.service.clone();
            let aside = ready.forwarder.letters.clone();
            let aside = aside.map(|letters| Aside { letters, service });
            let entry = Entry {
                url,
                aside,
                ..entry
            };
            (entry, Some(ready))
        }
        Err(error) => {
            fail(&delivery, &tally, &error);
            (entry, None)
        }
    };
    let work = deliver(
        state.clone(),
        delivery.clone(),
        entry.clone(),
        work,
        stop.clone(),
    );
    let task = state.delivering.spawn(work);
    Running {
        delivery,
        entry,
        stop,
        task,
    }
}

/// Delivers until it is told to stop. A service that wants no more is left alone until somebody
/// says that it does.
async fn deliver(
    state: Arc<State>,
    delivery: Delivery,
    Entry { tally, resumed, .. }: Entry,
    mut ready: Option<Ready>,
    stop: CancellationToken,
) -> Option<Place> {
    loop {
        let Ready {
            forwarder, source, ..
        } = ready?;
        let (summary, place) = forwarder.run_on(&source, stop.clone()).await;
        if summary.is_gone {
            tally.end(DeliveryState::Gone, None);
            tokio::select! {
                () = resumed.notified() => {}
                () = stop.cancelled() => {}
            }
        }
        if stop.is_cancelled() {
            return place.is_in_memory().then_some(place);
        }
        info!(delivery = delivery.name, "delivering again");
        let again = prepare(&state, &delivery, &tally, Some(place)).await;
        ready = again.map_err(|error| fail(&delivery, &tally, &error)).ok();
    }
}

/// Tells that a delivery can't begin.
fn fail(delivery: &Delivery, tally: &Tally, error: &anyhow::Error) {
    let error = format!("{error:#}");
    error!(delivery = delivery.name, %error, "nothing is delivered");
    tally.end(DeliveryState::Failed, Some(error));
}

/// A delivery that can begin.
struct Ready {
    forwarder: Forwarder,
    source: LogSource,
    service: Arc<Service>,
}

async fn prepare(
    state: &State,
    delivery: &Delivery,
    tally: &Arc<Tally>,
    place: Option<Place>,
) -> anyhow::Result<Ready> {
    let name = delivery.name.clone();
    let pair = state.settings.data_dir.as_deref();
    let pair = pair.map(|data_dir| pair_in(data_dir, &name));
    let mut place = match (place, pair.clone()) {
        (Some(place), _) => place,
        (None, None) => Place::in_memory(),
        (None, Some(pair)) => spawn_blocking(move || pair.place()).await??,
    };
    if place.current().is_none() && !delivery.from_start {
        let now = Cursor {
            epoch: state.broker.epoch(),
            offset: state.broker.bounds().next.before(),
        };
        place.begin_at(now.to_string()).await?;
    }
    tally.begin(place.current().and_then(|place| place.parse().ok()));

    let guard = AddressGuard::new(delivery.allowed.clone());
    let forbidding = tally.clone();
    let guard = move |address| {
        let checked = guard.check(address);
        checked.map_err(|error| {
            forbidding.forbid();
            error.to_string()
        })
    };
    let wanted = delivery.clone();
    // Trusted certificates are read.
    let target = spawn_blocking(move || wanted.target(Arc::new(guard))).await??;
    let service = Arc::new(Service {
        target,
        signer: delivery.signer()?,
        tally: tally.clone(),
    });
    let forwarder = Forwarder {
        taker: service.clone(),
        selection: delivery.selection()?,
        settings: hookbot_forward::Settings {
            grace: state.settings.grace,
            ..delivery.forwarding()
        },
        place,
        letters: pair.map(|pair| pair.letters()),
        tell: tell(name, tally.clone()),
    };
    let source = LogSource {
        broker: state.broker.clone(),
        filter: delivery.filter.clone(),
        unverified: delivery.unverified,
        tally: tally.clone(),
    };
    Ok(Ready {
        forwarder,
        source,
        service,
    })
}

/// What is remembered of the deliveries of the server that keeps its messages in this folder.
#[must_use]
pub fn store_in(data_dir: &Path) -> Store {
    Store::new(&data_dir.join("deliveries"))
}

fn pair_in(data_dir: &Path, name: &str) -> Pair {
    store_in(data_dir).named(name, "deliver", name)
}

/// Logs and counts what happens to a delivery.
fn tell(name: String, tally: Arc<Tally>) -> Tell {
    Arc::new(move |told| {
        tally.hear(told);
        let delivery = name.as_str();
        match told {
            Told::Delivered {
                message,
                attempt,
                answer,
            } => {
                let (cursor, topic) = (&message.event.cursor, masked(&message.event.topic));
                info!(
                    delivery,
                    cursor,
                    topic = &*topic,
                    attempt,
                    answer = answer.text,
                    "delivered"
                );
            }
            Told::Failed {
                message,
                attempt,
                answer,
                again,
            } => {
                let (cursor, answer) = (&message.event.cursor, &answer.text);
                let what = format!("not delivered, trying again in {again:.1?}");
                // A service may be down for days.
                if *attempt < 8 || attempt.is_power_of_two() {
                    warn!(delivery, cursor, attempt, answer, "{what}");
                } else {
                    debug!(delivery, cursor, attempt, answer, "{what}");
                }
            }
            Told::Parked {
                message,
                attempts,
                reason,
                letter,
            } => {
                let cursor = &message.event.cursor;
                match letter {
                    Some(letter) => {
                        warn!(delivery, cursor, attempts, reason, letter, "put aside")
                    }
                    None => error!(
                        delivery,
                        cursor, attempts, reason, "lost, as nothing is kept on disk"
                    ),
                }
            }
            Told::NotParked(error) => error!(delivery, %error, "cannot put a message aside"),
            Told::Opened => warn!(delivery, "the service fails, and is asked now and then"),
            Told::Closed => info!(delivery, "the service works again"),
            Told::Gone(answer) => error!(
                delivery,
                answer = answer.text,
                "the service wants no more: nothing is delivered until the delivery is resumed or \
                 changed, or the server starts again"
            ),
            Told::Trouble(trouble @ Trouble::Missing(_)) => {
                error!(delivery, %trouble, "messages are missing that were not delivered");
            }
            Told::Trouble(trouble) => error!(delivery, %trouble, "the log can't be read"),
            Told::NotKept(error) => {
                error!(delivery, %error, "its place is not kept, so messages may come again");
            }
            _ => debug!(delivery, ?told),
        }
    })
}

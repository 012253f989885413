//! Routers in the server's own process: they subscribe, decide, and publish again.
//!
//! A router's place is kept in the data folder, so what was acknowledged while it was not running
//! is routed later. It is kept now and then, not at each message: what is routed a second time
//! after a crash is known by its delivery id, and is not published again. The place belongs to a
//! router's name and filter; whoever comes with both goes on there.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use hookbot_broker::{Missing, Start, Subscription};
use hookbot_log::{AppendError, ReadError};
use hookbot_protocol::{Cursor, Filter, Message, Offset, Publication, Topic};
use hookbot_routers::{Outcome, RouteError, Router};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::{JoinHandle, spawn_blocking, yield_now};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, trace, warn};

use super::State;
use super::channels::masked;
use super::place::{Place, file_name};

/// The routers that can be exchanged while the server runs.
pub struct Routing {
    state: Arc<State>,
    running: Mutex<Vec<Running>>,
}

impl Routing {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self {
            state,
            running: Mutex::default(),
        }
    }

    /// Runs these routers and no others of those it was told before. One that is the same as before
    /// is not disturbed; one that reads with the name and the filter of another goes on at its
    /// place. What is published once this returns is routed. A server that stops stays as it is.
    pub async fn replace(&self, routers: Vec<Arc<dyn Router>>) {
        let mut running = self.running.lock().await;
        if self.state.stop.is_cancelled() {
            return;
        }
        let is_wanted = |one: &mut Running| {
            let mut routers = routers.iter();
            routers.any(|router| Arc::ptr_eq(router, &one.router))
        };
        let mut places = Vec::new();
        for gone in running.extract_if(.., |one| !is_wanted(one)) {
            places.extend(gone.stop().await);
        }
        for router in routers {
            let mut running_ones = running.iter();
            if !running_ones.any(|one| Arc::ptr_eq(&router, &one.router)) {
                running.push(start(&self.state, router, &mut places).await);
            }
        }
    }
}

/// A router at work.
struct Running {
    router: Arc<dyn Router>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<Place>>,
}

impl Running {
    /// Ends it behind the message at hand, and tells how far it has got.
    async fn stop(self) -> Vec<Place> {
        self.stop.cancel();
        let mut places = Vec::new();
        for task in self.tasks {
            // One that panicked has kept its place on disk.
            places.extend(task.await.ok());
        }
        places
    }
}

/// Runs a router until the server drains or it is stopped.
pub(super) async fn run(state: &Arc<State>, router: Arc<dyn Router>) {
    // It is never stopped alone, so nobody has to hold it.
    drop(start(state, router, &mut Vec::new()).await);
}

/// Starts a router, at one of these places where that is its own. What is published once this
/// returns is routed.
async fn start(state: &Arc<State>, router: Arc<dyn Router>, places: &mut Vec<Place>) -> Running {
    let stop = CancellationToken::new();
    let mut tasks = Vec::new();
    for filter in router.topics() {
        let name = router.name();
        let file = file_name(name, &filter);
        let known = places.iter().position(|place| place.name == file);
        let mut place = known.map_or_else(
            || Place::of(state, file.clone()),
            |known| places.swap_remove(known),
        );
        match subscribe(state, name, &filter, &mut place).await {
            Ok(subscription) => {
                info!(router = name, %filter, "routing");
                let follow = follow(
                    state.clone(),
                    router.clone(),
                    subscription,
                    place,
                    stop.clone(),
                );
                tasks.push(state.routing.spawn(follow));
            }
            Err(error) => error!(router = name, %filter, %error, "nothing is routed"),
        }
    }
    Running {
        router,
        stop,
        tasks,
    }
}

/// Begins where the router was, or with what is published now if it has never been anywhere.
async fn subscribe(
    state: &State,
    name: &str,
    filter: &Filter,
    place: &mut Place,
) -> Result<Subscription, ReadError> {
    let start = match place.load() {
        Ok(Some(cursor)) => Start::After(cursor),
        Ok(None) => {
            let subscription = state.broker.subscribe(filter.clone());
            place.keep(subscription.place()).await;
            return Ok(subscription);
        }
        Err(error) => {
            warn!(router = name, %filter, %error, "its place is lost, so it begins with the oldest");
            Start::Oldest
        }
    };
    let (subscription, gap) = state.broker.resume(filter.clone(), start).await?;
    if let Some(reason) = gap {
        warn!(router = name, %filter, ?reason, "messages may be missing that it has not routed");
    }
    Ok(subscription)
}

/// Routes one message after the other. Returns how far it has got.
async fn follow(
    state: Arc<State>,
    router: Arc<dyn Router>,
    mut subscription: Subscription,
    mut place: Place,
    stop: CancellationToken,
) -> Place {
    let name = router.name();
    let epoch = state.broker.epoch();
    let mut now_and_then = interval(PERIOD);
    now_and_then.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut done = None;
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            next = next(&state, &mut subscription) => next,
            _ = now_and_then.tick() => {
                state.parsed.forget();
                // If there is one, everything up to it is done.
                place.keep(subscription.place().or(done)).await;
                continue;
            }
        };
        let Some(next) = next else {
            done = subscription.place().or(done);
            break;
        };
        let round = Round::new(&state, &router, &mut subscription, next, &stop).await;
        let published = publish(&state, name, &round.outgoing, &stop).await;
        let upto = match published {
            Ok(()) => round.upto,
            // All that was before it.
            Err(of) => Some(Offset(of.0.saturating_sub(1))),
        };
        done = upto.map(|offset| Cursor { epoch, offset }).or(done);
        if published.is_err() || round.is_last {
            break;
        }
    }
    place.keep(done).await;
    place
}

/// What became of a few messages, published together: a sync of the disk is then for all of them.
#[derive(Default)]
struct Round {
    outgoing: Vec<Outgoing>,
    /// The last message that the router was asked about.
    upto: Option<Offset>,
    /// Whether nothing can come behind it.
    is_last: bool,
}

/// What a router has to publish because of the message at an offset.
struct Outgoing {
    from: Topic,
    of: Offset,
    publication: Publication,
}

impl Round {
    /// Asks the router about this message and those that are there already.
    async fn new(
        state: &State,
        router: &Arc<dyn Router>,
        subscription: &mut Subscription,
        first: Result<Arc<Message>, Missing>,
        stop: &CancellationToken,
    ) -> Self {
        let (mut round, mut bytes) = (Self::default(), 0);
        let mut next = Some(first);
        while let Some(given) = next {
            match given {
                Ok(message) => {
                    for publication in ask(state, router, &message).await {
                        bytes += publication.body.len();
                        round.outgoing.push(Outgoing {
                            from: message.topic().clone(),
                            of: message.offset,
                            publication,
                        });
                    }
                    round.upto = Some(message.offset);
                }
                Err(missing @ Missing::Gap { .. }) => {
                    warn!(router = router.name(), %missing, "a router was too slow");
                }
                Err(missing) => {
                    error!(router = router.name(), %missing, "nothing is routed any more");
                    round.is_last = true;
                    break;
                }
            }
            // Turn by turn, those who read the same topic find a message parsed, and none of them
            // keeps the thread.
            yield_now().await;
            let is_full = round.outgoing.len() >= ROUND || bytes >= ROUND_BYTES;
            if is_full || stop.is_cancelled() {
                break;
            }
            next = subscription.next().now_or_never();
        }
        round
    }
}

/// How much is published at once: little, as routers don't hold up those who publish.
const ROUND: usize = 64;
const ROUND_BYTES: usize = 1 << 20;

/// The next message; `None` when the server drains and there is none left.
async fn next(
    state: &State,
    subscription: &mut Subscription,
) -> Option<Result<Arc<Message>, Missing>> {
    tokio::select! {
        biased;
        next = subscription.next() => return Some(next),
        () = state.last_call.cancelled() => {}
    }
    poll_fn(|context| match subscription.poll_next(context) {
        Poll::Ready(next) => Poll::Ready(Some(next)),
        Poll::Pending if subscription.is_caught_up() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// What the router has to publish because of a message, each with an id of its own.
async fn ask(state: &State, router: &Arc<dyn Router>, message: &Arc<Message>) -> Vec<Publication> {
    let (name, offset) = (router.name(), message.offset);
    let topic = masked(message.topic().as_str());
    match outcome(router, message).await {
        Outcome::Published(publications) => {
            let publications = publications.into_iter().enumerate();
            return publications
                .map(|(number, publication)| Publication {
                    delivery_id: Some(format!("{name}:{offset}:{number}").into()),
                    ..publication
                })
                .collect();
        }
        Outcome::Parked(publication, error) => {
            warn!(router = name, %topic, %offset, %error, to = %masked(publication.topic.as_str()), "parked");
            state.metrics.parked(name);
            return vec![Publication {
                delivery_id: Some(format!("{name}:{offset}:parked").into()),
                ..*publication
            }];
        }
        Outcome::Refused(error) => {
            warn!(router = name, %topic, %offset, %error, "not routed");
            state.metrics.not_routed(name);
        }
        Outcome::NotMatched(why) => trace!(router = name, %topic, %offset, %why, "not routed"),
    }
    Vec::new()
}

/// Asks the router. A large message is looked at where nobody waits for anything else, and few at
/// once: taken apart, it is several times as large.
async fn outcome(router: &Arc<dyn Router>, message: &Arc<Message>) -> Outcome {
    if message.publication.body.len() <= LARGE {
        return survive(&**router, message);
    }
    let _place = LARGE_ONES.acquire().await;
    let (asked, about) = (router.clone(), message.clone());
    let outcome = spawn_blocking(move || survive(&*asked, &about)).await;
    // It does not panic; without an answer, the program ends.
    outcome.unwrap_or(Outcome::Refused(RouteError::Panicked))
}

/// Asks the router, and survives it: no message may stop the broker.
fn survive(router: &dyn Router, message: &Message) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| router.route(message)))
        .unwrap_or_else(|_| router.parked(message, RouteError::Panicked))
}

/// From so many bytes on, a body is large.
const LARGE: usize = 64 << 10;

/// How many large messages are looked at at once.
static LARGE_ONES: Semaphore = Semaphore::const_new(2);

/// Publishes these in order, as soon as there is room for them. Fails, with the message of the
/// first that is not published, when there is no point in going on.
async fn publish(
    state: &State,
    name: &str,
    outgoing: &[Outgoing],
    stop: &CancellationToken,
) -> Result<(), Offset> {
    let mut left = outgoing;
    while !left.is_empty() {
        let publications = left.iter().map(|one| one.publication.clone()).collect();
        let answers = state
            .broker
            .publish_all_once(publications, REMEMBERED)
            .await;
        for answer in answers {
            let [
                Outgoing {
                    from,
                    of,
                    publication,
                },
                rest @ ..,
            ] = left
            else {
                break;
            };
            let to = &publication.topic;
            match answer {
                // What is parked has been counted and logged as that.
                Ok(appended) if appended.is_duplicate || to.is_brokers_own() => {}
                Ok(_) => {
                    info!(router = name, %from, %to, "routed");
                    state.metrics.routed(name);
                }
                Err(error @ AppendError::TooLarge { .. }) => {
                    error!(router = name, %from, %to, %error, "not published");
                }
                Err(error @ AppendError::Full) => {
                    warn!(router = name, %from, %to, %error, "trying again in {PAUSE:?}");
                    tokio::select! {
                        () = sleep(PAUSE) => {}
                        () = state.last_call.cancelled() => return Err(*of),
                        () = stop.cancelled() => return Err(*of),
                    }
                    // What was taken behind it is found there.
                    break;
                }
                Err(error) => {
                    error!(router = name, %from, %to, %error, "nothing is routed any more");
                    return Err(*of);
                }
            }
            left = rest;
        }
    }
    Ok(())
}

/// How often a place is kept.
const PERIOD: Duration = Duration::from_secs(2);

/// How long to wait for room.
const PAUSE: Duration = Duration::from_secs(1);

/// For how long it is known what was routed, if the log goes back so far.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

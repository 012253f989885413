//! What reads with one filter, for all routers that do.
//!
//! A message is read and looked at once, and each router is asked about it in turn: a hundred of
//! which most have nothing to say cost little more than their answers. Each has a place of its
//! own all the same. One that is far from the others, or takes long while they have more to read,
//! does not hold them up: it reads alone, until routers are exchanged or the server starts again.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use hookbot_broker::{Missing, Start, Subscription};
use hookbot_protocol::{Cursor, Filter, Message, Offset};
use hookbot_routers::Router;
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::State;
use super::place::{self, Place, file_name};
use super::round::{Look, Round};

/// Routers that read with one filter, at work.
pub(super) struct Reading {
    filter: Filter,
    routers: Vec<Arc<dyn Router>>,
    stop: CancellationToken,
    task: JoinHandle<Vec<Member>>,
}

impl Reading {
    /// Starts these routers, at one of these places where that is a router's own. What is published
    /// once this returns is routed.
    pub(super) async fn start(
        state: &Arc<State>,
        (filter, routers): (Filter, Vec<Arc<dyn Router>>),
        places: &mut Vec<Member>,
    ) -> Self {
        let mut members = Vec::new();
        for router in &routers {
            let file = file_name(router.name(), &filter);
            let known = places.iter().position(|member| member.place.name == file);
            members.push(match known {
                Some(known) => Member {
                    router: router.clone(),
                    ..places.swap_remove(known)
                },
                None => Member::new(state, router.clone(), &filter).await,
            });
        }
        let stop = CancellationToken::new();
        let reading = read(state.clone(), filter.clone(), members, stop.clone());
        Self {
            task: state.routing.spawn(reading),
            filter,
            routers,
            stop,
        }
    }

    /// Whether it is these routers and this filter.
    pub(super) fn is(&self, (filter, routers): &(Filter, Vec<Arc<dyn Router>>)) -> bool {
        let is_one = |(own, other)| Arc::ptr_eq(own, other);
        self.filter == *filter
            && self.routers.len() == routers.len()
            && self.routers.iter().zip(routers).all(is_one)
    }

    /// Ends it behind the message at hand, and tells how far everybody has got.
    pub(super) async fn stop(self) -> Vec<Member> {
        self.stop.cancel();
        // If it panicked, the places are those on disk.
        self.task.await.unwrap_or_default()
    }
}

/// A router at one of the filters that it reads with.
pub(super) struct Member {
    router: Arc<dyn Router>,
    place: Place,
    /// Everything up to here is dealt with.
    done: Offset,
    asked: u32,
    /// What its answers have taken.
    took: Duration,
}

impl Member {
    /// At the place where the router was, or behind what is published by now if it has never been
    /// anywhere.
    async fn new(state: &State, router: Arc<dyn Router>, filter: &Filter) -> Self {
        let name = router.name();
        info!(router = name, %filter, "routing");
        let (epoch, next) = (state.broker.epoch(), state.broker.bounds().next);
        let now = Cursor {
            epoch,
            offset: next.before(),
        };
        let mut place = Place::of(state, file_name(name, filter));
        let done = match place.load() {
            Ok(Some(cursor)) if cursor.epoch == epoch && cursor.offset < next => cursor.offset,
            Ok(None) => {
                place::keep(vec![(&mut place, now)]).await;
                now.offset
            }
            Ok(Some(cursor)) => {
                warn!(router = name, %filter, %cursor, "its place is not in this log, so it begins with the oldest");
                Offset::default()
            }
            Err(error) => {
                warn!(router = name, %filter, %error, "its place is lost, so it begins with the oldest");
                Offset::default()
            }
        };
        Self {
            router,
            place,
            done,
            asked: 0,
            took: Duration::ZERO,
        }
    }

    /// Whether others had better not wait for its answers. Asks about those since it was last asked.
    fn is_slow(&mut self) -> bool {
        let (asked, took) = (self.asked, self.took);
        (self.asked, self.took) = (0, Duration::ZERO);
        took > SLOW * asked
    }
}

/// Reads for these until they are stopped or the server drains. Returns how far they have got.
async fn read(
    state: Arc<State>,
    filter: Filter,
    members: Vec<Member>,
    stop: CancellationToken,
) -> Vec<Member> {
    let mut groups = JoinSet::new();
    let follow = |group| follow(state.clone(), filter.clone(), group, stop.clone());
    for group in together(members) {
        groups.spawn(follow(group));
    }
    let mut ended = Vec::new();
    while let Some(group) = groups.join_next().await {
        let (members, slow) = group.unwrap_or_default();
        if slow.is_empty() {
            ended.extend(members);
            continue;
        }
        let alone = slow.into_iter().map(|member| vec![member]);
        for group in alone.chain([members]).filter(|group| !group.is_empty()) {
            groups.spawn(follow(group));
        }
    }
    if !stop.is_cancelled() {
        place::keep(places(&state, &mut ended)).await;
    }
    ended
}

/// Those whose places are so near that they can as well read what lies between.
fn together(mut members: Vec<Member>) -> Vec<Vec<Member>> {
    members.sort_by_key(|member| member.done);
    let mut groups: Vec<Vec<Member>> = Vec::new();
    for member in members {
        match groups.last_mut() {
            Some(group) if member.done.0 - group[0].done.0 <= NEAR => group.push(member),
            _ => groups.push(vec![member]),
        }
    }
    groups
}

/// Where each of these is, with its place.
pub(super) fn places<'a>(state: &State, members: &'a mut [Member]) -> Vec<(&'a mut Place, Cursor)> {
    let epoch = state.broker.epoch();
    let place = |member: &'a mut Member| {
        let offset = member.done;
        (&mut member.place, Cursor { epoch, offset })
    };
    members.iter_mut().map(place).collect()
}

/// Asks these about one message after the other. Returns them when they are done, or without those
/// that are too slow for the others, and these.
async fn follow(
    state: Arc<State>,
    filter: Filter,
    mut members: Vec<Member>,
    stop: CancellationToken,
) -> (Vec<Member>, Vec<Member>) {
    let Some(mut subscription) = subscribe(&state, &filter, &members).await else {
        return (members, Vec::new());
    };
    let mut now_and_then = interval(PERIOD);
    now_and_then.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut keeping: Option<JoinHandle<()>> = None;
    let slow = loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            _ = now_and_then.tick() => {
                note(&mut members, handed_out(&subscription));
                if keeping.as_ref().is_none_or(JoinHandle::is_finished) {
                    keeping = Some(place::begin_to_keep(places(&state, &mut members)));
                }
                let is_behind = !subscription.is_caught_up() && members.len() > 1;
                let is_slow = |one: &mut Member| one.is_slow() && is_behind;
                let slow: Vec<_> = members.extract_if(.., is_slow).collect();
                for Member { router, .. } in &slow {
                    warn!(router = router.name(), %filter, "it is slow, and reads on its own");
                }
                if slow.is_empty() {
                    continue;
                }
                break slow;
            }
            next = next(&state, &mut subscription) => next,
        };
        let Some(next) = next else {
            note(&mut members, handed_out(&subscription));
            break Vec::new();
        };
        // The first one that asks for a body waits for it to be parsed.
        members.rotate_left(1);
        let asked = Asked::new(&state, &mut members, &mut subscription, next, &stop).await;
        let published = asked.round.publish(&state, &stop).await;
        let done = match published {
            Ok(()) => asked.upto,
            // All that was before it.
            Err(of) => Some(of.before()),
        };
        note(&mut members, done);
        if published.is_err() || asked.is_last {
            break Vec::new();
        }
    };
    if let Some(keeping) = keeping {
        // Whoever goes on from here must not be overtaken by what was kept before.
        let _ = keeping.await;
    }
    (members, slow)
}

/// Begins behind what all of these have dealt with.
async fn subscribe(state: &State, filter: &Filter, members: &[Member]) -> Option<Subscription> {
    let cursor = Cursor {
        epoch: state.broker.epoch(),
        offset: members.iter().map(|member| member.done).min()?,
    };
    match state
        .broker
        .resume(filter.clone(), Start::After(cursor))
        .await
    {
        Ok((subscription, gap)) => {
            let first = subscription.next_offset();
            for one in members.iter().filter(|one| one.done.next() < first) {
                warn!(router = one.router.name(), %filter, reason = ?gap, "messages may be missing that it has not routed");
            }
            Some(subscription)
        }
        Err(error) => {
            error!(%filter, %error, "nothing is routed");
            None
        }
    }
}

/// Up to where everything has been handed out, if nothing is left.
fn handed_out(subscription: &Subscription) -> Option<Offset> {
    subscription.place().map(|cursor| cursor.offset)
}

/// Notes that everything up to there is dealt with.
fn note(members: &mut [Member], upto: Option<Offset>) {
    for member in members {
        member.done = member.done.max(upto.unwrap_or_default());
    }
}

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

/// What is to be published because of a few messages.
#[derive(Default)]
struct Asked {
    round: Round,
    /// The last of them.
    upto: Option<Offset>,
    /// Whether nothing can come behind it.
    is_last: bool,
}

impl Asked {
    /// Asks about this message and those that are there already.
    async fn new(
        state: &State,
        members: &mut [Member],
        subscription: &mut Subscription,
        first: Result<Arc<Message>, Missing>,
        stop: &CancellationToken,
    ) -> Self {
        let mut asked = Self::default();
        let began = Instant::now();
        let mut next = Some(first);
        while let Some(given) = next {
            match given {
                Ok(message) => {
                    asked.upto = Some(message.offset);
                    ask(state, members, message, &mut asked.round).await;
                }
                Err(missing @ Missing::Gap { oldest, .. }) => {
                    for one in members.iter().filter(|one| one.done.next() < oldest) {
                        warn!(router = one.router.name(), %missing, "a router was too slow");
                    }
                }
                Err(missing) => {
                    for Member { router, .. } in members {
                        error!(router = router.name(), %missing, "nothing is routed any more");
                    }
                    asked.is_last = true;
                    break;
                }
            }
            // Others want the thread, too.
            yield_now().await;
            if asked.round.is_full() || began.elapsed() > PERIOD || stop.is_cancelled() {
                break;
            }
            next = subscription.next().now_or_never();
        }
        asked
    }
}

/// Asks everybody about a message who has not dealt with it.
async fn ask(state: &State, members: &mut [Member], message: Arc<Message>, round: &mut Round) {
    let offset = message.offset;
    let look = Look::at(message).await;
    let mut since = Instant::now();
    for member in members.iter_mut().filter(|member| member.done < offset) {
        round.ask(state, &member.router, &look).await;
        let now = Instant::now();
        let took = now - since;
        since = now;
        member.asked += 1;
        member.took += took;
        if took > SLOW {
            yield_now().await;
            since = Instant::now();
        }
    }
}

/// How often places are kept.
const PERIOD: Duration = Duration::from_secs(2);

/// Who takes longer than this for a message does not hold up others that have more to read.
const SLOW: Duration = Duration::from_millis(1);

/// How many messages of the log may lie between the places of those who read together.
const NEAR: u64 = 1_000;

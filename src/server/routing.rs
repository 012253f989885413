//! Routers in the server's own process: they subscribe, decide, and publish again.
//!
//! A router's place is kept in the data folder, so what was acknowledged while it was not running
//! is routed later. It is kept now and then, not at each message: what is routed a second time
//! after a crash is known by its delivery id, and is not published again.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hookbot_broker::{Missing, Start, Subscription};
use hookbot_log::{AppendError, ReadError};
use hookbot_protocol::{Cursor, Filter, Message, Publication};
use hookbot_routers::Router;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{error, info, warn};

use super::State;
use crate::state_file::StateFile;

/// Runs a router until the server drains. What is published once this returns is routed.
pub(super) async fn start(state: &Arc<State>, router: &Arc<dyn Router>) {
    let name = router.name();
    for filter in router.topics() {
        let mut place = Place::of(state, name, &filter);
        match subscribe(state, name, &filter, &mut place).await {
            Ok(subscription) => {
                info!(router = name, %filter, "routing");
                let run = run(state.clone(), router.clone(), subscription, place);
                state.routing.spawn(run);
            }
            Err(error) => error!(router = name, %filter, %error, "nothing is routed"),
        }
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

async fn run(
    state: Arc<State>,
    router: Arc<dyn Router>,
    mut subscription: Subscription,
    mut place: Place,
) {
    let name = router.name();
    let mut now_and_then = interval(PERIOD);
    now_and_then.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut done = None;
    loop {
        let next = tokio::select! {
            next = next(&state, &mut subscription) => next,
            _ = now_and_then.tick() => {
                // If there is one, everything up to it is done.
                place.keep(subscription.place().or(done)).await;
                continue;
            }
        };
        let message = match next {
            None => break place.keep(subscription.place().or(done)).await,
            Some(Ok(message)) => message,
            Some(Err(missing @ Missing::Gap { .. })) => {
                warn!(router = name, %missing, "a router was too slow");
                continue;
            }
            Some(Err(missing)) => {
                error!(router = name, %missing, "nothing is routed any more");
                break place.keep(done).await;
            }
        };
        for (number, publication) in route(&*router, &message).into_iter().enumerate() {
            let id = format!("{name}:{}:{number}", message.offset);
            let publication = Publication {
                delivery_id: Some(id.into()),
                ..publication
            };
            if !publish(&state, name, &message, publication).await {
                return place.keep(done).await;
            }
        }
        done = Some(Cursor {
            epoch: state.broker.epoch(),
            offset: message.offset,
        });
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

/// Asks the router, and survives it: no message may stop the broker.
fn route(router: &dyn Router, message: &Message) -> Vec<Publication> {
    let (name, topic, offset) = (router.name(), message.topic(), message.offset);
    match catch_unwind(AssertUnwindSafe(|| router.route(message))) {
        Ok(Ok(publications)) => publications,
        Ok(Err(error)) => {
            warn!(router = name, %topic, %offset, %error, "not routed");
            Vec::new()
        }
        Err(_) => {
            error!(router = name, %topic, %offset, "the router panicked");
            Vec::new()
        }
    }
}

/// Publishes what a router made of `message`, as soon as there is room for it. Says whether
/// there is a point in going on.
async fn publish(state: &State, name: &str, message: &Message, publication: Publication) -> bool {
    let (from, to) = (message.topic(), publication.topic.clone());
    loop {
        let publication = publication.clone();
        match state.broker.publish_once(publication, REMEMBERED).await {
            Ok(appended) if appended.is_duplicate => return true,
            Ok(_) => {
                info!(router = name, %from, %to, "routed");
                return true;
            }
            Err(error @ AppendError::TooLarge { .. }) => {
                error!(router = name, %from, %to, %error, "not published");
                return true;
            }
            Err(error @ AppendError::Full) => {
                warn!(router = name, %from, %to, %error, "trying again in {PAUSE:?}");
                tokio::select! {
                    () = sleep(PAUSE) => {}
                    () = state.last_call.cancelled() => return false,
                }
            }
            Err(error) => {
                error!(router = name, %from, %to, %error, "nothing is routed any more");
                return false;
            }
        }
    }
}

/// How far a router has got, on disk if the log is.
struct Place {
    file: Option<StateFile>,
    kept: Option<Cursor>,
}

impl Place {
    fn of(state: &State, name: &str, filter: &Filter) -> Self {
        let filter = utf8_percent_encode(filter.as_str(), NON_ALPHANUMERIC);
        let file = format!("router-{name}-{filter}");
        let folder = state.settings.data_dir.as_deref();
        Self {
            file: folder.map(|folder| StateFile::new(&folder.join(file))),
            kept: None,
        }
    }

    fn load(&mut self) -> anyhow::Result<Option<Cursor>> {
        let text = self.file.as_ref().map(StateFile::load).transpose()?;
        self.kept = text.flatten().map(|text| text.parse()).transpose()?;
        Ok(self.kept)
    }

    /// Keeps a place that is not the one kept last.
    async fn keep(&mut self, place: Option<Cursor>) {
        let (Some(file), Some(cursor)) = (&self.file, place) else {
            return;
        };
        if self.kept == place {
            return;
        }
        let file = file.clone();
        let stored = spawn_blocking(move || file.store(&cursor.to_string()));
        match stored.await {
            Ok(Ok(())) => self.kept = place,
            Ok(Err(error)) => warn!("a router's place is not kept: {error:#}"),
            // The program ends.
            Err(_) => {}
        }
    }
}

/// How often a place is kept.
const PERIOD: Duration = Duration::from_secs(2);

/// How long to wait for room.
const PAUSE: Duration = Duration::from_secs(1);

/// For how long it is known what was routed, if the log goes back so far.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

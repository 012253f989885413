//! What becomes of a few messages, published together: a sync of the disk is then for all of them.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use hookbot_log::AppendError;
use hookbot_protocol::{Message, Offset, Publication, Topic};
use hookbot_routers::{Outcome, RouteError, Router, View};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, trace, warn};

use super::State;
use super::channels::masked;

/// What routers have to publish, in order.
#[derive(Default)]
pub(super) struct Round {
    outgoing: Vec<Outgoing>,
    bytes: usize,
}

/// What a router has to publish because of the message at an offset.
struct Outgoing {
    router: Arc<dyn Router>,
    from: Topic,
    of: Offset,
    publication: Publication,
}

/// A message, with what routers find out about it.
pub(super) struct Look {
    message: Arc<Message>,
    view: Arc<View>,
    /// Where it is large.
    _place: Option<SemaphorePermit<'static>>,
}

impl Look {
    /// Looks at a message; at few large ones at once, as they are several times as large when they
    /// have been taken apart.
    pub(super) async fn at(message: Arc<Message>) -> Self {
        let place = match is_large(&message) {
            // Nobody closes it.
            true => LARGE_ONES.acquire().await.ok(),
            false => None,
        };
        Self {
            view: View::new(&message),
            message,
            _place: place,
        }
    }

    /// Asks a router. Where the message is large, nobody else waits for the thread.
    async fn ask(&self, router: &Arc<dyn Router>) -> Outcome {
        let Self { message, view, .. } = self;
        if !is_large(message) {
            return survive(&**router, message, view);
        }
        let (asked, about, view) = (router.clone(), message.clone(), view.clone());
        let outcome = spawn_blocking(move || survive(&*asked, &about, &view)).await;
        // It does not panic; without an answer, the program ends.
        outcome.unwrap_or(Outcome::Refused(RouteError::Panicked))
    }
}

fn is_large(message: &Message) -> bool {
    message.publication.body.len() > LARGE
}

/// Asks the router, and survives it: no message may stop the broker.
fn survive(router: &dyn Router, message: &Message, view: &Arc<View>) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| router.route_shared(message, view)))
        .unwrap_or_else(|_| router.parked(message, RouteError::Panicked))
}

impl Round {
    /// Asks the router what to publish because of a message, each with an id of its own.
    pub(super) async fn ask(&mut self, state: &State, router: &Arc<dyn Router>, look: &Look) {
        let message = &look.message;
        let (name, offset) = (router.name(), message.offset);
        let topic = || masked(message.topic().as_str());
        match look.ask(router).await {
            Outcome::Published(publications) => {
                for (number, publication) in publications.into_iter().enumerate() {
                    self.add(router, message, &number, publication);
                }
            }
            Outcome::Parked(publication, error) => {
                warn!(router = name, topic = %topic(), %offset, %error, to = %masked(publication.topic.as_str()), "parked");
                state.metrics.parked(name);
                self.add(router, message, &"parked", *publication);
            }
            Outcome::Refused(error) => {
                warn!(router = name, topic = %topic(), %offset, %error, "not routed");
                state.metrics.not_routed(name);
            }
            Outcome::NotMatched(why) => {
                trace!(router = name, topic = %topic(), %offset, %why, "not routed");
            }
        }
    }

    fn add(
        &mut self,
        router: &Arc<dyn Router>,
        message: &Message,
        number: &dyn Display,
        publication: Publication,
    ) {
        self.bytes += publication.body.len();
        let delivery_id = format!("{}:{}:{number}", router.name(), message.offset);
        self.outgoing.push(Outgoing {
            router: router.clone(),
            from: message.topic().clone(),
            of: message.offset,
            publication: Publication {
                delivery_id: Some(delivery_id.into()),
                ..publication
            },
        });
    }

    /// Whether it is to be published: at little at once, as routers don't hold up those who publish.
    pub(super) fn is_full(&self) -> bool {
        self.outgoing.len() >= FULL || self.bytes >= FULL_BYTES
    }

    /// Publishes it, as soon as there is room for it. Fails, with the message of the first that is
    /// not published, when there is no point in going on.
    pub(super) async fn publish(
        &self,
        state: &State,
        stop: &CancellationToken,
    ) -> Result<(), Offset> {
        let mut left = &*self.outgoing;
        while !left.is_empty() {
            let part = &left[..left.len().min(FULL)];
            let publications = part.iter().map(|one| one.publication.clone()).collect();
            let answers = state
                .broker
                .publish_all_once(publications, REMEMBERED)
                .await;
            for answer in answers {
                let [
                    Outgoing {
                        router,
                        from,
                        of,
                        publication,
                    },
                    rest @ ..,
                ] = left
                else {
                    break;
                };
                let (name, to) = (router.name(), &publication.topic);
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
}

/// How much is published at once, but for what one message makes.
const FULL: usize = 64;
const FULL_BYTES: usize = 1 << 20;

/// From so many bytes on, a body is large.
const LARGE: usize = 64 << 10;

/// How many large messages are looked at at once.
static LARGE_ONES: Semaphore = Semaphore::const_new(2);

/// How long to wait for room.
const PAUSE: Duration = Duration::from_secs(1);

/// For how long it is known what was routed, if the log goes back so far.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

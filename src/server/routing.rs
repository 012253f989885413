//! Routers in the server's own process: they subscribe, decide, and publish again.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;

use hookbot_broker::{Missing, Subscription};
use hookbot_protocol::{Message, Publication};
use hookbot_routers::Router;
use tracing::{error, info, warn};

use super::State;

/// Runs a router until the server drains.
pub(super) fn start(state: &Arc<State>, router: &Arc<dyn Router>) {
    for filter in router.topics() {
        info!(router = router.name(), %filter, "routing");
        let subscription = state.broker.subscribe(filter);
        state
            .routing
            .spawn(run(state.clone(), router.clone(), subscription));
    }
}

async fn run(state: Arc<State>, router: Arc<dyn Router>, mut subscription: Subscription) {
    let name = router.name();
    while let Some(next) = next(&state, &mut subscription).await {
        let message = match next {
            Ok(message) => message,
            Err(missing @ Missing::Gap { .. }) => {
                warn!(router = name, %missing, "a router was too slow");
                continue;
            }
            Err(missing) => return error!(router = name, %missing, "nothing is routed any more"),
        };
        for publication in route(&*router, &message) {
            let topic = publication.topic.clone();
            match state.broker.publish(publication).await {
                Ok(_) => info!(router = name, from = %message.topic(), to = %topic, "routed"),
                Err(error) => error!(router = name, %topic, %error, "not published"),
            }
        }
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

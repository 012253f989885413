//! Routers in the server's own process: they subscribe, decide, and publish again.
//!
//! A router's place is kept in the data folder, so what was acknowledged while it was not running
//! is routed later. It is kept now and then, not at each message: what is routed a second time
//! after a crash is known by its delivery id, and is not published again. The place belongs to a
//! router's name and filter; whoever comes with both goes on there.

use std::sync::Arc;

use hookbot_protocol::Filter;
use hookbot_routers::Router;
use tokio::sync::Mutex;

use super::State;
use super::place;
use super::reading::{Reading, places};

/// The routers that can be exchanged while the server runs.
pub struct Routing {
    state: Arc<State>,
    readings: Mutex<Vec<Reading>>,
}

impl Routing {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self {
            state,
            readings: Mutex::default(),
        }
    }

    /// Runs these routers and no others of those it was told before. One that stays goes on at its
    /// place, and so does one that reads with the name and the filter of another. What is published
    /// once this returns is routed. A server that stops stays as it is.
    pub async fn replace(&self, routers: Vec<Arc<dyn Router>>) {
        let mut readings = self.readings.lock().await;
        if self.state.stop.is_cancelled() {
            return;
        }
        let mut wanted = by_filter(&routers);
        let mut members = Vec::new();
        for reading in readings.extract_if(.., |one| !wanted.iter().any(|wanted| one.is(wanted))) {
            members.extend(reading.stop().await);
        }
        wanted.retain(|wanted| !readings.iter().any(|one| one.is(wanted)));
        for wanted in wanted {
            readings.push(Reading::start(&self.state, wanted, &mut members).await);
        }
        // Those that are gone may come again.
        place::keep(places(&self.state, &mut members)).await;
    }
}

/// Runs a router until the server drains.
pub(super) async fn run(state: &Arc<State>, router: Arc<dyn Router>) {
    for wanted in by_filter(&[router]) {
        // It is never stopped alone, so nobody has to hold it.
        drop(Reading::start(state, wanted, &mut Vec::new()).await);
    }
}

/// Who reads with each filter.
fn by_filter(routers: &[Arc<dyn Router>]) -> Vec<(Filter, Vec<Arc<dyn Router>>)> {
    let mut all: Vec<(Filter, Vec<Arc<dyn Router>>)> = Vec::new();
    for router in routers {
        for filter in router.topics() {
            let known = all.iter_mut().find(|(known, _)| *known == filter);
            match known {
                // A router may name a filter twice.
                Some((_, readers)) if readers.iter().any(|one| Arc::ptr_eq(one, router)) => {}
                Some((_, readers)) => readers.push(router.clone()),
                None => all.push((filter, vec![router.clone()])),
            }
        }
    }
    all
}

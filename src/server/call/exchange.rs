//! Who is connected to answer, and for what.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hookbot_protocol::{Call, Filter};
use hookbot_tunnel::Line;

use super::upload::Upload;

/// All responders, by what they answer for: a topic, which stands for everything below it.
#[derive(Default)]
pub(in crate::server) struct Exchange(RwLock<HashMap<String, Vec<Arc<Desk>>>>);

/// One responder.
pub(super) struct Desk {
    line: Line<Upload>,
    /// Calls that it has at the moment.
    busy: AtomicUsize,
}

/// Why nobody can take a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nobody {
    /// Nobody is there.
    Connected,
    /// Those who are there have as many calls as they take.
    Free,
}

impl Exchange {
    /// Lets a responder take calls, until what is returned is dropped.
    pub(super) fn join(self: &Arc<Self>, filter: &Filter, line: Line<Upload>) -> Presence {
        let topic = filter.as_str().trim_end_matches('/').to_owned();
        let desk = Arc::new(Desk {
            line,
            busy: AtomicUsize::new(0),
        });
        let mut desks = self.write();
        desks.entry(topic.clone()).or_default().push(desk.clone());
        Presence {
            exchange: self.clone(),
            topic,
            desk,
        }
    }

    /// A place at whoever has fewest calls of those at the longest prefix, with the rest of the
    /// path as it was sent.
    pub(super) fn find<'a>(&self, call: &'a Call) -> Result<(Place, &'a str), Nobody> {
        let desks = self.read();
        for (topic, rest) in call.candidates() {
            let all = desks.get(topic).into_iter().flatten();
            let mut open: Vec<_> = all.filter(|desk| !desk.line.is_closed()).collect();
            if open.is_empty() {
                continue;
            }
            open.sort_by_key(|desk| desk.busy.load(Ordering::Relaxed));
            let place = open.into_iter().find_map(Place::take);
            return place.map(|place| (place, rest)).ok_or(Nobody::Free);
        }
        Err(Nobody::Connected)
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<String, Vec<Arc<Desk>>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, Vec<Arc<Desk>>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A responder that takes calls as long as this lives.
pub(super) struct Presence {
    exchange: Arc<Exchange>,
    topic: String,
    desk: Arc<Desk>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut desks = self.exchange.write();
        if let Some(all) = desks.get_mut(&self.topic) {
            all.retain(|desk| !Arc::ptr_eq(desk, &self.desk));
            if all.is_empty() {
                desks.remove(&self.topic);
            }
        }
    }
}

/// One of the calls that a responder takes at a time.
pub(super) struct Place(Arc<Desk>);

impl Place {
    fn take(desk: &Arc<Desk>) -> Option<Self> {
        let most = desk.line.max_calls();
        let one_more = |busy| (busy < most).then_some(busy + 1);
        let taken = desk
            .busy
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        taken.is_ok().then(|| Self(desk.clone()))
    }

    pub(super) fn line(&self) -> &Line<Upload> {
        &self.0.line
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

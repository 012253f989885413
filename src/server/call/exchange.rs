//! Who is connected to answer, and for what.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hookbot_protocol::{Call, Filter};
use hookbot_tunnel::Line;
use tokio::sync::Notify;

use super::upload::Upload;

/// All responders, by what they answer for: a topic, which stands for everything below it.
#[derive(Default)]
pub(in crate::server) struct Exchange {
    topics: RwLock<HashMap<String, Topic>>,
    /// Somebody who was expected is there, or will not come.
    changed: Notify,
}

/// Who answers for a topic.
#[derive(Default)]
struct Topic {
    desks: Vec<Arc<Desk>>,
    /// How many have been told that they may answer, and have not begun.
    expected: usize,
}

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
    /// Nobody is there yet, but somebody thinks so.
    Begun,
    /// Those who are there have as many calls as they take.
    Free,
}

impl Exchange {
    /// Has calls wait for a responder that is being told that it may answer, until what is returned
    /// is dropped.
    pub(super) fn expect(self: &Arc<Self>, filter: &Filter) -> Presence {
        let topic = filter.as_str().trim_end_matches('/').to_owned();
        self.write().entry(topic.clone()).or_default().expected += 1;
        Presence {
            exchange: self.clone(),
            topic,
            desk: None,
        }
    }

    /// A place at whoever has fewest calls of those at the longest prefix, with the rest of the
    /// path as it was sent.
    pub(super) fn find<'a>(&self, call: &'a Call) -> Result<(Place, &'a str), Nobody> {
        let topics = self.read();
        for (topic, rest) in call.candidates() {
            let Some(topic) = topics.get(topic) else {
                continue;
            };
            let all = topic.desks.iter().map(|desk| (desk, desk.line.max_calls()));
            // One that leaves takes none any more.
            let mut open: Vec<_> = all
                .filter(|(desk, most)| *most > 0 && !desk.line.is_closed())
                .collect();
            if open.is_empty() {
                match topic.expected {
                    0 => continue,
                    _ => return Err(Nobody::Begun),
                }
            }
            open.sort_by_key(|(desk, _)| desk.busy.load(Ordering::Relaxed));
            let mut open = open.into_iter();
            let place = open.find_map(|(desk, most)| Place::take(desk, most));
            return place.map(|place| (place, rest)).ok_or(Nobody::Free);
        }
        Err(Nobody::Connected)
    }

    /// As [`Exchange::find`], once nobody is expected any more who might be the one.
    pub(super) async fn wait<'a>(&self, call: &'a Call) -> Result<(Place, &'a str), Nobody> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on nothing is missed.
            changed.as_mut().enable();
            match self.find(call) {
                Err(Nobody::Begun) => changed.await,
                found => return found,
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<String, Topic>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, Topic>> {
        self.topics.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A responder that is expected, or takes calls, as long as this lives.
pub(super) struct Presence {
    exchange: Arc<Exchange>,
    topic: String,
    desk: Option<Arc<Desk>>,
}

impl Presence {
    /// Has calls go to the responder.
    pub(super) fn begin(&mut self, line: Line<Upload>) {
        let desk = Arc::new(Desk {
            line,
            busy: AtomicUsize::new(0),
        });
        if let Some(topic) = self.exchange.write().get_mut(&self.topic) {
            topic.expected -= 1;
            topic.desks.push(desk.clone());
        }
        self.desk = Some(desk);
        self.exchange.changed.notify_waiters();
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut topics = self.exchange.write();
        if let Some(topic) = topics.get_mut(&self.topic) {
            match &self.desk {
                Some(own) => topic.desks.retain(|desk| !Arc::ptr_eq(desk, own)),
                None => topic.expected -= 1,
            }
            if topic.desks.is_empty() && topic.expected == 0 {
                topics.remove(&self.topic);
            }
        }
        drop(topics);
        self.exchange.changed.notify_waiters();
    }
}

/// One of the calls that a responder takes at a time.
pub(super) struct Place(Arc<Desk>);

impl Place {
    fn take(desk: &Arc<Desk>, most: usize) -> Option<Self> {
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

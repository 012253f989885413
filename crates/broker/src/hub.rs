//! Who wants what: the queues of all subscriptions, filed by filter.
//!
//! A topic has few ancestors, so finding the subscriptions for a message is a handful of
//! look-ups, however many subscribers there are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hookbot_protocol::{Filter, Message};

use crate::queue::Queue;

#[derive(Default)]
pub(crate) struct Hub(Mutex<Filed>);

/// By [`Filter::as_str`]. A list is copied only when it changes while it is being delivered to.
type Filed = HashMap<Box<str>, Arc<Vec<Arc<Queue>>>>;

impl Hub {
    /// Files a queue that from now on is offered what `filter` matches.
    pub(crate) fn add(&self, filter: &Filter, queue: Queue) -> Arc<Queue> {
        let queue = Arc::new(queue);
        let mut filed = self.filed();
        let queues = filed.entry(filter.as_str().into()).or_default();
        Arc::make_mut(queues).push(queue.clone());
        queue
    }

    /// Forgets a queue.
    pub(crate) fn remove(&self, filter: &Filter, queue: &Arc<Queue>) {
        let mut filed = self.filed();
        let Some(queues) = filed.get_mut(filter.as_str()) else {
            return;
        };
        if let Some(at) = queues.iter().position(|other| Arc::ptr_eq(other, queue)) {
            Arc::make_mut(queues).swap_remove(at);
        }
        if queues.is_empty() {
            filed.remove(filter.as_str());
        }
    }

    /// Offers a message to every queue it is for. No lock is held meanwhile.
    pub(crate) fn deliver(&self, message: &Arc<Message>) {
        let lists: Vec<_> = {
            let filed = self.filed();
            let topic = message.topic();
            std::iter::once(topic.as_str())
                .chain(topic.ancestors())
                .filter_map(|text| filed.get(text).cloned())
                .collect()
        };
        for queue in lists.iter().flat_map(|queues| queues.iter()) {
            queue.offer(message);
        }
    }

    fn filed(&self) -> MutexGuard<'_, Filed> {
        // No code that holds the lock can leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

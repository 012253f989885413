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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::{Context, Waker};
    use std::time::SystemTime;

    use allocation_counter::measure;
    use hookbot_protocol::{Offset, Publication, Topic};

    use super::*;
    use crate::queue::Taken;

    #[test]
    fn a_delivery_allocates_nothing() {
        let [few, many] = [10, 1_000].map(|subscribers| {
            let hub = Hub::default();
            let filter = Filter::parse("a/").unwrap();
            let queues: Vec<_> = (0..subscribers)
                .map(|_| hub.add(&filter, Queue::live()))
                .collect();
            let mut batch = VecDeque::new();
            let context = Context::from_waker(Waker::noop());
            let mut round = |offset| {
                let publication = Publication::new(Topic::parse("a/b").unwrap(), "body");
                let message = Message::new(publication, Offset(offset), SystemTime::now());
                let message = Arc::new(message);
                let counted = measure(|| {
                    hub.deliver(&message);
                    for queue in &queues {
                        let taken = queue.take(&mut batch, Offset(offset), &context);
                        assert!(matches!(taken, Taken::Messages));
                        batch.clear();
                        queue.take(&mut batch, Offset(offset), &context);
                    }
                });
                counted.count_total
            };
            // The first ones make room.
            round(1);
            round(2);
            round(3)
        });
        assert_eq!(few, many, "whoever else subscribes");
        assert!(few <= 1, "a list of lists for each message: {few}");
    }
}

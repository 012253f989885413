//! What is written at once: publications get their offsets, repeated deliveries are found.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hookbot_protocol::{Message, Offset, Publication};
use tokio::sync::oneshot;

use crate::record;
use crate::segment::{Space, hash_delivery};
use crate::store::Store;
use crate::{AppendError, Appended};

/// A publication on its way into the log.
pub(crate) struct Request {
    pub(crate) publication: Publication,
    /// Bytes on disk.
    pub(crate) size: usize,
    pub(crate) deduplicate: Option<Deduplicate>,
    pub(crate) publisher: Publisher,
}

/// Who waits for the answer.
pub(crate) type Publisher = oneshot::Sender<Result<Appended, AppendError>>;

/// What is known of earlier deliveries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deduplicate {
    pub(crate) hash: u64,
    pub(crate) window: Duration,
    /// Segments of the lane before this number don't have it.
    pub(crate) checked: u64,
}

/// Requests with their places.
pub(crate) struct Batch {
    pub(crate) pending: Vec<Pending>,
    /// Those that repeat a message, of this batch or of one before.
    pub(crate) repeats: Vec<(Publisher, Offset)>,
}

/// A message that is being written.
pub(crate) struct Pending {
    pub(crate) message: Arc<Message>,
    pub(crate) size: usize,
    pub(crate) delivery: Option<u64>,
    pub(crate) publisher: Publisher,
}

impl Batch {
    /// Gives each publication an offset, from `next` on, or finds the one that it repeats.
    pub(crate) fn new(store: &Store, requests: Vec<Request>, mut next: Offset, now: u64) -> Self {
        let mut pending: Vec<Pending> = Vec::with_capacity(requests.len());
        let mut repeats = Vec::new();
        let mut deliveries = HashMap::new();
        for request in requests {
            let publication = request.publication;
            let repeated = request.deduplicate.and_then(|of| {
                let here: Option<&usize> = deliveries.get(&of.hash);
                let here = here.map(|at| &pending[*at].message);
                let here = here.filter(|here| is_same(&here.publication, &publication));
                here.map(|here| here.offset)
                    .or_else(|| find(store, &publication, &of, now))
            });
            if let Some(offset) = repeated {
                repeats.push((request.publisher, offset));
                continue;
            }
            let delivery = publication.delivery_id.as_ref().map(|id| {
                let topic = publication.topic.as_str();
                hash_delivery(&store.meta, topic, id, &publication.body)
            });
            if let Some(delivery) = delivery {
                deliveries.insert(delivery, pending.len());
            }
            let message = Message::new(publication, next, record::system_time(now));
            next = next.next();
            pending.push(Pending {
                message: Arc::new(message),
                size: request.size,
                delivery,
                publisher: request.publisher,
            });
        }
        Self { pending, repeats }
    }

    /// Everybody who waits.
    pub(crate) fn into_publishers(self) -> impl Iterator<Item = Publisher> {
        let pending = self.pending.into_iter().map(|pending| pending.publisher);
        pending.chain(self.repeats.into_iter().map(|(publisher, _)| publisher))
    }
}

/// Looks for a delivery where its publisher could not, since it was not there yet.
fn find(store: &Store, publication: &Publication, of: &Deduplicate, now: u64) -> Option<Offset> {
    let since = since(now, of.window);
    let segments = store.lanes[Space::of(&publication.topic) as usize].segments();
    let mut unchecked = segments
        .iter()
        .rev()
        .take_while(|segment| segment.place().number >= of.checked);
    unchecked.find_map(|segment| store.find_delivery(segment, publication, of.hash, since))
}

/// The time before which a delivery is no repetition.
pub(crate) fn since(now: u64, window: Duration) -> u64 {
    let window = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
    now.saturating_sub(window).saturating_add(1)
}

/// Whether two publications are the same delivery.
pub(crate) fn is_same(one: &Publication, other: &Publication) -> bool {
    one.topic == other.topic && one.delivery_id == other.delivery_id && one.body == other.body
}

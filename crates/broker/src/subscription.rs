//! One subscriber's interest, and its place in the log.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use hookbot_log::{Limit, Page, ReadError};
use hookbot_protocol::event::{GapNotice, GapReason};
use hookbot_protocol::{Cursor, Epoch, Filter, Message, Offset};

use crate::Broker;
use crate::queue::{Queue, Taken, give_back};

/// What one subscriber gets: every message its filter matches, in log order, without a hole.
///
/// Dropping it unsubscribes.
pub struct Subscription {
    broker: Broker,
    filter: Filter,
    queue: Arc<Queue>,
    /// Everything before this has been handed out, or is not for this subscriber.
    pub(crate) next: Offset,
    /// Taken from the queue or from the log, not handed out yet.
    batch: VecDeque<Arc<Message>>,
    /// A read of the log that has not answered yet.
    reading: Option<Reading>,
    /// Reads the log rather than being handed messages.
    is_behind: bool,
}

type Reading = Pin<Box<dyn Future<Output = Result<Page, ReadError>> + Send>>;

impl Subscription {
    pub(crate) fn new(broker: Broker, filter: Filter, queue: Arc<Queue>, next: Offset) -> Self {
        Self {
            broker,
            filter,
            queue,
            next,
            batch: VecDeque::new(),
            reading: None,
            is_behind: false,
        }
    }

    /// The oldest message that this subscription may still get, or the end.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    /// The place to resume from, if everything up to it has been handed out and it is not only
    /// the last message's: what an idle subscriber is told now and then.
    #[must_use]
    pub fn place(&self) -> Option<Cursor> {
        // In this order: what was handed to the queues before is then seen in this one.
        let upto = *self.broker.0.fanned_out.borrow();
        self.is_caught_up().then(|| Cursor {
            epoch: self.broker.epoch(),
            offset: Offset(self.next.max(upto).0.saturating_sub(1)),
        })
    }

    /// Whether everything that it was offered has been handed out. One that waits for a message
    /// need not be: it may wait for the log.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.batch.is_empty() && self.reading.is_none() && self.queue.is_drained()
    }

    /// Waits for the next message. Cancel safe.
    ///
    /// # Errors
    ///
    /// When the subscriber has been so slow that messages it was to get are no longer kept; the
    /// next call goes on behind the gap. Or when the log can't be read.
    pub async fn next(&mut self) -> Result<Arc<Message>, Missing> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Polls for the next message, as [`Self::next`].
    ///
    /// # Errors
    ///
    /// As [`Self::next`].
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Arc<Message>, Missing>> {
        loop {
            while let Some(message) = self.batch.pop_front() {
                // Having read the log ahead of the hub, one gets a few messages from it again.
                if message.offset >= self.next {
                    self.next = message.offset.next();
                    return Poll::Ready(Ok(message));
                }
            }
            if let Some(reading) = &mut self.reading {
                let read = ready!(reading.as_mut().poll(context));
                self.reading = None;
                self.take_page(read)?;
                if self.batch.is_empty() {
                    // Looking for few messages among many must not keep the thread.
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                continue;
            }
            let taken = self.queue.take(&mut self.batch, self.next, context);
            self.note_behind(matches!(taken, Taken::Missed));
            match taken {
                Taken::Messages => {}
                Taken::Missed => {
                    let log = &self.broker.0.log;
                    self.reading = Some(log.read(self.filter.clone(), self.next, PAGE));
                }
                Taken::Nothing => {
                    give_back(&mut self.batch);
                    return Poll::Pending;
                }
            }
        }
    }

    fn note_behind(&mut self, is_behind: bool) {
        let catching_up = &self.broker.0.catching_up;
        match (self.is_behind, is_behind) {
            (false, true) => catching_up.fetch_add(1, Ordering::Relaxed),
            (true, false) => catching_up.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
        self.is_behind = is_behind;
    }

    fn take_page(&mut self, read: Result<Page, ReadError>) -> Result<(), Missing> {
        match read {
            Ok(page) => {
                // With nothing found, the place read up to is the place to go on from.
                if page.messages.is_empty() {
                    self.next = page.next;
                }
                self.batch = page.messages.into();
                Ok(())
            }
            Err(ReadError::Trimmed { first }) => {
                let asked = std::mem::replace(&mut self.next, first);
                let oldest = first;
                Err(Missing::Gap { asked, oldest })
            }
            Err(ReadError::Broken { at, reason }) => Err(Missing::Broken { at, reason }),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.note_behind(false);
        self.broker.0.hub.remove(&self.filter, &self.queue);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("filter", &self.filter)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// Why a subscriber does not get a message that it was to get.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// It was so slow that messages are no longer kept.
    #[error("messages from offset {asked} to {oldest} are no longer kept")]
    Gap {
        /// What the subscriber wanted next.
        asked: Offset,
        /// The oldest that is still there.
        oldest: Offset,
    },
    /// The log can't be read.
    #[error("cannot read the log at offset {at}: {reason}")]
    Broken {
        /// Where.
        at: Offset,
        /// Why not.
        reason: Arc<str>,
    },
}

impl Missing {
    /// What an event subscriber is told, where it is a gap. The epoch is the log's.
    #[must_use]
    pub fn notice(&self, epoch: Epoch) -> Option<GapNotice> {
        let Self::Gap { asked, oldest } = *self else {
            return None;
        };
        let behind = |offset: Offset| Cursor {
            epoch,
            offset: offset.before(),
        };
        Some(GapNotice {
            asked: behind(asked).to_string(),
            oldest: behind(oldest).to_string(),
            reason: GapReason::Trimmed,
        })
    }
}

/// What a slow subscriber reads from the log in one go.
const PAGE: Limit = Limit {
    messages: 64,
    bytes: 1 << 20,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Start;
    use crate::queue::MAX_MESSAGES;
    use hookbot_log::MemoryLog;
    use hookbot_protocol::{Publication, Topic};
    use proptest::prelude::*;
    use std::time::SystemTime;

    fn broker(capacity: usize) -> Broker {
        let (broker, fan_out) = Broker::new(Arc::new(MemoryLog::new(capacity)));
        tokio::spawn(fan_out.run());
        broker
    }

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    fn publication(topic: &str, body: impl ToString) -> Publication {
        Publication::new(Topic::parse(topic).unwrap(), body.to_string())
    }

    async fn publish(broker: &Broker, topic: &str, body: impl ToString) {
        broker.publish(publication(topic, body)).await.unwrap();
    }

    async fn next(subscription: &mut Subscription) -> String {
        let message = subscription.next().await.unwrap();
        String::from_utf8(message.payload().to_vec()).unwrap()
    }

    /// Whether nothing more is there once the hub has handed out everything.
    async fn is_empty(broker: &Broker, subscription: &mut Subscription) -> bool {
        broker.flushed().await;
        let mut context = Context::from_waker(std::task::Waker::noop());
        subscription.poll_next(&mut context).is_pending()
    }

    #[tokio::test]
    async fn a_message_reaches_every_filter_that_matches_and_no_other() {
        let broker = broker(1 << 20);
        let mut all = ["a/b", "a/", "/"].map(|text| broker.subscribe(filter(text)));
        let mut none = ["a", "b/", "a/b/", "/unsafe/"].map(|text| broker.subscribe(filter(text)));
        publish(&broker, "a/b", "hello").await;
        for subscription in &mut all {
            assert_eq!(next(subscription).await, "hello");
        }
        for subscription in &mut none {
            assert!(is_empty(&broker, subscription).await);
        }
    }

    #[tokio::test]
    async fn a_newcomer_gets_nothing_that_was_published_before() {
        let broker = broker(1 << 20);
        publish(&broker, "t", "before").await;
        let mut subscription = broker.subscribe(filter("t"));
        publish(&broker, "t", "after").await;
        assert_eq!(next(&mut subscription).await, "after");
        assert!(is_empty(&broker, &mut subscription).await);
    }

    #[tokio::test]
    async fn a_slow_subscriber_gets_everything_in_order() {
        let broker = broker(1 << 30);
        let mut slow = broker.subscribe(filter("t"));
        for number in 0..MAX_MESSAGES * 3 {
            publish(&broker, "t", number).await;
        }
        broker.flushed().await;
        for number in 0..MAX_MESSAGES * 3 {
            assert_eq!(next(&mut slow).await, number.to_string());
            // It is still being published to while it catches up.
            publish(&broker, "t", MAX_MESSAGES * 3 + number).await;
        }
        for number in MAX_MESSAGES * 3..MAX_MESSAGES * 6 {
            assert_eq!(next(&mut slow).await, number.to_string());
        }
        assert!(is_empty(&broker, &mut slow).await);
    }

    #[tokio::test]
    async fn a_slow_subscriber_holds_a_bounded_number_of_bytes_and_hinders_nobody() {
        let broker = broker(1 << 30);
        let mut slow = broker.subscribe(filter("t"));
        let mut quick = broker.subscribe(filter("t"));
        let body = "x".repeat(64 << 10);
        for _ in 0..100 {
            publish(&broker, "t", &body).await;
            assert_eq!(next(&mut quick).await, body);
        }
        let _ = next(&mut slow).await;
        let held: usize = slow
            .batch
            .iter()
            .map(|message| message.payload().len())
            .sum();
        assert!(held <= 1 << 20, "{held}");
        for _ in 1..100 {
            assert_eq!(next(&mut slow).await, body);
        }
    }

    #[tokio::test]
    async fn a_message_larger_than_the_queue_is_delivered_all_the_same() {
        let broker = broker(1 << 30);
        let mut subscription = broker.subscribe(filter("t"));
        let body = "x".repeat(5 << 20);
        publish(&broker, "t", &body).await;
        publish(&broker, "t", "small").await;
        assert_eq!(next(&mut subscription).await, body);
        assert_eq!(next(&mut subscription).await, "small");
    }

    #[tokio::test]
    async fn a_subscriber_that_retention_has_passed_is_told_once_and_goes_on() {
        let capacity = publication("t", 1).size() * MAX_MESSAGES * 2;
        let broker = broker(capacity);
        let mut slow = broker.subscribe(filter("t"));
        let total = MAX_MESSAGES * 8;
        for number in 0..total {
            publish(&broker, "t", number).await;
            broker.flushed().await;
        }
        for number in 0..MAX_MESSAGES {
            assert_eq!(next(&mut slow).await, number.to_string());
        }
        let Err(Missing::Gap { asked, oldest }) = slow.next().await else {
            panic!("the gap is told");
        };
        assert_eq!(asked, Offset(MAX_MESSAGES as u64 + 1));
        for offset in oldest.0..=total as u64 {
            assert_eq!(next(&mut slow).await, (offset - 1).to_string());
        }
        assert!(is_empty(&broker, &mut slow).await);
    }

    /// What a subscription that begins there gets, up to now; and the gap it is told of.
    async fn resumed(
        broker: &Broker,
        text: &str,
        start: Start,
    ) -> (Vec<String>, Option<GapReason>) {
        let (mut subscription, gap) = broker.resume(filter(text), start).await.unwrap();
        let mut found = Vec::new();
        broker.flushed().await;
        let mut context = Context::from_waker(std::task::Waker::noop());
        loop {
            match subscription.poll_next(&mut context) {
                Poll::Ready(message) => {
                    let payload = message.unwrap().payload().to_vec();
                    found.push(String::from_utf8(payload).unwrap());
                }
                Poll::Pending if subscription.place().is_some() => return (found, gap),
                Poll::Pending => {}
            }
        }
    }

    #[tokio::test]
    async fn a_resumed_subscription_gets_what_came_after_its_place() {
        let broker = broker(1 << 20);
        let before = SystemTime::now();
        for number in 1..=4 {
            publish(&broker, if number == 3 { "u" } else { "t" }, number).await;
        }
        let epoch = broker.epoch();
        let after = |offset| {
            Start::After(Cursor {
                epoch,
                offset: Offset(offset),
            })
        };
        let other = Cursor {
            epoch: Epoch(epoch.0 ^ 1),
            offset: Offset(2),
        };
        for (start, found, gap) in [
            (Start::Oldest, &["1", "2", "4"][..], None),
            (after(0), &["1", "2", "4"], None),
            (after(1), &["2", "4"], None),
            (after(2), &["4"], None),
            (after(3), &["4"], None),
            (after(4), &[], None),
            (Start::Since(before), &["1", "2", "4"], None),
            (Start::Since(SystemTime::now()), &[], None),
            (after(5), &["1", "2", "4"], Some(GapReason::Ahead)),
            (
                Start::After(other),
                &["1", "2", "4"],
                Some(GapReason::Epoch),
            ),
        ] {
            let expected = (found.iter().map(ToString::to_string).collect(), gap);
            assert_eq!(resumed(&broker, "t", start).await, expected, "{start:?}");
        }
    }

    #[tokio::test]
    async fn what_was_trimmed_is_a_gap_only_for_who_asked_for_it() {
        // Three quarters are for safe topics.
        let broker = broker(publication("t", 1).size() * 4);
        let before = SystemTime::now();
        for number in 1..=5 {
            publish(&broker, "t", number).await;
            broker.flushed().await;
        }
        let epoch = broker.epoch();
        let after = |offset| {
            Start::After(Cursor {
                epoch,
                offset: Offset(offset),
            })
        };
        for (start, gap) in [
            (Start::Oldest, None),
            (after(0), Some(GapReason::Trimmed)),
            (after(1), Some(GapReason::Trimmed)),
            (after(2), None),
            (Start::Since(before), Some(GapReason::Trimmed)),
        ] {
            let expected = (["3", "4", "5"].map(str::to_owned).to_vec(), gap);
            assert_eq!(resumed(&broker, "t", start).await, expected, "{start:?}");
        }
    }

    #[tokio::test]
    async fn a_time_that_trimmed_messages_may_have_been_behind_is_a_gap_whoever_published_since() {
        let large = "x".repeat(1_000);
        let broker = broker(publication("t", &large).size() * 2);
        let before = SystemTime::now();
        publish(&broker, "t", &large).await;
        publish(&broker, "/unsafe/t", 1).await;
        broker.flushed().await;
        publish(&broker, "t", &large).await;
        let (found, gap) = resumed(&broker, "t", Start::Since(before)).await;
        assert_eq!((found.len(), gap), (1, Some(GapReason::Trimmed)));
        let (_, gap) = resumed(&broker, "/unsafe/t", Start::Since(before)).await;
        assert_eq!(gap, None);
    }

    #[tokio::test]
    async fn no_cursor_is_too_far_ahead_to_be_a_gap() {
        let broker = broker(1 << 20);
        publish(&broker, "t", 1).await;
        let (epoch, offset) = (broker.epoch(), Offset(u64::MAX));
        let start = Start::After(Cursor { epoch, offset });
        let expected = (vec!["1".to_owned()], Some(GapReason::Ahead));
        assert_eq!(resumed(&broker, "t", start).await, expected);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_hand_over_from_the_log_to_the_hub_has_no_hole_and_no_repeat() {
        let broker = broker(1 << 30);
        let publisher = tokio::spawn({
            let broker = broker.clone();
            async move {
                for number in 0..20_000 {
                    publish(&broker, "t", number).await;
                }
            }
        });
        let mut place = None;
        let mut expected = 0;
        while expected < 20_000 {
            let start = place.map_or(Start::Oldest, Start::After);
            let (mut subscription, gap) = broker.resume(filter("/"), start).await.unwrap();
            assert_eq!(gap, None);
            for _ in 0..100.min(20_000 - expected) {
                let message = subscription.next().await.unwrap();
                assert_eq!(message.payload(), expected.to_string().as_str());
                place = Some(Cursor {
                    epoch: broker.epoch(),
                    offset: message.offset,
                });
                expected += 1;
            }
        }
        publisher.await.unwrap();
    }

    #[tokio::test]
    async fn an_idle_subscriber_s_place_moves_on_with_what_is_not_for_it() {
        let broker = broker(1 << 20);
        let mut subscription = broker.subscribe(filter("t"));
        for number in 0..5 {
            publish(&broker, "u", number).await;
        }
        assert!(is_empty(&broker, &mut subscription).await);
        assert_eq!(subscription.place().unwrap().offset, Offset(5));
        publish(&broker, "t", "for it").await;
        broker.flushed().await;
        assert_eq!(subscription.place(), None);
        next(&mut subscription).await;
        assert_eq!(subscription.place().unwrap().offset, Offset(6));
    }

    #[tokio::test]
    async fn who_is_gone_is_forgotten() {
        let broker = broker(1 << 20);
        let first = broker.subscribe(filter("t"));
        let queue = Arc::downgrade(&first.queue);
        let mut second = broker.subscribe(filter("t"));
        drop(first);
        assert!(queue.upgrade().is_none());
        publish(&broker, "t", "hello").await;
        assert_eq!(next(&mut second).await, "hello");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn under_threads_everybody_sees_the_same_order_whatever_their_pace() {
        let broker = broker(1 << 30);
        let mut readers = Vec::new();
        for pace in [0, 1, 7, 100] {
            let mut subscription = broker.subscribe(filter("/"));
            readers.push(tokio::spawn(async move {
                let mut offsets = Vec::new();
                while offsets.len() < 8_000 {
                    offsets.push(subscription.next().await.unwrap().offset);
                    if pace > 0 && offsets.len() % pace == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                offsets
            }));
        }
        let publishers = (0..8).map(|publisher| {
            let broker = broker.clone();
            tokio::spawn(async move {
                for number in 0..1_000 {
                    publish(&broker, &format!("t/{publisher}"), number).await;
                }
            })
        });
        for publisher in publishers.collect::<Vec<_>>() {
            publisher.await.unwrap();
        }
        let expected: Vec<_> = (1..=8_000).map(Offset).collect();
        for reader in readers {
            assert_eq!(reader.await.unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn whatever_the_steps_nothing_is_lost_repeated_or_reordered(
            steps in prop::collection::vec((0usize..700, 0usize..900), 1..8),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let broker = broker(1 << 30);
                let mut subscription = broker.subscribe(filter("a/"));
                let (mut published, mut taken) = (0, 0);
                for (publishes, takes) in steps {
                    for _ in 0..publishes {
                        publish(&broker, "b", "not for us").await;
                        publish(&broker, "a/t", published).await;
                        published += 1;
                    }
                    for _ in 0..takes.min(published - taken) {
                        assert_eq!(next(&mut subscription).await, taken.to_string());
                        taken += 1;
                    }
                }
                while taken < published {
                    assert_eq!(next(&mut subscription).await, taken.to_string());
                    taken += 1;
                }
                assert!(is_empty(&broker, &mut subscription).await);
            });
        }
    }
}

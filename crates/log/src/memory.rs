//! The log in memory: a ring of the newest messages, bounded by bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_core::future::BoxFuture;
use hookbot_protocol::{Cursor, Epoch, Filter, Message, Offset, Publication};
use tokio::sync::Notify;

use crate::{AppendError, Appended, Bounds, Limit, Log, Page, ReadError, Tail};

/// A log that forgets: the oldest messages once there are too many bytes, and all of them when
/// the process ends.
#[derive(Debug, Clone)]
pub struct MemoryLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    epoch: Epoch,
    capacity: usize,
    ring: Mutex<Ring>,
    /// A message came, for the tail.
    appended: Notify,
    /// The tail moved on, so what it has passed may be dropped.
    passed: Notify,
}

#[derive(Debug)]
struct Ring {
    /// Without holes: the message at `i` has offset `first + i`.
    messages: VecDeque<Arc<Message>>,
    /// The newest message of each delivery id.
    deliveries: HashMap<Box<str>, Offset>,
    first: Offset,
    bytes: usize,
    /// What the tail hands out next; nothing from here on may be dropped.
    tail: Option<Offset>,
}

impl MemoryLog {
    /// A log that keeps at most `capacity` bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self(Arc::new(Shared {
            epoch: Epoch(fastrand::u64(..)),
            capacity,
            ring: Mutex::new(Ring {
                messages: VecDeque::new(),
                deliveries: HashMap::new(),
                first: FIRST,
                bytes: 0,
                tail: None,
            }),
            appended: Notify::new(),
            passed: Notify::new(),
        }))
    }
}

impl Log for MemoryLog {
    fn epoch(&self) -> Epoch {
        self.0.epoch
    }

    fn append(
        &self,
        publication: Publication,
        deduplicate: Option<Duration>,
    ) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(self.0.append(publication, deduplicate))
    }

    fn bounds(&self) -> Bounds {
        let ring = self.0.ring();
        Bounds {
            first: ring.first,
            next: ring.next(),
        }
    }

    fn read(
        &self,
        filter: Filter,
        from: Offset,
        limit: Limit,
    ) -> BoxFuture<'static, Result<Page, ReadError>> {
        let page = self.0.ring().read(&filter, from, limit);
        Box::pin(std::future::ready(page))
    }

    fn seek(&self, time: SystemTime) -> BoxFuture<'static, Result<Offset, ReadError>> {
        let ring = self.0.ring();
        let at = ring
            .messages
            .iter()
            .position(|message| message.time >= time);
        let offset = at.map_or_else(|| ring.next(), |at| Offset(ring.first.0 + at as u64));
        Box::pin(std::future::ready(Ok(offset)))
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn trim(&self, upto: Offset) {
        let mut ring = self.0.ring();
        while ring.first < upto && ring.drop_oldest() {}
    }

    fn tail(&self) -> Box<dyn Tail> {
        let mut ring = self.0.ring();
        let next = ring.next();
        ring.tail = Some(next);
        Box::new(MemoryTail(self.0.clone()))
    }
}

impl Shared {
    async fn append(
        &self,
        publication: Publication,
        deduplicate: Option<Duration>,
    ) -> Result<Appended, AppendError> {
        let size = publication.size();
        if size > self.capacity {
            let capacity = self.capacity;
            return Err(AppendError::TooLarge { capacity });
        }
        loop {
            let passed = self.passed.notified();
            tokio::pin!(passed);
            // From here on no wake-up is missed.
            passed.as_mut().enable();
            {
                let mut ring = self.ring();
                let now = SystemTime::now();
                let epoch = self.epoch;
                if let Some(offset) =
                    deduplicate.and_then(|window| ring.find(&publication, now, window))
                {
                    let cursor = Cursor { epoch, offset };
                    return Ok(Appended {
                        cursor,
                        is_duplicate: true,
                    });
                }
                while ring.bytes + size > self.capacity && ring.drop_oldest() {}
                if ring.bytes + size <= self.capacity {
                    let offset = ring.next();
                    ring.push(Message::new(publication, offset, now));
                    self.appended.notify_one();
                    let cursor = Cursor { epoch, offset };
                    return Ok(Appended {
                        cursor,
                        is_duplicate: false,
                    });
                }
            }
            passed.await;
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // No code that holds the lock can leave the ring half changed.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn next(&self) -> Offset {
        Offset(self.first.0 + self.messages.len() as u64)
    }

    fn push(&mut self, message: Message) {
        self.bytes += message.publication.size();
        if let Some(id) = &message.publication.delivery_id {
            self.deliveries.insert(id.clone(), message.offset);
        }
        self.messages.push_back(Arc::new(message));
    }

    /// The offset of the message that `publication` repeats, if there was one in the window.
    fn find(&self, publication: &Publication, now: SystemTime, window: Duration) -> Option<Offset> {
        let offset = *self.deliveries.get(publication.delivery_id.as_ref()?)?;
        let message = self.since(offset).next()?;
        let Publication { topic, body, .. } = &message.publication;
        let recent = now
            .duration_since(message.time)
            .is_ok_and(|age| age < window);
        (recent && *topic == publication.topic && *body == publication.body).then_some(offset)
    }

    /// Drops the oldest message, unless the tail has yet to hand it out.
    fn drop_oldest(&mut self) -> bool {
        if self.tail.is_some_and(|tail| tail <= self.first) {
            return false;
        }
        let Some(message) = self.messages.pop_front() else {
            return false;
        };
        self.bytes -= message.publication.size();
        if let Some(id) = &message.publication.delivery_id
            && self.deliveries.get(id) == Some(&message.offset)
        {
            self.deliveries.remove(id);
        }
        self.first = self.first.next();
        true
    }

    /// The messages from `from` on.
    fn since(&self, from: Offset) -> impl Iterator<Item = &Arc<Message>> {
        let skip = from.0.saturating_sub(self.first.0);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        self.messages.range(skip.min(self.messages.len())..)
    }

    fn read(&self, filter: &Filter, from: Offset, limit: Limit) -> Result<Page, ReadError> {
        if from < self.first && self.first > FIRST {
            return Err(ReadError::Trimmed { first: self.first });
        }
        let mut page = Page {
            messages: Vec::new(),
            next: from,
        };
        let mut bytes = 0;
        for message in self.since(from).take(SCAN) {
            if filter.matches(message.topic()) {
                bytes += message.publication.size();
                let full = page.messages.len() >= limit.messages || bytes > limit.bytes;
                if full && !page.messages.is_empty() {
                    break;
                }
                page.messages.push(message.clone());
            }
            page.next = message.offset.next();
        }
        Ok(page)
    }
}

struct MemoryTail(Arc<Shared>);

impl Tail for MemoryTail {
    fn next(&mut self) -> BoxFuture<'_, Vec<Arc<Message>>> {
        Box::pin(async {
            loop {
                {
                    let mut ring = self.0.ring();
                    let from = ring.tail.unwrap_or_else(|| ring.next());
                    let batch: Vec<_> = ring.since(from).take(BATCH).cloned().collect();
                    if let Some(last) = batch.last() {
                        ring.tail = Some(last.offset.next());
                        self.0.passed.notify_waiters();
                        return batch;
                    }
                }
                self.0.appended.notified().await;
            }
        })
    }
}

impl Drop for MemoryTail {
    fn drop(&mut self) {
        self.0.ring().tail = None;
        self.0.passed.notify_waiters();
    }
}

/// The first message's offset. Zero stays free: it is the place before every message.
const FIRST: Offset = Offset(1);

/// How many messages one read looks at, so that a sparse topic does not hold the lock for long.
const SCAN: usize = 1_024;

/// How many messages the tail hands out at once.
const BATCH: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use hookbot_protocol::Topic;
    use proptest::prelude::*;

    fn publication(topic: &str, body: &str) -> Publication {
        Publication::new(Topic::parse(topic).unwrap(), body.to_owned())
    }

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    fn bodies(messages: &[Arc<Message>]) -> Vec<String> {
        let body = |message: &Arc<Message>| message.publication.body.to_vec();
        let text = |message| String::from_utf8(body(message)).unwrap();
        messages.iter().map(text).collect()
    }

    const ALL: Limit = Limit {
        messages: usize::MAX,
        bytes: usize::MAX,
    };

    /// How many one-letter messages on a one-letter topic a log of this capacity keeps.
    fn capacity(messages: usize) -> usize {
        messages * publication("t", "x").size()
    }

    #[tokio::test]
    async fn a_read_returns_what_matches_in_order_and_where_to_go_on() {
        let log = MemoryLog::new(1 << 20);
        for (topic, body) in [("a", "1"), ("b", "2"), ("a", "3"), ("a/c", "4")] {
            log.append(publication(topic, body), None).await.unwrap();
        }
        let page = log.read(filter("a"), Offset(1), ALL).await.unwrap();
        assert_eq!(
            (bodies(&page.messages), page.next),
            (vec!["1".into(), "3".into()], Offset(5))
        );
        let page = log.read(filter("/"), Offset(3), ALL).await.unwrap();
        assert_eq!(bodies(&page.messages), ["3", "4"]);
        let one = Limit { messages: 1, ..ALL };
        let page = log.read(filter("a"), Offset(1), one).await.unwrap();
        assert_eq!(
            (bodies(&page.messages), page.next),
            (vec!["1".into()], Offset(3))
        );
        let small = Limit { bytes: 1, ..ALL };
        let page = log.read(filter("/"), Offset(1), small).await.unwrap();
        assert_eq!(bodies(&page.messages), ["1"]);
        let page = log.read(filter("/"), Offset(5), ALL).await.unwrap();
        assert_eq!((page.messages.len(), page.next), (0, Offset(5)));
    }

    #[tokio::test]
    async fn a_sparse_read_moves_on_without_finding_anything() {
        let log = MemoryLog::new(1 << 30);
        for _ in 0..=SCAN {
            log.append(publication("b", ""), None).await.unwrap();
        }
        log.append(publication("a", "found"), None).await.unwrap();
        let page = log.read(filter("a"), Offset(1), ALL).await.unwrap();
        assert_eq!(
            (page.messages.len(), page.next),
            (0, Offset(1 + SCAN as u64))
        );
        let page = log.read(filter("a"), page.next, ALL).await.unwrap();
        assert_eq!(bodies(&page.messages), ["found"]);
    }

    #[tokio::test]
    async fn the_oldest_go_first_and_a_reader_behind_them_is_told() {
        let log = MemoryLog::new(capacity(3));
        for body in ["1", "2", "3", "4", "5"] {
            log.append(publication("t", body), None).await.unwrap();
        }
        let error = log.read(filter("t"), Offset(2), ALL).await.unwrap_err();
        assert_eq!(error, ReadError::Trimmed { first: Offset(3) });
        let page = log.read(filter("t"), Offset(3), ALL).await.unwrap();
        assert_eq!(bodies(&page.messages), ["3", "4", "5"]);
        log.trim(Offset(5));
        let bounds = Bounds {
            first: Offset(5),
            next: Offset(6),
        };
        assert_eq!(log.bounds(), bounds);
    }

    #[tokio::test]
    async fn a_delivery_that_was_there_before_is_not_appended_again() {
        let log = MemoryLog::new(1 << 20);
        let delivery = |topic, id: &str, body| Publication {
            delivery_id: Some(id.into()),
            ..publication(topic, body)
        };
        let hour = Some(Duration::from_secs(3_600));
        let first = log.append(delivery("t", "1", "x"), hour).await.unwrap();
        let again = log.append(delivery("t", "1", "x"), hour).await.unwrap();
        assert_eq!((again.cursor, again.is_duplicate), (first.cursor, true));
        for (publication, window) in [
            (delivery("t", "2", "x"), hour),
            (delivery("u", "1", "x"), hour),
            (delivery("t", "1", "y"), hour),
            (delivery("t", "1", "y"), None),
            (publication("t", "y"), hour),
        ] {
            assert!(!log.append(publication, window).await.unwrap().is_duplicate);
        }
    }

    #[tokio::test]
    async fn a_time_leads_to_the_first_message_that_is_not_older() {
        let log = MemoryLog::new(1 << 20);
        let before = SystemTime::now();
        log.append(publication("t", "1"), None).await.unwrap();
        assert_eq!(log.seek(before).await, Ok(Offset(1)));
        let later = SystemTime::now() + Duration::from_secs(1);
        assert_eq!(log.seek(later).await, Ok(Offset(2)));
    }

    #[tokio::test]
    async fn a_message_larger_than_the_log_is_refused() {
        let log = MemoryLog::new(capacity(1));
        let error = log
            .append(publication("t", "larger"), None)
            .await
            .unwrap_err();
        assert_eq!(
            error,
            AppendError::TooLarge {
                capacity: capacity(1)
            }
        );
    }

    #[tokio::test]
    async fn the_tail_gets_every_message_and_none_is_dropped_before() {
        let log = MemoryLog::new(capacity(2));
        let mut tail = log.tail();
        log.append(publication("t", "1"), None).await.unwrap();
        log.append(publication("t", "2"), None).await.unwrap();
        log.trim(Offset(3));
        assert_eq!(log.bounds().first, Offset(1));

        let third = tokio::spawn({
            let log = log.clone();
            async move { log.append(publication("t", "3"), None).await }
        });
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
        assert_eq!(bodies(&tail.next().await), ["1", "2"]);
        third.await.unwrap().unwrap();
        assert_eq!(bodies(&tail.next().await), ["3"]);
    }

    #[tokio::test]
    async fn a_tail_that_is_gone_holds_nothing_back() {
        let log = MemoryLog::new(capacity(1));
        drop(log.tail());
        for body in ["1", "2"] {
            log.append(publication("t", body), None).await.unwrap();
        }
        assert_eq!(log.bounds().first, Offset(2));
    }

    proptest! {
        #[test]
        fn reading_on_from_page_to_page_finds_what_a_plain_list_would(
            topics in prop::collection::vec("[ab](/[ab])?", 0..60),
            wanted in prop::sample::select(vec!["/", "a", "a/", "b/a"]),
            (messages, kept) in (1usize..5, 20usize..80),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let log = MemoryLog::new(capacity(kept));
                for (number, topic) in topics.iter().enumerate() {
                    log.append(publication(topic, &number.to_string()), None).await.unwrap();
                }
                let Bounds { first, next } = log.bounds();
                let wanted = filter(wanted);
                let (mut found, mut from) = (Vec::new(), first);
                while from < next {
                    let page = log.read(wanted.clone(), from, Limit { messages, ..ALL }).await.unwrap();
                    assert!(page.next > from);
                    found.extend(bodies(&page.messages));
                    from = page.next;
                }
                let expected: Vec<_> = topics.iter().enumerate()
                    .filter(|(number, topic)| *number as u64 + 1 >= first.0 && wanted.matches(&Topic::parse(topic).unwrap()))
                    .map(|(number, _)| number.to_string())
                    .collect();
                assert_eq!(found, expected);
            });
        }
    }
}

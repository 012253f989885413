//! The log in memory: the newest messages, bounded by bytes.
//!
//! There are two lanes, one for safe topics and one for unsafe ones, each with bytes of its own:
//! what strangers publish can never push out what was published with a token. A filter matches
//! topics of one lane only.

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
    lanes: Mutex<Lanes>,
    /// A message came, for the tail.
    appended: Notify,
    /// The tail moved on, so what it has passed may be dropped.
    passed: Notify,
}

#[derive(Debug)]
struct Lanes {
    safe: Lane,
    strangers: Lane,
    /// What the next message will get, in either lane.
    next: Offset,
    /// What the tail hands out next; nothing from here on may be dropped.
    tail: Option<Offset>,
}

/// The messages of one kind of topic, in order; the other lane's offsets are holes.
#[derive(Debug)]
struct Lane {
    messages: VecDeque<Arc<Message>>,
    /// The newest message of each topic and delivery id.
    deliveries: HashMap<String, Offset>,
    /// Everything before this has been dropped.
    trimmed: Offset,
    bytes: usize,
    capacity: usize,
}

impl MemoryLog {
    /// A log that keeps at most `capacity` bytes, and of these at most a quarter for unsafe
    /// topics. What subscribers have had encoded comes on top.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let strangers = capacity / 4;
        Self(Arc::new(Shared {
            epoch: Epoch(fastrand::u64(..)),
            lanes: Mutex::new(Lanes {
                safe: Lane::new(capacity - strangers),
                strangers: Lane::new(strangers),
                next: FIRST,
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

    fn append_all(
        &self,
        publications: Vec<Publication>,
        deduplicate: Option<Duration>,
    ) -> BoxFuture<'_, Vec<Result<Appended, AppendError>>> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(publications.len());
            for publication in publications {
                let answer = self.0.append(publication, deduplicate).await;
                let goes_on = answer.is_ok();
                answers.push(answer);
                if !goes_on {
                    break;
                }
            }
            answers
        })
    }

    fn bounds(&self) -> Bounds {
        let lanes = self.0.lanes();
        let oldest = |lane: &Lane| lane.messages.front().map(|message| message.offset);
        let first = [&lanes.safe, &lanes.strangers]
            .into_iter()
            .filter_map(oldest)
            .min();
        Bounds {
            first: first.unwrap_or(lanes.next),
            next: lanes.next,
        }
    }

    fn read(
        &self,
        filter: Filter,
        from: Offset,
        limit: Limit,
    ) -> BoxFuture<'static, Result<Page, ReadError>> {
        let page = self.0.lanes().read(&filter, from, limit);
        Box::pin(std::future::ready(page))
    }

    fn seek(&self, time: SystemTime) -> BoxFuture<'static, Result<Offset, ReadError>> {
        let lanes = self.0.lanes();
        let first = |lane: &Lane| {
            let mut messages = lane.messages.iter();
            messages
                .find(|message| message.time >= time)
                .map(|message| message.offset)
        };
        let first = [&lanes.safe, &lanes.strangers]
            .into_iter()
            .filter_map(first)
            .min();
        Box::pin(std::future::ready(Ok(first.unwrap_or(lanes.next))))
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn trim(&self, upto: Offset) {
        let lanes = &mut *self.0.lanes();
        let upto = upto.min(lanes.tail.unwrap_or(lanes.next)).min(lanes.next);
        for lane in [&mut lanes.safe, &mut lanes.strangers] {
            while lane.drop_oldest(upto) {}
            lane.trimmed = lane.trimmed.max(upto);
        }
    }

    fn tail(&self) -> Box<dyn Tail> {
        let mut lanes = self.0.lanes();
        lanes.tail = Some(lanes.next);
        Box::new(MemoryTail(self.0.clone()))
    }
}

impl Shared {
    async fn append(
        &self,
        publication: Publication,
        deduplicate: Option<Duration>,
    ) -> Result<Appended, AppendError> {
        let mut publication = Some(publication);
        loop {
            let passed = self.passed.notified();
            tokio::pin!(passed);
            // From here on no wake-up is missed.
            passed.as_mut().enable();
            if let Some((offset, is_duplicate)) =
                self.lanes().append(&mut publication, deduplicate)?
            {
                self.appended.notify_one();
                let epoch = self.epoch;
                let cursor = Cursor { epoch, offset };
                return Ok(Appended {
                    cursor,
                    is_duplicate,
                });
            }
            passed.await;
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // No code that holds the lock can leave the lanes half changed.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    /// Takes the publication, if the tail has left room for it; with its offset, or that of the
    /// message that it repeats.
    fn append(
        &mut self,
        publication: &mut Option<Publication>,
        deduplicate: Option<Duration>,
    ) -> Result<Option<(Offset, bool)>, AppendError> {
        let Some(offered) = &*publication else {
            return Ok(None);
        };
        let lane = match offered.topic.is_unsafe() {
            true => &mut self.strangers,
            false => &mut self.safe,
        };
        let (now, size) = (SystemTime::now(), offered.size());
        if let Some(offset) = deduplicate.and_then(|window| lane.find(offered, now, window)) {
            return Ok(Some((offset, true)));
        }
        if size > lane.capacity {
            let capacity = lane.capacity;
            return Err(AppendError::TooLarge { capacity });
        }
        let upto = self.tail.unwrap_or(self.next);
        while lane.bytes + size > lane.capacity && lane.drop_oldest(upto) {}
        if lane.bytes + size > lane.capacity {
            return Ok(None);
        }
        let offset = self.next;
        self.next = offset.next();
        if let Some(publication) = publication.take() {
            lane.push(
                Message::new(publication, offset, now),
                deduplicate.is_some(),
            );
        }
        Ok(Some((offset, false)))
    }

    fn read(&self, filter: &Filter, from: Offset, limit: Limit) -> Result<Page, ReadError> {
        let lane = match filter.as_str().starts_with('/') {
            true => &self.strangers,
            false => &self.safe,
        };
        if from < lane.trimmed {
            return Err(ReadError::Trimmed {
                first: lane.trimmed,
            });
        }
        let mut page = Page {
            messages: Vec::new(),
            next: from,
        };
        let mut bytes = 0;
        for (looked_at, message) in lane.since(from).enumerate() {
            if looked_at == SCAN {
                return Ok(page);
            }
            if filter.matches(message.topic()) {
                bytes += message.publication.size();
                let full = page.messages.len() >= limit.messages || bytes > limit.bytes;
                if full && !page.messages.is_empty() {
                    return Ok(page);
                }
                page.messages.push(message.clone());
            }
            page.next = message.offset.next();
        }
        page.next = self.next.max(from);
        Ok(page)
    }

    /// What comes next for the tail, of both lanes in one order.
    fn next_batch(&mut self) -> Vec<Arc<Message>> {
        let from = self.tail.unwrap_or(self.next);
        let mut safe = self.safe.since(from).peekable();
        let mut strangers = self.strangers.since(from).peekable();
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            let next = match (safe.peek(), strangers.peek()) {
                (Some(one), Some(other)) if one.offset < other.offset => safe.next(),
                (_, Some(_)) => strangers.next(),
                (_, None) => safe.next(),
            };
            let Some(message) = next else { break };
            batch.push(message.clone());
        }
        if let Some(last) = batch.last() {
            self.tail = Some(last.offset.next());
        }
        batch
    }
}

impl Lane {
    fn new(capacity: usize) -> Self {
        Self {
            messages: VecDeque::new(),
            deliveries: HashMap::new(),
            trimmed: Offset(0),
            bytes: 0,
            capacity,
        }
    }

    fn push(&mut self, message: Message, deduplicates: bool) {
        self.bytes += message.publication.size();
        if deduplicates && let Some(delivery) = delivery(&message.publication) {
            self.deliveries.insert(delivery, message.offset);
        }
        self.messages.push_back(Arc::new(message));
    }

    /// The offset of the message that `publication` repeats, if there was one in the window.
    fn find(&self, publication: &Publication, now: SystemTime, window: Duration) -> Option<Offset> {
        let offset = *self.deliveries.get(&delivery(publication)?)?;
        let message = self.since(offset).next()?;
        let age = now.duration_since(message.time);
        let same = message.publication.body == publication.body;
        (same && age.is_ok_and(|age| age < window)).then_some(offset)
    }

    /// Drops the oldest message, if it is before `upto`.
    fn drop_oldest(&mut self, upto: Offset) -> bool {
        let Some(message) = self.messages.pop_front_if(|message| message.offset < upto) else {
            return false;
        };
        self.bytes -= message.publication.size();
        if let Some(delivery) = delivery(&message.publication)
            && self.deliveries.get(&delivery) == Some(&message.offset)
        {
            self.deliveries.remove(&delivery);
        }
        self.trimmed = message.offset.next();
        true
    }

    /// The messages from `from` on.
    fn since(&self, from: Offset) -> impl Iterator<Item = &Arc<Message>> {
        // Nearly always it is one of the newest, and those before are in no cache.
        let length = self.messages.len();
        let mut newest = 1;
        while newest < length && self.messages[length - newest].offset >= from {
            newest *= 2;
        }
        let (mut low, mut high) = (length.saturating_sub(newest), length);
        while low < high {
            let middle = low.midpoint(high);
            if self.messages[middle].offset < from {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.messages.range(low..)
    }
}

/// What a delivery is known by again.
fn delivery(publication: &Publication) -> Option<String> {
    let id = publication.delivery_id.as_deref()?;
    // A topic has no line break.
    Some(format!("{}\n{id}", publication.topic))
}

struct MemoryTail(Arc<Shared>);

impl Tail for MemoryTail {
    fn next(&mut self) -> BoxFuture<'_, Vec<Arc<Message>>> {
        Box::pin(async {
            loop {
                let batch = self.0.lanes().next_batch();
                if !batch.is_empty() {
                    self.0.passed.notify_waiters();
                    return batch;
                }
                self.0.appended.notified().await;
            }
        })
    }
}

impl Drop for MemoryTail {
    fn drop(&mut self) {
        self.0.lanes().tail = None;
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

    /// The capacity of a log that keeps so many one-letter messages on a safe one-letter topic.
    fn capacity(messages: usize) -> usize {
        (messages * publication("t", "x").size()).div_ceil(3) * 4
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
        let log = MemoryLog::new(1_000);
        let large = publication("t", &"x".repeat(1_000));
        let error = log.append(large, None).await.unwrap_err();
        assert_eq!(error, AppendError::TooLarge { capacity: 750 });
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
    async fn strangers_push_out_strangers_only() {
        let log = MemoryLog::new(capacity(12));
        let mut tail = log.tail();
        for number in 0..100 {
            let topic = if number < 10 { "t" } else { "/unsafe/t" };
            log.append(publication(topic, "x"), None).await.unwrap();
            assert_eq!(tail.next().await[0].offset, Offset(number + 1));
        }
        let page = log.read(filter("/"), Offset(0), ALL).await.unwrap();
        assert_eq!((page.messages.len(), page.next), (10, Offset(101)));
        let Err(ReadError::Trimmed { first }) = log.read(filter("/unsafe/"), Offset(0), ALL).await
        else {
            panic!("some of the strangers' messages are gone");
        };
        let page = log.read(filter("/unsafe/"), first, ALL).await.unwrap();
        assert!(
            (1..=4).contains(&page.messages.len()),
            "{}",
            page.messages.len()
        );
        assert_eq!(page.messages.last().unwrap().offset, Offset(100));
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

//! The broker: carries each published message to every subscription whose filter matches.
//!
//! It knows topics, subscriptions and a log. It knows nothing of sockets, HTTP or tokens, so
//! every rule here is tested without a network.
//!
//! Publishing never waits for a reader. A subscription whose queue is full loses nothing: the
//! hub passes it over, and it reads the log at its own pace until it meets the tail again. Every
//! subscriber sees the order of the log, because the hub is fed from the log's tail alone.
//!
//! ```
//! use std::sync::Arc;
//! use hookbot_broker::Broker;
//! use hookbot_log::MemoryLog;
//! use hookbot_protocol::{Filter, Publication, Topic};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (broker, fan_out) = Broker::new(Arc::new(MemoryLog::new(1 << 20)));
//! tokio::spawn(fan_out.run());
//!
//! let mut deploys = broker.subscribe(Filter::parse("deploys/")?);
//! broker.publish(Publication::new(Topic::parse("deploys/site")?, "v2")).await?;
//! assert_eq!(deploys.next().await?.payload(), "v2");
//! # Ok(())
//! # }
//! ```

mod hub;
mod queue;
mod subscription;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use hookbot_log::{AppendError, Appended, Bounds, Limit, Log, ReadError, Tail};
use hookbot_protocol::event::GapReason;
use hookbot_protocol::{Cursor, Epoch, Filter, Offset, Publication};
use tokio::sync::watch;

use hub::Hub;
use queue::Queue;
pub use subscription::{Missing, Subscription};

/// A cheap handle on the broker; clones are the same broker.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

struct Inner {
    log: Arc<dyn Log>,
    hub: Hub,
    /// Everything before this has been handed to the subscriptions.
    fanned_out: watch::Sender<Offset>,
    /// How many subscriptions are reading the log.
    catching_up: AtomicUsize,
}

impl Broker {
    /// A broker on a log, and the work that its fan-out is: nothing is delivered unless
    /// [`FanOut::run`] is.
    #[must_use]
    pub fn new(log: Arc<dyn Log>) -> (Self, FanOut) {
        let tail = log.tail();
        let fanned_out = watch::Sender::new(log.bounds().next);
        let broker = Self(Arc::new(Inner {
            log,
            hub: Hub::default(),
            fanned_out,
            catching_up: AtomicUsize::new(0),
        }));
        let fan_out = FanOut {
            broker: broker.clone(),
            tail,
        };
        (broker, fan_out)
    }

    /// Hands a publication to the log, and returns its place once the log has it. Subscribers
    /// get it soon after.
    ///
    /// # Errors
    ///
    /// When the log can't keep it; nobody will get it then.
    pub async fn publish(&self, publication: Publication) -> Result<Appended, AppendError> {
        self.0.log.append(publication, None).await
    }

    /// As [`Self::publish`], unless the log has the same delivery of the last `window` already;
    /// then returns the place of that.
    ///
    /// # Errors
    ///
    /// As [`Self::publish`].
    pub async fn publish_once(
        &self,
        publication: Publication,
        window: Duration,
    ) -> Result<Appended, AppendError> {
        self.0.log.append(publication, Some(window)).await
    }

    /// As [`Self::publish_once`] for each of these, in order, without waiting for one before the
    /// next. Ends at the first that the log does not take on, so there are as many answers as have
    /// been tried.
    pub async fn publish_all_once(
        &self,
        publications: Vec<Publication>,
        window: Duration,
    ) -> Vec<Result<Appended, AppendError>> {
        self.0.log.append_all(publications, Some(window)).await
    }

    /// The log itself, for who asks about it.
    #[must_use]
    pub fn log(&self) -> Arc<dyn Log> {
        self.0.log.clone()
    }

    /// Which offsets the log holds.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        self.0.log.bounds()
    }

    /// How many subscriptions are reading the log rather than being handed messages.
    #[must_use]
    pub fn catching_up(&self) -> usize {
        self.0.catching_up.load(Ordering::Relaxed)
    }

    /// Which log this broker is on.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.0.log.epoch()
    }

    /// Whether the next publication can be expected to be kept.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.0.log.is_writable()
    }

    /// Subscribes to what is published from now on.
    #[must_use]
    pub fn subscribe(&self, filter: Filter) -> Subscription {
        let queue = self.0.hub.add(&filter, Queue::live());
        // What the log had before this line is not for the newcomer, though the hub may still
        // be handing it out.
        let next = self.0.log.bounds().next;
        Subscription::new(self.clone(), filter, queue, next)
    }

    /// Subscribes to everything retained from `start` on, and then to what is published. Also
    /// tells what of it is missing, if anything is or may be.
    ///
    /// # Errors
    ///
    /// When the log can't be read.
    pub async fn resume(
        &self,
        filter: Filter,
        start: Start,
    ) -> Result<(Subscription, Option<GapReason>), ReadError> {
        let log = &self.0.log;
        let from = match start {
            Start::Oldest => Offset::default(),
            Start::Since(time) => log.seek(time).await?,
            Start::After(cursor) if cursor.epoch == log.epoch() => cursor.offset.next(),
            Start::After(_) => Offset::default(),
        };
        // What is published while this is set up is read from the log like everything else.
        let queue = self.0.hub.add(&filter, Queue::behind());
        let end = log.bounds().next;
        queue.miss(end);
        let mut subscription = Subscription::new(self.clone(), filter.clone(), queue, from);
        let gap = match start {
            Start::After(cursor) if cursor.epoch != log.epoch() => Some(GapReason::Epoch),
            Start::After(cursor) if cursor.offset >= end => {
                subscription.next = Offset::default();
                Some(GapReason::Ahead)
            }
            _ => None,
        };
        let Some(first) = self.trimmed(&filter, subscription.next).await? else {
            let since = match start {
                Start::Since(_) => self.trimmed_since(&filter, from).await?,
                _ => false,
            };
            return Ok((
                subscription,
                gap.or_else(|| since.then_some(GapReason::Trimmed)),
            ));
        };
        subscription.next = first;
        let gap = match start {
            Start::Oldest => None,
            _ => gap.or(Some(GapReason::Trimmed)),
        };
        Ok((subscription, gap))
    }

    /// Where the log begins for this filter, if that is behind `from`.
    async fn trimmed(&self, filter: &Filter, from: Offset) -> Result<Option<Offset>, ReadError> {
        match self.0.log.read(filter.clone(), from, ONE).await {
            Ok(_) => Ok(None),
            Err(ReadError::Trimmed { first }) => Ok(Some(first)),
            Err(error) => Err(error),
        }
    }

    /// Whether messages may be missing that are not older than the one at `from`, which is the
    /// first that is not older than some time: unless one is left that is older, nobody knows how
    /// old those were that are gone.
    async fn trimmed_since(&self, filter: &Filter, from: Offset) -> Result<bool, ReadError> {
        let space = filter.space();
        let Some(first) = self.trimmed(&space, Offset::default()).await? else {
            return Ok(false);
        };
        let page = self.0.log.read(space, first, ONE).await?;
        let oldest = page.messages.first();
        Ok(oldest.is_none_or(|message| message.offset >= from))
    }

    /// Waits until everything in the log by now has been handed to the subscriptions.
    pub async fn flushed(&self) {
        let end = self.0.log.bounds().next;
        let mut fanned_out = self.0.fanned_out.subscribe();
        // The sender lives as long as `self`.
        let _ = fanned_out.wait_for(|upto| *upto >= end).await;
    }
}

/// As little as can be read.
const ONE: Limit = Limit {
    messages: 1,
    bytes: 0,
};

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the oldest message that is kept.
    Oldest,
    /// Behind this place.
    After(Cursor),
    /// With the first message that is not older.
    Since(SystemTime),
}

/// The work of handing each message to the subscriptions it is for.
pub struct FanOut {
    broker: Broker,
    tail: Box<dyn Tail>,
}

impl FanOut {
    /// Fans out until dropped.
    pub async fn run(mut self) {
        loop {
            let messages = self.tail.next().await;
            for message in &messages {
                self.broker.0.hub.deliver(message);
                // A wide fan-out takes a while, and connections share this thread.
                tokio::task::consume_budget().await;
            }
            if let Some(last) = messages.last() {
                self.broker.0.fanned_out.send_replace(last.offset.next());
            }
        }
    }
}

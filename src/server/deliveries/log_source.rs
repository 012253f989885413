//! The log as a source of messages: what was published, in its order, without a socket.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use hookbot_broker::{Broker, Missing, Start, Subscription};
use hookbot_forward::{Given, Message, Source, Trouble};
use hookbot_protocol::event::Event;
use hookbot_protocol::{Cursor, Filter, Message as Published, Offset, Topic};
use tokio::time::sleep;

use super::tally::Tally;

/// Messages of one filter.
#[derive(Clone)]
pub(super) struct LogSource {
    pub(super) broker: Broker,
    pub(super) filter: Filter,
    /// Whether those are for it, too, that anybody has published and nobody verified.
    pub(super) unverified: bool,
    pub(super) tally: Arc<Tally>,
}

impl Source for LogSource {
    fn name(&self) -> &str {
        self.filter.as_str()
    }

    /// Without a place, begins with the oldest message; so it does with one that it never gave:
    /// rather twice than not at all.
    fn open(&self, after: Option<&str>) -> BoxStream<'static, Given> {
        let cursor = after.and_then(|place| place.parse().ok());
        let feed = Feed {
            source: self.clone(),
            at: At::Before(cursor.map_or(Start::Oldest, Start::After)),
            told: cursor,
        };
        unfold(feed, |mut feed| async {
            let given = feed.next().await;
            Some((given, feed))
        })
        .boxed()
    }
}

struct Feed {
    source: LogSource,
    at: At,
    /// The place that was given last.
    told: Option<Cursor>,
}

enum At {
    /// It has to be opened there.
    Before(Start),
    /// It is open.
    Open(Box<Subscription>),
    /// It could not be read, and is opened there again after a while.
    Broken(Start),
}

impl Feed {
    async fn next(&mut self) -> Given {
        loop {
            match &mut self.at {
                At::Before(start) => {
                    let start = *start;
                    if let Some(trouble) = self.open(start).await {
                        return Given::Trouble(trouble);
                    }
                }
                At::Broken(start) => {
                    sleep(PAUSE).await;
                    self.at = At::Before(*start);
                }
                At::Open(subscription) => tokio::select! {
                    biased;
                    next = subscription.next() => return match next {
                        Ok(message) => self.given(&message),
                        Err(missing) => Given::Trouble(self.trouble(&missing)),
                    },
                    // So that nothing that was not for it is looked through again.
                    () = sleep(PERIOD) => {
                        let place = subscription.place().filter(|place| self.told != Some(*place));
                        if let Some(place) = place {
                            self.told = Some(place);
                            return Given::Place(place.to_string());
                        }
                    }
                },
            }
        }
    }

    async fn open(&mut self, start: Start) -> Option<Trouble> {
        let LogSource { broker, filter, .. } = &self.source;
        match broker.resume(filter.clone(), start).await {
            Ok((subscription, gap)) => {
                self.at = At::Open(Box::new(subscription));
                let told = |reason| format!("messages may be missing before this: {reason:?}");
                gap.map(|reason| Trouble::Missing(told(reason)))
            }
            Err(error) => {
                self.at = At::Broken(start);
                Some(Trouble::Lost(error.to_string()))
            }
        }
    }

    fn trouble(&mut self, missing: &Missing) -> Trouble {
        let text = missing.to_string();
        match missing {
            Missing::Gap { .. } => Trouble::Missing(text),
            Missing::Broken { at, .. } => {
                self.at = At::Broken(Start::After(self.behind(at.before())));
                Trouble::Lost(text)
            }
        }
    }

    fn given(&mut self, message: &Published) -> Given {
        let place = self.behind(message.offset);
        self.told = Some(place);
        let publication = &message.publication;
        let is_verified = publication.attributes.get("verified_by").is_some();
        if !self.source.takes(&publication.topic, is_verified) {
            return Given::Place(place.to_string());
        }
        self.source.tally.read(message.offset, message.time);
        let message = Message {
            event: Event::new(message, place.epoch),
            payload: publication.body.clone(),
        };
        Given::Message(Box::new(message), Some(place.to_string()))
    }

    fn behind(&self, offset: Offset) -> Cursor {
        Cursor {
            epoch: self.source.broker.epoch(),
            offset,
        }
    }
}

impl LogSource {
    /// What nobody has verified is for it only where that was said, and what the broker has put
    /// aside only where the filter names it.
    fn takes(&self, topic: &Topic, is_verified: bool) -> bool {
        let is_believed = !topic.is_unsafe() || is_verified || self.unverified;
        is_believed && (!topic.is_brokers_own() || self.filter != self.filter.space())
    }
}

/// How often an idle source tells its place.
const PERIOD: Duration = Duration::from_secs(30);

/// How long a log that can't be read is left alone.
const PAUSE: Duration = Duration::from_secs(10);

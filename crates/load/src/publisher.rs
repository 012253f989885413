//! One publisher: a keep-alive connection, and an account of what it sent.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::clock;
use crate::failure::Failure;
use crate::latency::Latencies;
use crate::ledger::Sent;
use crate::pace::Pace;
use crate::response::Responses;
use crate::stamp::Stamp;
use crate::stream::Stream;
use crate::target::{Peculiar, Target};

/// Publishes on a number of topics in turn.
#[derive(Debug)]
pub(crate) struct Publisher {
    target: Arc<Target>,
    stream: Stream,
    plan: Plan,
    number: u16,
    turn: usize,
    heads: Arc<[String]>,
    payload: Vec<u8>,
    sent: Vec<Sent>,
}

/// What publishers do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Which run it is.
    pub(crate) run: u16,
    /// How many topics there are.
    pub(crate) topics: u32,
    /// How large a payload is.
    pub(crate) size: usize,
    /// How many requests are under way on a connection.
    pub(crate) depth: usize,
}

/// What came of publishing.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Messages that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Answers that were no acknowledgement, by status.
    pub(crate) refused: BTreeMap<u16, u64>,
    /// Requests whose connection ended without an answer.
    pub(crate) unanswered: u64,
    /// Messages that were due and that there was no time to send.
    pub(crate) unsent: u64,
}

struct InFlight {
    topic: usize,
    sequence: u32,
    due: u64,
}

/// How long answers may take when there is nothing else to do.
const PATIENCE: Duration = Duration::from_secs(60);

impl Publisher {
    /// Connects so many.
    pub(crate) async fn connect_all(
        target: &Arc<Target>,
        plan: Plan,
        publishers: usize,
    ) -> Result<Vec<Self>, Failure> {
        let heads: Arc<[_]> = (0..plan.topics)
            .map(|topic| target.publish_head(plan.run, topic, plan.size))
            .collect();
        let mut all = Vec::with_capacity(publishers);
        for number in 0..publishers {
            let connected = target.connect(Peculiar::default()).await;
            let number = u16::try_from(number)
                .map_err(|_| Failure::Usage("more than 65536 publishers".to_owned()))?;
            all.push(Self {
                target: target.clone(),
                stream: connected.map_err(Failure::Unreachable)?,
                plan,
                number,
                // They begin at different topics.
                turn: usize::from(number) % heads.len(),
                heads: heads.clone(),
                payload: Stamp::blank(plan.size),
                sent: vec![Sent::default(); heads.len()],
            });
        }
        Ok(all)
    }

    /// What it sent on this topic.
    pub(crate) fn sent(&self, topic: u32) -> &Sent {
        &self.sent[topic as usize]
    }

    /// Lets all of them publish at once, each at its pace.
    pub(crate) async fn publish_all(
        publishers: &mut Vec<Self>,
        paces: impl IntoIterator<Item = Pace>,
        limit: Duration,
        waits: &Arc<Latencies>,
    ) -> Result<Published, Failure> {
        let mut tasks = JoinSet::new();
        for (mut publisher, mut pace) in publishers.drain(..).zip(paces) {
            let waits = waits.clone();
            tasks.spawn(async move {
                let published = publisher.publish(&mut pace, &waits).await;
                (publisher, published)
            });
        }
        let late = || io::Error::new(io::ErrorKind::TimedOut, "publishers wait for answers");
        let ended = timeout(limit + PATIENCE, tasks.join_all()).await;
        let ended = ended.map_err(|_| Failure::Unreachable(late()))?;
        let mut all = Published::default();
        for (publisher, published) in ended {
            all.add(&published.map_err(Failure::Unreachable)?);
            publishers.push(publisher);
        }
        // Ledgers know publishers by their place.
        publishers.sort_unstable_by_key(|publisher| publisher.number);
        Ok(all)
    }

    async fn publish(&mut self, pace: &mut Pace, waits: &Latencies) -> io::Result<Published> {
        let mut published = Published::default();
        let mut flying = VecDeque::with_capacity(self.plan.depth);
        let mut responses = Responses::default();
        let mut requests = Vec::new();
        loop {
            while flying.len() < self.plan.depth
                && let Some(due) = pace.take()
            {
                flying.push_back(self.request(due, &mut requests));
            }
            let mut alive = true;
            if !requests.is_empty() {
                alive = write(&mut self.stream, &requests).await.is_ok();
                requests.clear();
            }
            if flying.is_empty() {
                if pace.is_over() {
                    break;
                }
                pace.wait().await;
                continue;
            }
            if alive {
                let idle = flying.len() < self.plan.depth && pace.is_open() && !pace.is_over();
                let read = tokio::select! {
                    biased;
                    read = self.stream.read_buf(responses.buffer()) => read,
                    () = pace.wait(), if idle => continue,
                };
                alive = read.is_ok_and(|read| read > 0);
            }
            while let Some(response) = responses.next()? {
                let Some(InFlight {
                    topic,
                    sequence,
                    due,
                }) = flying.pop_front()
                else {
                    return Err(io::Error::other("an answer that nobody asked for"));
                };
                alive &= !response.closes;
                if matches!(response.status, 200..300) {
                    published.acknowledged += 1;
                    waits.record([clock::now().saturating_sub(due)]);
                } else {
                    *published.refused.entry(response.status).or_default() += 1;
                    self.sent[topic].unacknowledged.push(sequence);
                }
            }
            if !alive {
                published.unanswered += flying.len() as u64;
                for InFlight {
                    topic, sequence, ..
                } in flying.drain(..)
                {
                    self.sent[topic].unacknowledged.push(sequence);
                }
                responses = Responses::default();
                self.stream = self.target.connect(Peculiar::default()).await?;
            }
        }
        published.unsent = pace.unsent();
        Ok(published)
    }

    /// Writes the next message's request behind others.
    fn request(&mut self, due: u64, requests: &mut Vec<u8>) -> InFlight {
        let topic = self.turn;
        self.turn = (self.turn + 1) % self.heads.len();
        let sequence = self.sent[topic].count;
        self.sent[topic].count += 1;
        let stamp = Stamp {
            run: self.plan.run,
            publisher: self.number,
            topic: topic as u32,
            sequence,
            sent: due,
        };
        stamp.write(&mut self.payload);
        requests.extend_from_slice(self.heads[topic].as_bytes());
        requests.extend_from_slice(&self.payload);
        InFlight {
            topic,
            sequence,
            due,
        }
    }
}

impl Published {
    /// Adds another's counts.
    pub(crate) fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.unanswered += other.unanswered;
        self.unsent += other.unsent;
        for (status, count) in &other.refused {
            *self.refused.entry(*status).or_default() += count;
        }
    }
}

async fn write(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

//! One stretch of load on subscribers that are there, and what it took.

use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock;
use crate::crowd::Crowd;
use crate::failure::Failure;
use crate::latency::Latencies;
use crate::pace::Pace;
use crate::publisher::{Published, Publisher};
use crate::row::Row;
use crate::session::Session;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Phase {
    /// What publishers were told.
    pub(crate) published: Published,
    /// How many messages came to their subscribers.
    pub(crate) received: u64,
    /// From the first publish until the last was answered.
    pub(crate) publishing: f64,
    /// From the first publish until the last delivery, in seconds.
    pub(crate) delivering: f64,
    /// The server's processor time, in microseconds; not a number where it is unknown.
    pub(crate) used: f64,
    /// How long publishers waited for an answer.
    pub(crate) publish: Histogram<u64>,
    /// How long messages took to their subscribers.
    pub(crate) e2e: Histogram<u64>,
}

impl Phase {
    /// Publishes at these paces, which take about so long, and waits until everything that was
    /// acknowledged has come, or nothing does any more.
    pub(crate) async fn run(
        session: &Session,
        crowd: &Crowd,
        publishers: &mut Vec<Publisher>,
        paces: impl IntoIterator<Item = Pace>,
        time: Duration,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let waits = Arc::new(Latencies::new());
        let arrivals = &crowd.arrivals;
        let before = arrivals.received();
        let usage = session.usage()?;
        let began = clock::now();
        let published = Publisher::publish_all(publishers, paces, time * 2, &waits).await?;
        let publishing = seconds_between(began, clock::now());
        arrivals.reach(crowd.expected(publishers), patience).await;
        let used = session.microseconds_since(usage.as_ref())?;
        let delivering = seconds_between(began, arrivals.last());
        // What comes twice comes after that.
        arrivals.quiet().await;
        Ok(Self {
            published,
            received: arrivals.received() - before,
            publishing,
            delivering,
            used,
            publish: waits.take(),
            e2e: arrivals.waits.take(),
        })
    }

    /// The server's processor time a delivery.
    pub(crate) fn us_per_delivery(&self) -> f64 {
        self.used / self.received as f64
    }

    /// The server's processor time a publish, with its deliveries.
    pub(crate) fn us_per_publish(&self) -> f64 {
        self.used / self.published.acknowledged as f64
    }
}

impl Row {
    /// Adds what was published and not acknowledged.
    pub(crate) fn published(&mut self, published: &Published) {
        self.refused(&published.refused);
        self.fault("unanswered", published.unanswered);
        self.fault("unsent", published.unsent);
    }
}

fn seconds_between(began: u64, ended: u64) -> f64 {
    ended.saturating_sub(began) as f64 / 1e9
}

//! `fanout`: publishers and subscribers.

use std::sync::Arc;

use crate::arguments::{FanoutArgs, LoadArgs};
use crate::clock;
use crate::crowd::{Call, Crowd};
use crate::descriptors;
use crate::failure::Failure;
use crate::latency::Latencies;
use crate::pace::Pace;
use crate::publisher::{Plan, Publisher};
use crate::report::Row;
use crate::schedule::Schedule;
use crate::session::Session;

impl LoadArgs {
    /// How so many publishers are paced.
    pub(crate) fn paces(&self, publishers: usize) -> Vec<Pace> {
        let Some(rate) = self.rate else {
            return (0..publishers)
                .map(|_| Pace::closed(self.duration))
                .collect();
        };
        let schedule = Schedule::new(clock::now(), rate, self.duration);
        let shares = schedule.start(publishers).into_iter();
        shares
            .map(|share| Pace::open(share, self.duration))
            .collect()
    }

    /// The settings that a row names.
    pub(crate) fn settings(&self) -> [(&'static str, String); 4] {
        let rate = self
            .rate
            .map_or_else(|| "closed".to_owned(), |rate| rate.to_string());
        [
            ("size", self.size.to_string()),
            ("rate", rate),
            ("pipeline", self.pipeline.to_string()),
            ("seconds", self.duration.as_secs_f64().to_string()),
        ]
    }

    /// What publishers of so many topics do.
    pub(crate) fn plan(&self, run: u16, topics: u32) -> Plan {
        Plan {
            run,
            topics,
            size: self.size,
            depth: self.pipeline.into(),
        }
    }
}

/// One round.
pub(crate) async fn round(args: &FanoutArgs, session: &Session) -> Result<Row, Failure> {
    let FanoutArgs {
        subscribers,
        topics,
        ..
    } = *args;
    let load = &args.load;
    let count = usize::from(args.publishers);
    descriptors::need(u64::from(subscribers) + count as u64)?;
    let target = &session.target;
    let plan = load.plan(session.run(), topics);
    let call = Call {
        run: plan.run,
        size: plan.size,
        publishers: count,
    };
    let mut crowd = Crowd::new(target, call);
    crowd
        .join((0..subscribers).map(|number| number % topics))
        .await?;
    let mut publishers = Publisher::connect_all(target, plan, count).await?;
    let waits = Arc::new(Latencies::new());

    let memory = session.memory()?;
    let usage = session.usage()?;
    let began = clock::now();
    let paces = load.paces(count);
    let limit = load.duration * 2;
    let published = Publisher::publish_all(&mut publishers, paces, limit, &waits).await?;
    let publishing = (clock::now() - began) as f64 / 1e9;
    let expected = crowd.expected(&publishers);
    crowd.arrivals.reach(expected, args.run.patience).await;
    let used = session.microseconds_since(usage.as_ref())?;
    let delivering = crowd.arrivals.last().saturating_sub(began) as f64 / 1e9;
    let after = session.memory()?;
    crowd.arrivals.quiet().await;

    let tally = crowd.settle(&publishers);
    let (acknowledged, received) = (published.acknowledged as f64, tally.received as f64);
    let mut row = Row::new([
        ("shape", format!("{:?}", target.shape()).to_lowercase()),
        ("subscribers", subscribers.to_string()),
        ("topics", topics.to_string()),
        ("publishers", count.to_string()),
    ]);
    row.settings(load.settings());
    row.figure("acknowledged", acknowledged);
    row.figure("acknowledged_per_s", acknowledged / publishing);
    row.figure("deliveries", received);
    row.figure("deliveries_per_s", received / delivering);
    row.waits("publish", &waits.take());
    row.waits("e2e", &crowd.arrivals.waits.take());
    row.figure("server_us_per_delivery", used / received);
    row.figure("server_us_per_publish", used / acknowledged);
    row.memory("before", memory);
    row.memory("after", after);
    row.published(&published);
    row.tally(&tally);
    row.fault("cut_off", crowd.cut_off());
    Ok(row)
}

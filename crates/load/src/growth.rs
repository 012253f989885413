//! `growth`: the time of a publish against the number of its subscribers, and against the number
//! of other topics.
//!
//! A message waits until all but a few of those before it have reached everybody, so that the time
//! of each is its own and not that of a queue.

use std::time::Duration;

use clap::Args;

use crate::arguments::{RunArgs, TargetArgs, size, topics};
use crate::clock;
use crate::crowd::{Call, Crowd, Habit};
use crate::descriptors;
use crate::failure::Failure;
use crate::latency::Latencies;
use crate::ledger::Tally;
use crate::pace::Pace;
use crate::phase::Phase;
use crate::publisher::{Plan, Publisher};
use crate::row::Row;
use crate::session::Session;

/// Requests under way while other topics are filled: nobody measures that.
const DEPTH: usize = 64;

/// How long that may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What is typed behind `growth`.
#[derive(Debug, Args)]
pub(crate) struct GrowthArgs {
    /// Numbers of subscribers to one topic, a row each.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NUMBERS",
        default_value = "1,10,100,1000,10000"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) subscribers: Vec<u32>,

    /// Numbers of topics, of which one is measured, a row each. Each of the others has a message,
    /// and a subscriber while descriptors last.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NUMBERS",
        default_value = "1,1000,100000"
    )]
    #[arg(value_parser = topics())]
    pub(crate) topics: Vec<u32>,

    /// How many messages may be on their way to their subscribers.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) window: u16,

    /// Bytes of a payload.
    #[arg(long, default_value_t = 1_024, value_parser = size)]
    pub(crate) size: usize,

    /// How long to publish for each row.
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,

    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// One round: a row for each number of subscribers, and one for each number of topics.
pub(crate) async fn round(args: &GrowthArgs, session: &Session) -> Result<Vec<Row>, Failure> {
    let by_subscribers = args
        .subscribers
        .iter()
        .map(|count| ("subscribers", *count, 1));
    let by_topics = args.topics.iter().map(|count| ("topics", 1, *count));
    let mut rows = Vec::new();
    for (series, subscribers, topics) in by_subscribers.chain(by_topics) {
        rows.push(measure(args, session, series, subscribers, topics).await?);
    }
    Ok(rows)
}

async fn measure(
    args: &GrowthArgs,
    session: &Session,
    series: &'static str,
    subscribers: u32,
    topics: u32,
) -> Result<Row, Failure> {
    descriptors::need(u64::from(subscribers) + 2)?;
    let target = &session.target;
    let others = Others::settle(args, session, topics - 1, subscribers).await?;
    let plan = Plan {
        run: session.run(),
        topics: 1,
        size: args.size,
        depth: 1,
    };
    let mut crowd = Crowd::new(target, Call::new(plan, 1));
    crowd
        .join(std::iter::repeat_n(0, subscribers as usize), Habit::Read)
        .await?;
    let mut publishers = Publisher::connect_all(target, plan, 1).await?;
    crowd.arrivals.watch();
    let pace = [Pace::Window {
        arrivals: crowd.arrivals.clone(),
        subscribers: subscribers.into(),
        window: args.window.into(),
        expected: 0,
        until: clock::now() + args.duration.as_nanos() as u64,
    }];
    let (time, patience) = (args.duration, args.run.patience);
    let phase = Phase::run(session, &crowd, &mut publishers, pace, time, patience).await?;

    let mut row = Row::new([
        ("shape", target.shape().to_string()),
        ("series", series.to_owned()),
        ("subscribers", subscribers.to_string()),
        ("topics", topics.to_string()),
        ("subscribed", (others.subscribed + 1).to_string()),
        ("size", args.size.to_string()),
        ("window", args.window.to_string()),
    ]);
    let acknowledged = phase.published.acknowledged as f64;
    row.figure("acknowledged_per_s", acknowledged / phase.delivering);
    row.figure("server_us_per_publish", phase.us_per_publish());
    row.figure("server_us_per_delivery", phase.us_per_delivery());
    row.waits("publish", &phase.publish);
    row.waits("e2e", &phase.e2e);
    row.memory("after", session.memory()?);
    row.published(&phase.published);
    let mut tally = crowd.settle(&publishers);
    tally.add(&others.tally());
    row.tally(&tally);
    row.fault("cut_off", crowd.cut_off());
    Ok(row)
}

/// Topics that are not measured, but are there: each has a message, and a subscriber while
/// descriptors last.
struct Others {
    crowd: Crowd,
    publishers: Vec<Publisher>,
    subscribed: u32,
}

impl Others {
    async fn settle(
        args: &GrowthArgs,
        session: &Session,
        topics: u32,
        besides: u32,
    ) -> Result<Self, Failure> {
        let target = &session.target;
        let plan = Plan {
            run: session.run(),
            topics,
            size: args.size,
            depth: DEPTH,
        };
        let left = descriptors::available().saturating_sub(u64::from(besides) + 2);
        let subscribed = topics.min(u32::try_from(left).unwrap_or(u32::MAX));
        let mut crowd = Crowd::new(target, Call::new(plan, 1));
        crowd.join(0..subscribed, Habit::Read).await?;
        let mut publishers = Vec::new();
        if topics > 0 {
            publishers = Publisher::connect_all(target, plan, 1).await?;
            let pace = [Pace::Burst {
                left: topics.into(),
            }];
            let waits = Latencies::new().into();
            Publisher::publish_all(&mut publishers, pace, LIMIT, &waits).await?;
        }
        let expected = crowd.expected(&publishers);
        crowd.arrivals.reach(expected, args.run.patience).await;
        Ok(Self {
            crowd,
            publishers,
            subscribed,
        })
    }

    fn tally(&self) -> Tally {
        self.crowd.settle(&self.publishers)
    }
}

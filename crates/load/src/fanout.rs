//! `fanout`: publishers and subscribers.

use clap::Args;

use crate::arguments::{LoadArgs, RunArgs, TargetArgs, topics};
use crate::crowd::{Call, Crowd, Habit};
use crate::descriptors;
use crate::failure::Failure;
use crate::phase::Phase;
use crate::publisher::Publisher;
use crate::row::Row;
use crate::session::Session;

/// What is typed behind `fanout`.
#[derive(Debug, Args)]
pub(crate) struct FanoutArgs {
    /// How many subscribers, spread over the topics.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) subscribers: u32,

    /// How many topics; each publisher publishes on them in turn.
    #[arg(long, default_value_t = 1, value_parser = topics())]
    pub(crate) topics: u32,

    /// How many publishers.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) publishers: u16,

    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
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
    let mut crowd = Crowd::new(target, Call::new(plan, count));
    let numbers = 0..subscribers;
    crowd
        .join(numbers.map(|number| number % topics), Habit::Read)
        .await?;
    let mut publishers = Publisher::connect_all(target, plan, count).await?;

    let memory = session.memory()?;
    let (paces, patience) = (load.paces(load.rate, count), args.run.patience);
    let publishers_ref = &mut publishers;
    let phase = Phase::run(
        session,
        &crowd,
        publishers_ref,
        paces,
        load.duration,
        patience,
    )
    .await?;
    let after = session.memory()?;

    let mut row = Row::new([
        ("shape", target.shape().to_string()),
        ("subscribers", subscribers.to_string()),
        ("topics", topics.to_string()),
        ("publishers", count.to_string()),
    ]);
    row.settings(load.settings(load.rate));
    let acknowledged = phase.published.acknowledged as f64;
    row.figure("acknowledged", acknowledged);
    row.figure("acknowledged_per_s", acknowledged / phase.publishing);
    row.figure("deliveries", phase.received as f64);
    row.figure("deliveries_per_s", phase.received as f64 / phase.delivering);
    row.waits("publish", &phase.publish);
    row.waits("e2e", &phase.e2e);
    row.figure("server_us_per_delivery", phase.us_per_delivery());
    row.figure("server_us_per_publish", phase.us_per_publish());
    row.memory("before", memory);
    row.memory("after", after);
    row.published(&phase.published);
    row.tally(&crowd.settle(&publishers));
    row.fault("cut_off", crowd.cut_off());
    Ok(row)
}

//! `resume`: subscribers that hang up again and again under load, and go on where they were.

use clap::Args;

use crate::arguments::{LoadArgs, RunArgs, TargetArgs, topics};
use crate::crowd::{Call, Crowd, Habit, Interruptions};
use crate::descriptors;
use crate::failure::Failure;
use crate::phase::Phase;
use crate::publisher::Publisher;
use crate::row::Row;
use crate::session::Session;
use crate::shape::Shape;

/// What is typed behind `resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// How many subscribers, spread over the topics.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) subscribers: u32,

    /// How often each hangs up and goes on where it was.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(..1_000_000))]
    pub(crate) times: u32,

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
pub(crate) async fn round(args: &ResumeArgs, session: &Session) -> Result<Row, Failure> {
    let ResumeArgs {
        subscribers,
        topics,
        times,
        ..
    } = *args;
    let load = &args.load;
    let count = usize::from(args.publishers);
    let target = &session.target;
    if target.shape() != Shape::Hookbot {
        return Err(Failure::Usage("cursors are hookbot's alone".to_owned()));
    }
    // One may have its next connection before its last one is gone.
    descriptors::need(2 * u64::from(subscribers) + count as u64)?;
    let plan = load.plan(session.run(), topics);
    let mut crowd = Crowd::new(target, Call::new(plan, count));
    let interruptions = Interruptions {
        times,
        every: load.duration / (times + 1),
    };
    let numbers = (0..subscribers).map(|number| number % topics);
    crowd.join(numbers, Habit::Resume(interruptions)).await?;
    let mut publishers = Publisher::connect_all(target, plan, count).await?;

    let memory = session.memory()?;
    let rate = load.rate_or_default();
    let (paces, patience) = (load.paces(rate, count), args.run.patience);
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

    let mut row = Row::new([
        ("shape", target.shape().to_string()),
        ("subscribers", subscribers.to_string()),
        ("topics", topics.to_string()),
        ("publishers", count.to_string()),
        ("times", times.to_string()),
    ]);
    row.settings(load.settings(rate));
    row.figure("resumed", crowd.resumed() as f64);
    row.figure("acknowledged", phase.published.acknowledged as f64);
    row.figure("deliveries", phase.received as f64);
    row.waits("publish", &phase.publish);
    row.waits("e2e", &phase.e2e);
    row.figure("server_us_per_delivery", phase.us_per_delivery());
    row.memory("before", memory);
    row.memory("after", session.memory()?);
    row.published(&phase.published);
    row.fault("gaps", crowd.gaps());
    row.tally(&crowd.settle(&publishers));
    row.fault("cut_off", crowd.cut_off());
    Ok(row)
}

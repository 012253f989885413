//! `slow`: what subscribers that never read cost those that do, and the server.

use clap::Args;

use crate::arguments::{LoadArgs, RunArgs, TargetArgs};
use crate::crowd::{Call, Crowd, Habit};
use crate::descriptors;
use crate::failure::Failure;
use crate::phase::Phase;
use crate::publisher::{Published, Publisher};
use crate::row::Row;
use crate::session::Session;

/// What is typed behind `slow`.
#[derive(Debug, Args)]
pub(crate) struct SlowArgs {
    /// How many subscribers read.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) subscribers: u32,

    /// How many never do.
    #[arg(long, default_value_t = 100)]
    pub(crate) stalled: u32,

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

/// One round: the same load on the same readers, first alone, then beside the stalled ones.
pub(crate) async fn round(args: &SlowArgs, session: &Session) -> Result<Row, Failure> {
    let load = &args.load;
    let count = usize::from(args.publishers);
    descriptors::need(u64::from(args.subscribers) + u64::from(args.stalled) + count as u64)?;
    let target = &session.target;
    let plan = load.plan(session.run(), 1);
    let mut crowd = Crowd::new(target, Call::new(plan, count));
    crowd
        .join(
            std::iter::repeat_n(0, args.subscribers as usize),
            Habit::Read,
        )
        .await?;
    let mut publishers = Publisher::connect_all(target, plan, count).await?;
    let rate = load.rate_or_default();

    let mut row = Row::new([
        ("shape", target.shape().to_string()),
        ("subscribers", args.subscribers.to_string()),
        ("stalled", args.stalled.to_string()),
        ("publishers", count.to_string()),
    ]);
    row.settings(load.settings(rate));
    row.memory("before", session.memory()?);
    let mut published = Published::default();
    for name in ["alone", "beside"] {
        if name == "beside" {
            let stalled = std::iter::repeat_n(0, args.stalled as usize);
            crowd.join(stalled, Habit::Stall).await?;
        }
        let (paces, patience) = (load.paces(rate, count), args.run.patience);
        let publishers = &mut publishers;
        let phase = Phase::run(session, &crowd, publishers, paces, load.duration, patience).await?;
        row.figure(format!("{name}_deliveries"), phase.received as f64);
        row.waits(&format!("{name}_publish"), &phase.publish);
        row.waits(&format!("{name}_e2e"), &phase.e2e);
        row.figure(
            format!("{name}_server_us_per_delivery"),
            phase.us_per_delivery(),
        );
        row.memory(name, session.memory()?);
        published.add(&phase.published);
    }
    row.published(&published);
    row.tally(&crowd.settle(&publishers));
    row.fault("cut_off", crowd.cut_off());
    Ok(row)
}

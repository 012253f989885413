//! `idle`: what subscribers take that only wait, and what is left of a burst.

use std::time::Duration;

use clap::Args;

use crate::arguments::{RunArgs, TargetArgs, size};
use crate::crowd::{Call, Crowd, Habit};
use crate::descriptors;
use crate::failure::Failure;
use crate::pace::Pace;
use crate::phase::Phase;
use crate::process::Memory;
use crate::publisher::{Plan, Publisher};
use crate::row::Row;
use crate::session::Session;

/// How long a burst may take to be answered.
const LIMIT: Duration = Duration::from_secs(60);

/// What is typed behind `idle`.
#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    /// How many subscribers.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) subscribers: u32,

    /// How many messages the burst at the end has.
    #[arg(long, default_value_t = 10, value_name = "MESSAGES")]
    pub(crate) burst: u32,

    /// Bytes of a payload.
    #[arg(long, default_value_t = 1_024, value_parser = size)]
    pub(crate) size: usize,

    /// How long the server may take to give memory back after the burst.
    #[arg(long, default_value = "3s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) settle: Duration,

    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// One round.
pub(crate) async fn round(args: &IdleArgs, session: &Session) -> Result<Row, Failure> {
    let subscribers = args.subscribers;
    descriptors::need(u64::from(subscribers) + 1)?;
    let target = &session.target;
    let plan = Plan {
        run: session.run(),
        topics: 1,
        size: args.size,
        depth: 1,
    };
    let mut crowd = Crowd::new(target, Call::new(plan, 1));
    // What is there once for all is there before anything is measured.
    let mut publishers = Publisher::connect_all(target, plan, 1).await?;
    crowd.join([0], Habit::Read).await?;
    let before = session.memory()?;
    let usage = session.usage()?;
    let others = std::iter::repeat_n(0, subscribers as usize - 1);
    let connecting = crowd.join(others, Habit::Read).await?;
    let connect_us = session.microseconds_since(usage.as_ref())?;
    let idle = session.memory()?;

    let patience = args.run.patience;
    let one = [Pace::Burst { left: 1 }];
    let broadcast = Phase::run(session, &crowd, &mut publishers, one, LIMIT, patience).await?;
    let used = session.memory()?;
    let left = args.burst.into();
    let many = [Pace::Burst { left }];
    let burst = Phase::run(session, &crowd, &mut publishers, many, LIMIT, patience).await?;
    let full = session.memory()?;
    tokio::time::sleep(args.settle).await;
    let settled = session.memory()?;

    let count = f64::from(subscribers);
    let each = |memory: Option<Memory>, bytes: fn(Memory) -> u64| {
        let more = memory
            .zip(before)
            .map(|(now, before)| bytes(now) as f64 - bytes(before) as f64);
        more.map_or(f64::NAN, |more| more / (count - 1.0).max(1.0))
    };
    let mut row = Row::new([
        ("shape", target.shape().to_string()),
        ("subscribers", subscribers.to_string()),
        ("size", args.size.to_string()),
        ("burst", args.burst.to_string()),
    ]);
    row.figure("connect_per_s", (count - 1.0) / connecting.as_secs_f64());
    row.figure("server_us_per_connect", connect_us / (count - 1.0));
    for (when, memory) in [
        ("idle", idle),
        ("broadcast", used),
        ("burst", full),
        ("settled", settled),
    ] {
        row.figure(
            format!("{when}_rss_bytes_each"),
            each(memory, |own| own.resident),
        );
        row.figure(
            format!("{when}_anon_bytes_each"),
            each(memory, |own| own.anonymous),
        );
    }
    row.figure("broadcast_ms", broadcast.delivering * 1e3);
    row.figure(
        "broadcast_server_us_per_delivery",
        broadcast.us_per_delivery(),
    );
    row.waits("broadcast_e2e", &broadcast.e2e);
    row.figure(
        "burst_deliveries_per_s",
        burst.received as f64 / burst.delivering,
    );
    row.figure("burst_server_us_per_delivery", burst.us_per_delivery());
    row.waits("burst_e2e", &burst.e2e);
    row.memory("before", before);
    row.memory("after", settled);
    let mut published = broadcast.published;
    published.add(&burst.published);
    row.published(&published);
    row.tally(&crowd.settle(&publishers));
    row.fault("cut_off", crowd.cut_off());
    Ok(row)
}

//! `idle`: what subscribers take that only wait, and what is left of a burst.

use std::sync::Arc;
use std::time::Duration;

use crate::arguments::IdleArgs;
use crate::clock;
use crate::crowd::{Call, Crowd};
use crate::descriptors;
use crate::failure::Failure;
use crate::latency::Latencies;
use crate::pace::Pace;
use crate::process::Memory;
use crate::publisher::{Plan, Publisher};
use crate::report::Row;
use crate::session::Session;

/// How long a burst may take to be answered.
const LIMIT: Duration = Duration::from_secs(60);

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
    let call = Call {
        run: plan.run,
        size: plan.size,
        publishers: 1,
    };
    let mut crowd = Crowd::new(target, call);
    // What is there once for all is there before anything is measured.
    let mut publishers = Publisher::connect_all(target, plan, 1).await?;
    crowd.join([0]).await?;
    let before = session.memory()?;
    let usage = session.usage()?;
    let connecting = crowd
        .join(std::iter::repeat_n(0, subscribers as usize - 1))
        .await?;
    let connect_us = session.microseconds_since(usage.as_ref())?;
    let idle = session.memory()?;

    let waits = Arc::new(Latencies::new());
    let mut refused = Vec::new();
    let mut spans = Vec::new();
    for messages in [1, args.burst] {
        let usage = session.usage()?;
        let began = clock::now();
        let pace = [Pace::Burst {
            left: messages.into(),
        }];
        refused.push(Publisher::publish_all(&mut publishers, pace, LIMIT, &waits).await?);
        let expected = crowd.expected(&publishers);
        crowd.arrivals.reach(expected, args.run.patience).await;
        let used = session.microseconds_since(usage.as_ref())?;
        let seconds = crowd.arrivals.last().saturating_sub(began) as f64 / 1e9;
        spans.push((
            seconds,
            used,
            session.memory()?,
            crowd.arrivals.waits.take(),
        ));
    }
    crowd.arrivals.quiet().await;
    tokio::time::sleep(args.settle).await;
    let settled = session.memory()?;

    let tally = crowd.settle(&publishers);
    let count = f64::from(subscribers);
    let each = |memory: Option<Memory>, bytes: fn(Memory) -> u64| {
        let more = memory
            .zip(before)
            .map(|(now, before)| bytes(now) as f64 - bytes(before) as f64);
        more.map_or(f64::NAN, |more| more / (count - 1.0).max(1.0))
    };
    let mut row = Row::new([
        ("shape", format!("{:?}", target.shape()).to_lowercase()),
        ("subscribers", subscribers.to_string()),
        ("size", args.size.to_string()),
        ("burst", args.burst.to_string()),
    ]);
    row.figure("connect_per_s", (count - 1.0) / connecting.as_secs_f64());
    row.figure("server_us_per_connect", connect_us / (count - 1.0));
    for (when, memory) in [
        ("idle", idle),
        ("broadcast", spans[0].2),
        ("burst", spans[1].2),
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
    row.figure("broadcast_ms", spans[0].0 * 1e3);
    row.figure("broadcast_server_us_per_delivery", spans[0].1 / count);
    row.waits("broadcast_e2e", &spans[0].3);
    let burst = count * f64::from(args.burst);
    row.figure("burst_deliveries_per_s", burst / spans[1].0);
    row.figure("burst_server_us_per_delivery", spans[1].1 / burst);
    row.waits("burst_e2e", &spans[1].3);
    row.memory("before", before);
    row.memory("after", settled);
    let refusals = refused
        .iter()
        .map(|published| published.refused.values().sum::<u64>());
    row.fault("refused", refusals.sum());
    row.tally(&tally);
    row.fault("cut_off", crowd.cut_off());
    Ok(row)
}

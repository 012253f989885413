//! `publish`: publishers without subscribers.

use std::sync::Arc;

use clap::Args;

use crate::arguments::{LoadArgs, RunArgs, TargetArgs, topics};
use crate::clock;
use crate::descriptors;
use crate::failure::Failure;
use crate::latency::Latencies;
use crate::publisher::Publisher;
use crate::row::Row;
use crate::session::Session;

/// What is typed behind `publish`.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// How many publishers, each with a connection.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) connections: u16,

    /// How many topics; each publisher publishes on them in turn.
    #[arg(long, default_value_t = 1, value_parser = topics())]
    pub(crate) topics: u32,

    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// One round.
pub(crate) async fn round(args: &PublishArgs, session: &Session) -> Result<Row, Failure> {
    let load = &args.load;
    let count = usize::from(args.connections);
    descriptors::need(count as u64)?;
    let target = &session.target;
    let plan = load.plan(session.run(), args.topics);
    let mut publishers = Publisher::connect_all(target, plan, count).await?;
    let waits = Arc::new(Latencies::new());

    let memory = session.memory()?;
    let usage = session.usage()?;
    let began = clock::now();
    let paces = load.paces(load.rate, count);
    let limit = load.duration * 2;
    let published = Publisher::publish_all(&mut publishers, paces, limit, &waits).await?;
    let seconds = (clock::now() - began) as f64 / 1e9;
    let used = session.microseconds_since(usage.as_ref())?;

    let acknowledged = published.acknowledged as f64;
    let mut row = Row::new([
        ("shape", target.shape().to_string()),
        ("connections", count.to_string()),
        ("topics", args.topics.to_string()),
    ]);
    row.settings(load.settings(load.rate));
    row.figure("acknowledged", acknowledged);
    row.figure("acknowledged_per_s", acknowledged / seconds);
    row.waits("publish", &waits.take());
    row.figure("server_us_per_publish", used / acknowledged);
    row.memory("before", memory);
    row.memory("after", session.memory()?);
    row.published(&published);
    Ok(row)
}

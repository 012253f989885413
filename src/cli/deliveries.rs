//! `hookbot deliveries`: how far each delivery has got, what holds it up, and going on with one.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use hookbot_protocol::event::rfc3339;

use super::running::RunningArgs;
use super::{Failure, output};
use crate::server::admin::{Line, Question};
use crate::server::{DeliveryReport, DeliveryState};

/// Tells how each delivery of a running server is doing.
///
/// Deliveries are the [[deliver]] of its configuration file. Messages that were put aside are
/// listed by hookbot dead.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct DeliveriesArgs {
    #[command(subcommand)]
    command: Option<Deliveries>,

    #[command(flatten)]
    running: RunningArgs,

    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Deliveries {
    /// Go on with a delivery that has ended because its service answered 410, with the message
    /// that it answered so.
    Resume {
        /// Its name.
        name: String,

        #[command(flatten)]
        running: RunningArgs,
    },
}

pub(super) fn run(args: &DeliveriesArgs) -> Result<(), Failure> {
    if let Some(Deliveries::Resume { name, running }) = &args.command {
        let delivery = name.clone();
        return running.ask(&Question::Resume { delivery }, |line| match line {
            Line::Resumed(name) => output::line(&format!("{name} goes on")),
            _ => Ok(()),
        });
    }
    args.running.ask(&Question::Deliveries, |line| match line {
        Line::Delivery(report) if args.json => output::line(&serde_json::json!(report).to_string()),
        Line::Delivery(report) => delivery(&report),
        _ => Ok(()),
    })
}

fn delivery(report: &DeliveryReport) -> Result<(), Failure> {
    let DeliveryReport {
        name,
        topic,
        url,
        delivered,
        failed,
        parked,
        lag,
        ..
    } = report;
    let state = match report.state {
        DeliveryState::Running => "running",
        DeliveryState::Retrying => "retrying",
        DeliveryState::Paused => "paused, the service fails",
        DeliveryState::Gone => "ended, the service wants no more: see hookbot deliveries resume",
        DeliveryState::Failed => "failed, nothing is delivered",
    };
    output::line(&format!("{name} from {topic} to {url}: {state}"))?;
    let place = report.place.as_deref().unwrap_or("nowhere");
    output::line(&format!(
        "  {delivered} delivered, {failed} failed attempts, {parked} put aside; at {place}, {lag} s behind"
    ))?;
    if report.forbidden > 0 {
        let forbidden = report.forbidden;
        output::line(&format!(
            "  {forbidden} connections were not made for where they led: see `allow`"
        ))?;
    }
    if report.gaps > 0 {
        let gaps = report.gaps;
        output::line(&format!(
            "  {gaps} times messages were no longer kept when their turn came: see --retain"
        ))?;
    }
    if let Some(status) = report.last_status {
        output::line(&format!("  last answer: {status}"))?;
    }
    if let Some(error) = &report.last_error {
        output::line(&format!("  last error: {error}"))?;
    }
    if let Some(seconds) = report.next_attempt {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        output::line(&format!("  next attempt: {}", rfc3339(time)))?;
    }
    Ok(())
}

//! `hookbot sources`: what came by each source, and which secrets and keys are still in use.

use std::time::{Duration, SystemTime};

use clap::Args;
use hookbot_protocol::event::rfc3339;

use super::running::RunningArgs;
use super::{Failure, output};
use crate::server::PreviousUse;
use crate::server::admin::{Line, Question, SourceReport};

/// Tells what came by each source of a running server, and which secrets matched.
///
/// A secret that has matched nothing since its successor was given out is safe to remove; what came
/// before the server started, or first read a secret, is not known. Tokens that were made with a
/// previous key and are still used are listed, too.
#[derive(Debug, Args)]
pub(super) struct SourcesArgs {
    #[command(flatten)]
    running: RunningArgs,

    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &SourcesArgs) -> Result<(), Failure> {
    args.running.ask(&Question::Sources, |line| match line {
        line if args.json => output::line(&serde_json::json!(line).to_string()),
        Line::Source(report) => source(&report),
        Line::PreviousKey(uses) => previous(&uses),
        _ => Ok(()),
    })
}

fn source(report: &SourceReport) -> Result<(), Failure> {
    let SourceReport {
        name,
        topic,
        verified,
        rejected,
        quarantined,
        answered,
        unverified,
        ..
    } = report;
    let provider = report.provider.as_deref().unwrap_or("nothing is verified");
    output::line(&format!("{name} on {topic}: {provider}"))?;
    output::line(&format!(
        "  {verified} verified, {rejected} rejected, {quarantined} quarantined, \
         {answered} answered, {unverified} unverified"
    ))?;
    for secret in &report.secrets {
        let (label, since, times) = (&secret.label, time(secret.since), times(secret.number));
        let last = match secret.last {
            0 => String::new(),
            last => format!(", last {}", time(last)),
        };
        output::line(&format!(
            "  secret {label}: matched {times} since {since}{last}"
        ))?;
    }
    Ok(())
}

fn previous(uses: &PreviousUse) -> Result<(), Failure> {
    let PreviousUse {
        key,
        token,
        path,
        address,
        number,
        last,
        ..
    } = uses;
    let (times, last) = (times(*number), time(*last));
    output::line(&format!(
        "previous key {key}: token {token} on {path:?} from {address}, {times}, last {last}"
    ))
}

fn times(number: u64) -> String {
    match number {
        1 => "once".to_owned(),
        number => format!("{number} times"),
    }
}

fn time(seconds: u64) -> String {
    rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

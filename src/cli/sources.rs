//! `hookbot sources`: what came by each source, and which secrets and keys are still in use.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use clap::Args;
use hookbot_protocol::event::rfc3339;
use tokio::sync::mpsc::{self, Receiver};

use super::remote::block_on;
use super::{Failure, output};
use crate::config::data_dir;
use crate::server::PreviousUse;
use crate::server::admin::{Line, Question, SourceReport, ask};

/// Tells what came by each source of a running server, and which secrets matched.
///
/// A secret that has matched nothing since its successor was given out is safe to remove. Tokens
/// that were made with a previous key and are still used are listed, too.
#[derive(Debug, Args)]
pub(super) struct SourcesArgs {
    /// The server's folder.
    #[arg(long, env = "HOOKBOT_DATA_DIR", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,

    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &SourcesArgs) -> Result<(), Failure> {
    let folder = data_dir(args.data_dir.as_deref())?;
    block_on(async {
        let (out, lines) = mpsc::channel(64);
        let asking = async {
            let asked = ask(&folder, &Question::Sources, &out).await;
            drop(out);
            asked.with_context(|| format!("cannot ask the server in {}", folder.display()))
        };
        let (asked, shown) = tokio::join!(asking, show(lines, args.json));
        if asked?.is_none() {
            let error = anyhow!("no server is running in {}", folder.display());
            return Err(Failure::Unreachable(error));
        }
        shown
    })
}

async fn show(mut lines: Receiver<Line>, json: bool) -> Result<(), Failure> {
    while let Some(line) = lines.recv().await {
        match line {
            Line::Error(error) => return Err(anyhow!(error).into()),
            line if json => output::line(&serde_json::json!(line).to_string())?,
            Line::Source(report) => source(&report)?,
            Line::PreviousKey(uses) => previous(&uses)?,
            _ => {}
        }
    }
    Ok(())
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
        let (label, number) = (&secret.label, secret.number);
        let last = when(secret.last);
        output::line(&format!("  secret {label}: matched {number} times, {last}"))?;
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
    let last = when(*last);
    output::line(&format!(
        "previous key {key}: token {token} on {path:?} from {address}, {number} times, {last}"
    ))?;
    Ok(())
}

fn when(seconds: u64) -> String {
    if seconds == 0 {
        return "never".to_owned();
    }
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    format!("last {}", rfc3339(time))
}

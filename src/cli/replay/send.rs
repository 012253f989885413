//! How messages are sent again, wherever they are from.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures_util::future::BoxFuture;
use hookbot_forward::pace::Pace;
use hookbot_forward::replay::{Replay, ReplayOptions};
use hookbot_forward::{
    Answer, Forwarder, Message, Place, Selection, Settings, Source, Taker, Target, TargetSettings,
    Verdict,
};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::super::Failure;
use super::super::when::When;
use super::report::Report;
use super::resign::ResignArgs;
use crate::config::Span;

/// Which messages are sent again, and how.
#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// How fast: as fast as they are taken (fast), with the pauses that were between them
    /// (original), ten times as fast (10x), or at most five a second (5/s).
    #[arg(long, default_value = "fast")]
    pace: Pace,

    /// Only messages that came since then: a time such as 2026-01-31T12:00:00Z, or 2h ago.
    #[arg(long, value_name = "TIME")]
    since: Option<When>,

    /// Only messages that came until then.
    #[arg(long, value_name = "TIME")]
    until: Option<When>,

    /// Only messages that fulfil this condition, for example 'body.action == "opened"'.
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,

    /// Only this kind of event, such as push or issues.opened; may be repeated.
    #[arg(long = "event", value_name = "EVENT")]
    events: Vec<String>,

    /// Not this kind of event; may be repeated.
    #[arg(long = "ignore-event", short = 'I', value_name = "EVENT")]
    ignored: Vec<String>,

    /// How often a message is offered again that the target does not take now.
    #[arg(long, value_name = "N", default_value_t = 5)]
    retries: u32,

    /// How long the target may take to answer.
    #[arg(long, value_name = "TIME", default_value_t = Span(Duration::from_secs(30)))]
    timeout: Span,

    /// Believe whatever certificate the target has.
    #[arg(long)]
    insecure: bool,

    /// Print what would be sent, and send nothing.
    #[arg(long)]
    dry_run: bool,

    /// Print one JSON object a message, and one with what it comes to.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    resign: ResignArgs,
}

/// From when to when.
pub(super) type TimeSpan = (Option<Timestamp>, Option<Timestamp>);

impl SendArgs {
    /// Since when.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.since.map(|When(time)| time)
    }

    /// From when to when.
    pub(super) fn span(&self) -> TimeSpan {
        (self.since(), self.until.map(|When(time)| time))
    }

    /// The same, for a source that has been told since when.
    pub(super) fn span_behind(&self) -> TimeSpan {
        (None, self.span().1)
    }

    fn selection(&self) -> Result<Selection, Failure> {
        let selection = Selection::default()
            .events(&self.events)
            .ignore(&self.ignored);
        match &self.filter {
            None => Ok(selection),
            Some(filter) => {
                let selection = selection.filter(filter);
                selection.map_err(|error| Failure::Usage(error.into()))
            }
        }
    }

    fn target(&self, url: &str) -> Result<Target, Failure> {
        let mut settings = TargetSettings {
            timeout: self.timeout.0,
            ..TargetSettings::default()
        };
        settings.tls.insecure = self.insecure;
        Target::new(url, settings).map_err(|error| Failure::Usage(error.into()))
    }
}

/// Sends again what a source gives, until it ends or somebody presses Ctrl-C.
pub(super) async fn send(
    source: impl Source,
    target: &str,
    args: &SendArgs,
    (since, until): TimeSpan,
) -> Result<(), Failure> {
    let target = args.target(target)?;
    let resigner = args
        .resign
        .resigner(target.name())
        .map_err(Failure::Usage)?;
    let pace = if args.dry_run { Pace::Fast } else { args.pace };
    let replay = Replay::new(
        source,
        ReplayOptions {
            pace,
            since,
            until,
            resigner,
        },
    );
    let report = Report::new(args.json);
    let forwarder = Forwarder {
        taker: if args.dry_run {
            Arc::new(Nobody)
        } else {
            Arc::new(target)
        },
        selection: args.selection()?,
        settings: Settings {
            retries: Some(args.retries),
            ..Settings::default()
        },
        place: Place::in_memory(),
        letters: None,
        tell: report.tell(),
    };
    let stop = CancellationToken::new();
    let running = forwarder.run(&replay, stop.clone());
    tokio::pin!(running);
    let summary = tokio::select! {
        summary = &mut running => summary,
        _ = tokio::signal::ctrl_c() => {
            stop.cancel();
            running.await
        }
    };
    report.finish(summary, stop.is_cancelled())
}

/// Takes everything and does nothing with it.
struct Nobody;

impl Taker for Nobody {
    fn name(&self) -> &str {
        "nobody"
    }

    fn offer<'a>(&'a self, _: &'a Message, _: u32) -> BoxFuture<'a, Answer> {
        Box::pin(async {
            Answer {
                verdict: Verdict::Taken,
                code: None,
                text: "would be sent".to_owned(),
                retry_after: None,
                duration: Duration::ZERO,
            }
        })
    }
}

/// Runs a replay on this thread. It minds Ctrl-C itself.
pub(super) fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.context("cannot start")?.block_on(work)
}

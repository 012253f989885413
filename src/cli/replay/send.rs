//! How messages are sent again, wherever they are from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use futures_util::future::BoxFuture;
use hookbot_forward::pace::Pace;
use hookbot_forward::replay::{Replay, ReplayOptions};
use hookbot_forward::resign::Signed;
use hookbot_forward::{
    Answer, Forwarder, Message, Place, Settings, Source, Summary, Taker, Target, Tell, Told,
    Trouble, Verdict,
};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::resign::ResignArgs;
use crate::cli::Failure;
use crate::cli::forward::{Choice, Report, Style, TargetArgs};
use crate::cli::when::When;

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

    /// How often a message is offered again that the target does not take now.
    #[arg(long, value_name = "N", default_value_t = 5)]
    retries: u32,

    /// Print what would be sent, and send nothing.
    #[arg(long)]
    dry_run: bool,

    /// Print one JSON object a message, and one with what it comes to.
    #[arg(long)]
    json: bool,

    /// Print nothing of what goes well.
    #[arg(long, short, conflicts_with_all = ["json", "dry_run"])]
    quiet: bool,

    #[command(flatten)]
    choice: Choice,

    #[command(flatten)]
    resign: ResignArgs,

    #[command(flatten)]
    pub(super) target: TargetArgs,
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
}

/// Sends again what a source gives, until it ends or somebody presses Ctrl-C.
pub(super) async fn send(
    source: impl Source,
    target: Target,
    args: &SendArgs,
    (since, until): TimeSpan,
) -> Result<(), Failure> {
    let resigner = args.resign.resigner(target.name());
    let mut taker: Arc<dyn Taker> = if args.dry_run {
        Arc::new(Nobody)
    } else {
        Arc::new(target)
    };
    if let Some(resigner) = resigner.map_err(Failure::Usage)? {
        taker = Arc::new(Signed::new(taker, resigner));
    }
    let pace = if args.dry_run { Pace::Fast } else { args.pace };
    let replay = Replay::new(source, ReplayOptions { pace, since, until });
    let style = Style {
        is_json: args.json,
        is_quiet: args.quiet,
        is_replay: true,
        is_dry_run: args.dry_run,
        ..Style::default()
    };
    let report = Report::new(style, 1);
    let missing = Arc::new(AtomicU64::new(0));
    let forwarder = Forwarder {
        selection: args.choice.selection(&args.choice.events)?,
        settings: Settings {
            retries: Some(args.retries),
            ..Settings::default()
        },
        place: Place::in_memory(),
        letters: None,
        tell: counting(report.tell(0, taker.name()), missing.clone()),
        taker,
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
    report.finish(&summary);
    let missing = missing.load(Ordering::Relaxed);
    match summary {
        _ if stop.is_cancelled() => Err(anyhow!("interrupted").into()),
        Summary { is_gone: true, .. } => Err(anyhow!("the target wants no more messages").into()),
        Summary { parked: 0, .. } if missing == 0 => Ok(()),
        Summary { parked: 0, .. } => Err(anyhow!("not all of the messages could be had").into()),
        Summary { parked, .. } => {
            let all = parked + summary.delivered;
            Err(anyhow!("{parked} of {all} messages were not taken").into())
        }
    }
}

/// Counts what a source could not give.
fn counting(tell: Tell, missing: Arc<AtomicU64>) -> Tell {
    Arc::new(move |told| {
        if let Told::Trouble(Trouble::Missing(_) | Trouble::Refused(_)) = told {
            missing.fetch_add(1, Ordering::Relaxed);
        }
        tell(told);
    })
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

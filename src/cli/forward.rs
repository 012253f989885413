//! `hookbot forward`: messages to HTTP services and commands, until they take them.

mod arguments;
mod health;
mod keeper;
mod report;
mod source;
mod takers;

pub(super) use arguments::{Choice, ForwardArgs};
pub(super) use report::{Report, Style};
pub(super) use source::{prefix, subscription};
pub(super) use takers::{CommandArgs, TargetArgs};

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use hookbot_forward::target::masked;
use hookbot_forward::{
    Exec, Forwarder, Place, Saver, ScriptOptions, Selection, Settings, Store, Summary, Taker,
    Trouble,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::health::Health;
use self::keeper::Keeper;
use super::listen::UNSAFE_IS_OK;
use super::remote::block_on;
use super::{Failure, output};
use crate::config::{Span, state_dir};

pub(super) fn run(args: &ForwardArgs) -> Result<(), Failure> {
    args.check()?;
    if args.wants_new_channel() {
        return block_on(new_channel(args));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.context("cannot start")?;
    let done = runtime.block_on(forward(args));
    // A name that is being looked up, and the like, is nothing to wait for.
    runtime.shutdown_background();
    done
}

/// Prints the URL of a channel that nobody has yet.
async fn new_channel(args: &ForwardArgs) -> Result<(), Failure> {
    if args.source.is_empty() {
        return Err(Failure::Usage(anyhow!(
            "say at which server: hookbot client --new-url https://smee.io, for example"
        )));
    }
    let url = source::channel(args)?.new_url().await;
    output::line(&url.map_err(|trouble| match trouble {
        Trouble::Lost(_) => Failure::Unreachable(trouble.into()),
        _ => Failure::Refused(trouble.into()),
    })?)
}

async fn forward(args: &ForwardArgs) -> Result<(), Failure> {
    let source = source::open(args)?;
    let first_place = source::first_place(args)?;
    let takers = takers(args, source.name())?;
    let style = Style {
        is_json: args.is_json(),
        is_quiet: args.is_quiet(),
        names_target: takers.len() > 1,
        ..Style::default()
    };
    let report = Report::new(style, takers.len());
    let stop = CancellationToken::new();
    let addresses = args.health_addresses();
    if let Some(address) = addresses.first() {
        let health = Health::bind(&addresses, report.clone()).await;
        let health = health.with_context(|| format!("cannot listen on {address}"))?;
        tokio::spawn(health.serve());
    }
    if let Some(file) = &args.ready_file {
        // What an earlier run has left says nothing of this one.
        let _ = fs::remove_file(file);
    }
    let all: Vec<_> = takers.iter().map(|(taker, ..)| taker.name()).collect();
    let targets = masked(&all.join(" and to "));
    report.begin(format!("forwarding {} to {targets}", shown(source.name())));
    if let Some(file) = args.ready_file.clone() {
        tokio::spawn(tell_ready(report.clone(), file));
    }
    tokio::spawn(heed_signals(stop.clone())?);

    let mut forwarders = JoinSet::new();
    for (at, (taker, selection, settings)) in takers.into_iter().enumerate() {
        let pair = store(args)?.map(|store| store.pair(source.name(), taker.name()));
        let place = pair.as_ref().map(|pair| pair.place()).transpose();
        let mut place = place
            .context("cannot begin")?
            .unwrap_or_else(Place::in_memory);
        if let Some(first) = &first_place {
            let begun = place.begin_at(first.clone()).await;
            begun.context("cannot write down where to begin")?;
        }
        let forwarder = Forwarder {
            tell: report.tell(at, &masked(taker.name())),
            taker,
            selection,
            settings,
            place,
            letters: pair.map(|pair| pair.letters()),
        };
        let (source, stop, report) = (source.clone(), stop.clone(), report.clone());
        forwarders.spawn(async move {
            let summary = forwarder.run(&*source, stop).await;
            report.end(at);
            summary
        });
    }
    let targets = u64::try_from(forwarders.len()).unwrap_or(u64::MAX);
    let all = sum(forwarders);
    tokio::pin!(all);
    let within = args.within.map_or(Duration::MAX, |Span(span)| span);
    let (sum, is_late) = tokio::select! {
        sum = &mut all => (sum?, false),
        refusal = report.refusal() => {
            stop.cancel();
            all.await?;
            let hint = match refusal.contains(UNSAFE_IS_OK.0) {
                true => " That is what --unsafe-is-ok sends.",
                false => "",
            };
            return Err(Failure::Refused(anyhow!("{refusal}{hint}")));
        }
        () = sleep(within) => {
            stop.cancel();
            (all.await?, true)
        }
    };
    report.finish(&sum);
    match args.count {
        Some(count) if is_late => {
            let done = sum.delivered + sum.parked;
            let within = humantime::format_duration(within);
            let wanted = count.saturating_mul(targets);
            Err(Failure::Timeout(format!(
                "{done} of {wanted} messages were dealt with within {within}"
            )))
        }
        _ if sum.is_gone => Err(Failure::Gone),
        Some(_) if sum.parked > 0 => {
            let (aside, all) = (sum.parked, sum.parked + sum.delivered);
            Err(anyhow!("{aside} of {all} messages were put aside").into())
        }
        _ => Ok(()),
    }
}

/// What all have done together, once they have ended; gone only if everybody is.
async fn sum(mut forwarders: JoinSet<Summary>) -> Result<Summary, Failure> {
    let mut sum = Summary {
        is_gone: true,
        ..Summary::default()
    };
    while let Some(ended) = forwarders.join_next().await {
        let ended = ended.context("a forwarder broke down")?;
        sum.delivered += ended.delivered;
        sum.retried += ended.retried;
        sum.parked += ended.parked;
        sum.skipped += ended.skipped;
        sum.is_gone &= ended.is_gone;
    }
    Ok(sum)
}

/// Everybody who is to take messages, and how.
type Wanted = (Arc<dyn Taker>, Selection, Settings);

fn takers(args: &ForwardArgs, source: &str) -> Result<Vec<Wanted>, Failure> {
    let mut takers: Vec<Wanted> = Vec::new();
    let settings = args.settings();
    let targets = if args.no_replay { &[] } else { &*args.targets };
    for url in targets {
        let target = args.target.target(url, prefix(&args.source))?;
        takers.push((
            Arc::new(target),
            args.selection(&args.choice.events)?,
            settings.clone(),
        ));
    }
    if let Some(command) = &args.exec {
        let exec = Exec::new(command, args.command.settings(args.is_json()));
        let events = if args.exec_on.is_empty() {
            &args.choice.events
        } else {
            &args.exec_on
        };
        let settings = Settings {
            concurrency: args.exec_concurrency.get(),
            ..settings.clone()
        };
        takers.push((Arc::new(exec), args.selection(events)?, settings));
    }
    if let Some(folder) = &args.save {
        let options = ScriptOptions {
            target: args.targets.first().cloned(),
            ..args.script_options()
        };
        let saver = Saver::new(folder, options).map_err(anyhow::Error::from)?;
        let settings = Settings {
            concurrency: 1,
            ..settings
        };
        let keeper = Keeper::new(saver, folder);
        takers.push((
            Arc::new(keeper),
            args.selection_as_sent(&args.choice.events)?,
            settings,
        ));
    }
    tracing::debug!(source, takers = takers.len(), "forwarding");
    Ok(takers)
}

/// Where places are kept.
fn store(args: &ForwardArgs) -> Result<Option<Store>, Failure> {
    if args.no_state {
        return Ok(None);
    }
    store_in(args.state_folder()).map(Some)
}

/// The store that was named, or else the one in the system's folder for state.
pub(super) fn store_in(folder: Option<&Path>) -> Result<Store, Failure> {
    if let Some(folder) = folder {
        return Ok(Store::new(folder));
    }
    let folder = state_dir().ok_or_else(|| {
        Failure::Usage(anyhow!(
            "there is no folder to keep the place in: give --state or --no-state"
        ))
    })?;
    Ok(Store::new(&folder.join("hookbot-forward")))
}

/// A source as it may be shown to anybody: whoever knows the last part of a channel's URL may use it.
fn shown(source: &str) -> String {
    match source.rsplit_once('/') {
        Some((server, _)) if source.starts_with("http") => format!("{server}/***"),
        _ => source.to_owned(),
    }
}

/// Writes the file once every subscription is there.
async fn tell_ready(report: Report, file: PathBuf) {
    report.ready().await;
    if let Err(error) = fs::write(&file, "ready\n") {
        warn!("cannot write {}: {error}", file.display());
    }
}

/// Stops at the first signal; at the second, nothing is waited for.
fn heed_signals(stop: CancellationToken) -> Result<impl Future<Output = ()>, Failure> {
    let on = |kind| signal(kind).context("cannot listen to signals");
    let mut terminate = on(SignalKind::terminate())?;
    let mut interrupt = on(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(130);
    })
}

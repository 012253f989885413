//! `hookbot reconcile`: what a provider has sent beside what a server's log has, and the
//! difference published.

mod logged;

use std::collections::HashSet;
use std::fmt;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use hookbot_backfill::{Attempt, Delivery, Hook};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use self::logged::Logged;
use super::listen::UNSAFE_IS_OK;
use super::listing::{as_json, row};
use super::provider::{GithubArgs, GitlabArgs, SigningArgs, WhichArgs, settle};
use super::remote::{RemoteArgs, block_on};
use super::resend::{Outcome, Resender};
use super::{Failure, output};

/// Finds what a provider has sent and a server does not have, and publishes it.
///
/// Deliveries are told by their ids. A second run publishes nothing.
#[derive(Debug, Args)]
pub(super) struct ReconcileArgs {
    #[command(subcommand)]
    provider: Provider,
}

#[derive(Debug, Subcommand)]
enum Provider {
    Github(Box<GithubReconcileArgs>),
    Gitlab(Box<GitlabReconcileArgs>),
}

/// Compares what GitHub has sent by a webhook with what a server's log has, and publishes the
/// difference.
///
/// SUB is where the deliveries can be listened to, PUB where to publish those that are missing:
/// where GitHub posts to, or the same with a token.
#[derive(Debug, Args)]
#[command(override_usage = GITHUB_USAGE, after_help = GITHUB_EXAMPLES)]
struct GithubReconcileArgs {
    /// OWNER/REPO or OWNER, where it is not --app-id that says whose webhook; its number if there
    /// are several; where the deliveries can be listened to; and where to publish.
    #[arg(value_name = "OWNER[/REPO] [HOOK_ID] SUB [PUB]")]
    typed: Vec<String>,

    #[command(flatten)]
    how: HowArgs,

    #[command(flatten)]
    github: GithubArgs,
}

/// Compares what GitLab has sent by a webhook with what a server's log has, and publishes the
/// difference.
///
/// SUB is where the deliveries can be listened to, PUB where to publish those that are missing:
/// where GitLab posts to, or the same with a token. GitLab shows neither its secret token nor its
/// users' addresses, so that what is published lacks them; --resign puts the token back.
#[derive(Debug, Args)]
#[command(override_usage = GITLAB_USAGE, after_help = GITLAB_EXAMPLES)]
struct GitlabReconcileArgs {
    /// The project's path or number, where it is not --group that says whose webhook; its number
    /// if there are several; where the deliveries can be listened to; and where to publish.
    #[arg(value_name = "PROJECT [HOOK_ID] SUB [PUB]")]
    typed: Vec<String>,

    #[command(flatten)]
    how: HowArgs,

    #[command(flatten)]
    gitlab: GitlabArgs,
}

#[derive(Debug, Args)]
struct HowArgs {
    /// Say what is missing, and publish nothing.
    #[arg(long)]
    dry_run: bool,

    /// Print JSON, one object a line, and a summary in the last one.
    #[arg(long)]
    json: bool,

    /// SUB is below /unsafe/, where anybody may publish: says that you check what you get.
    #[arg(long)]
    unsafe_is_ok: bool,

    #[command(flatten)]
    which: WhichArgs,

    #[command(flatten)]
    signing: SigningArgs,

    #[command(flatten)]
    remote: RemoteArgs,
}

const GITHUB_USAGE: &str = "\
hookbot reconcile github [OPTIONS] OWNER[/REPO] [HOOK_ID] SUB PUB
       hookbot reconcile github [OPTIONS] --app-id ID --app-key FILE SUB PUB
       hookbot reconcile github [OPTIONS] --dry-run OWNER[/REPO] [HOOK_ID] SUB";

const GITHUB_EXAMPLES: &str = "\
Examples, with the token in GITHUB_TOKEN and the server's key in HOOKBOT_KEY:
  hookbot reconcile github acme/site $(hookbot make-tokens /sub/github /pub/github)
  hookbot reconcile github acme/site --since 2h --dry-run $(hookbot make-tokens /sub/github)

The exit code is 0 where nothing is missing, 8 where something was missing and is published now
(or is missing still, with --dry-run), 1 where something could not be had or compared.";

const GITLAB_USAGE: &str = "\
hookbot reconcile gitlab [OPTIONS] PROJECT [HOOK_ID] SUB PUB
       hookbot reconcile gitlab [OPTIONS] --group GROUP [HOOK_ID] SUB PUB
       hookbot reconcile gitlab [OPTIONS] --dry-run PROJECT [HOOK_ID] SUB";

const GITLAB_EXAMPLES: &str = "\
Examples, with the token in GITLAB_TOKEN and the server's key in HOOKBOT_KEY:
  hookbot reconcile gitlab acme/web/site $(hookbot make-tokens /sub/gitlab /pub/gitlab)
  hookbot reconcile gitlab --group acme --dry-run $(hookbot make-tokens /sub/gitlab)

The exit code is 0 where nothing is missing, 8 where something was missing and is published now
(or is missing still, with --dry-run), 1 where something could not be had or compared.";

pub(super) fn run(args: &ReconcileArgs) -> Result<(), Failure> {
    let (hook, typed, how) = match &args.provider {
        Provider::Github(args) => {
            let (hook, typed) = args.github.hook(&args.typed, &args.how.remote)?;
            (hook, typed, &args.how)
        }
        Provider::Gitlab(args) => {
            let (hook, typed) = args.gitlab.hook(&args.typed, &args.how.remote)?;
            (hook, typed, &args.how)
        }
    };
    let (from, to) = match (typed, how.dry_run) {
        ([from, to], false) => (from, Some(to)),
        ([from] | [from, _], true) => (from, None),
        _ => {
            let error =
                anyhow!("say where the deliveries can be listened to, and where to publish");
            return Err(Failure::Usage(error));
        }
    };
    let mut log = how.remote.endpoint(from)?;
    if how.unsafe_is_ok {
        let (name, value) = UNSAFE_IS_OK;
        log = log.header(name, value)?;
    }
    let signing = how.signing.signing()?;
    block_on(async {
        let resender = to
            .map(|url| Resender::new(url, signing, &how.remote))
            .transpose()?;
        reconcile(hook, log, resender, how).await
    })
}

/// What is the matter with one delivery.
enum State {
    /// The log has it.
    Present,
    /// The log does not have it, and it is not to be published.
    Missing,
    /// It was missing, and this is what became of it.
    Resent(Outcome),
    /// It is older than what the log still has of its time.
    Unknown,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => f.write_str("there"),
            Self::Missing => f.write_str("missing"),
            Self::Resent(Outcome::Taken { proof, .. }) => write!(f, "published now ({proof})"),
            Self::Resent(outcome) => write!(f, "missing; {outcome}"),
            Self::Unknown => f.write_str("too old to compare"),
        }
    }
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Missing => "missing",
            Self::Resent(Outcome::Taken { .. }) => "published",
            Self::Resent(_) => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// How many deliveries are in which state.
#[derive(Default)]
struct Tally {
    present: usize,
    missing: usize,
    published: usize,
    failed: usize,
    unknown: usize,
}

async fn reconcile(
    mut hook: Hook,
    log: hookbot_listen::Endpoint,
    mut resender: Option<Resender>,
    how: &HowArgs,
) -> Result<(), Failure> {
    settle(&mut hook).await?;
    let since = how.which.since();
    let is_old = |attempt: &Attempt| {
        attempt
            .at
            .is_some_and(|at| since.is_some_and(|since| at < since))
    };
    // First what was sent, then what is there: what comes meanwhile is not taken for missing.
    let mut deliveries = Delivery::group(hook.attempts(is_old).await?);
    deliveries.retain(|delivery| how.which.wants(delivery));
    let logged = match beginning(&deliveries) {
        Some(beginning) => {
            let ids = deliveries.iter().map(Delivery::id).collect::<HashSet<_>>();
            Logged::read(&log, beginning, ids).await?
        }
        None => Logged::default(),
    };

    let mut tally = Tally::default();
    for delivery in &deliveries {
        let state = match (&mut resender, logged.has(delivery)) {
            (_, Some(true)) => State::Present,
            (_, None) => State::Unknown,
            (None, Some(false)) => State::Missing,
            (Some(resender), Some(false)) => {
                State::Resent(resender.resend(&mut hook, delivery).await?)
            }
        };
        tell(delivery, &state, how.json)?;
        tally.count(&state);
        match state {
            State::Resent(Outcome::Unreachable(reason)) => {
                let error = anyhow!("{reason}; what is newer was not compared");
                return Err(Failure::Unreachable(error));
            }
            // A server that takes nothing at all has another reason than the delivery.
            State::Resent(Outcome::Refused { status, reason, .. }) if tally.published == 0 => {
                let error = anyhow!("the server refused with {status}: {reason}");
                return Err(Failure::Refused(error));
            }
            _ => {}
        }
    }
    tally.end(how.json)
}

/// Where to begin in the log, so that everything that may be there is seen; `None` where there is
/// nothing to look for.
fn beginning(deliveries: &[Delivery]) -> Option<Timestamp> {
    let first = deliveries.first()?;
    // The log may have what was first tried before the list begins.
    let is_dated = first
        .at()
        .filter(|_| !deliveries.iter().any(Delivery::began_earlier));
    let longest_ago = || Timestamp::now().checked_sub(REMEMBERED);
    match is_dated {
        // The two clocks need not agree.
        Some(at) => at.checked_sub(CLOCKS).ok(),
        None => longest_ago().ok(),
    }
}

fn tell(delivery: &Delivery, state: &State, json: bool) -> Result<(), Failure> {
    if !json {
        return output::line(&row(delivery, &state.to_string()));
    }
    let mut object = as_json(delivery);
    object.insert("state".to_owned(), state.name().into());
    if let State::Resent(outcome) = state {
        object.extend(outcome.fields());
    }
    output::line(&Value::from(object).to_string())
}

impl Tally {
    fn count(&mut self, state: &State) {
        match state {
            State::Present => self.present += 1,
            State::Missing => self.missing += 1,
            State::Resent(Outcome::Taken { .. }) => self.published += 1,
            State::Resent(_) => self.failed += 1,
            State::Unknown => self.unknown += 1,
        }
    }

    fn end(&self, json: bool) -> Result<(), Failure> {
        let Self {
            present,
            missing,
            published,
            failed,
            unknown,
        } = self;
        let sent = present + missing + published + failed + unknown;
        if json {
            let summary = json!({ "summary": {
                "sent": sent, "present": present, "missing": missing, "published": published,
                "failed": failed, "unknown": unknown,
            }});
            output::line(&summary.to_string())?;
        }
        let mut text = format!("{sent} sent, {present} there");
        for (number, what) in [
            (published, "published now"),
            (missing, "missing"),
            (failed, "missing and not to be had"),
            (unknown, "too old to compare"),
        ] {
            if *number > 0 {
                text += &format!(", {number} {what}");
            }
        }
        if failed + unknown > 0 {
            return Err(anyhow!(text).into());
        }
        if missing + published > 0 {
            return Err(Failure::Missing(text));
        }
        if !json {
            anstream::eprintln!("{text}");
        }
        Ok(())
    }
}

/// How far the provider's clock and the server's may be apart.
const CLOCKS: SignedDuration = SignedDuration::from_hours(1);

/// Longer than any provider remembers a delivery.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(8 * 24);

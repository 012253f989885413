//! `hookbot replay github`: what GitHub has sent, once more.

use clap::Args;

use super::backfill::{BackfillArgs, backfill};
use crate::cli::Failure;
use crate::cli::provider::GithubArgs;

/// Sends what GitHub has delivered, or failed to, by a webhook of a repository, an organisation
/// or an app.
///
/// Oldest first, and each delivery once, however often it was tried. GitHub remembers three days,
/// an Enterprise server seven. TARGET is any HTTP service; a hookbot server's /pub/ URL, where it
/// runs with --deduplicate, publishes only what it has not got. The webhook's number can be left
/// out where there is only one.
#[derive(Debug, Args)]
#[command(override_usage = USAGE, after_help = EXAMPLES)]
pub(in crate::cli) struct GithubReplayArgs {
    /// OWNER/REPO or OWNER, where it is not --app-id that says whose webhook; its number; and
    /// where to send to.
    #[arg(value_name = "OWNER[/REPO] [HOOK_ID] TARGET")]
    typed: Vec<String>,

    #[command(flatten)]
    backfill: BackfillArgs,

    #[command(flatten)]
    github: GithubArgs,
}

const USAGE: &str = "\
hookbot replay github [OPTIONS] OWNER[/REPO] [HOOK_ID] TARGET
       hookbot replay github [OPTIONS] --app-id ID --app-key FILE TARGET
       hookbot replay github [OPTIONS] OWNER[/REPO] [HOOK_ID] --list-deliveries
       hookbot replay github [OPTIONS] OWNER[/REPO] --list-hooks";

const EXAMPLES: &str = "\
Examples, with the token in GITHUB_TOKEN:
  hookbot replay github acme/site --list-hooks
  hookbot replay github acme/site --list-deliveries --since 2h
  hookbot replay github acme/site --failed --since 1d http://localhost:3000/webhooks
  hookbot replay github acme 12345678 --event push --follow http://localhost:3000/webhooks
  hookbot replay github --app-id 1234 --app-key app.pem --failed --redeliver";

pub(super) fn run(args: &GithubReplayArgs) -> Result<(), Failure> {
    let (hook, typed) = args.github.hook(&args.typed, &args.backfill.remote)?;
    backfill(hook, typed, &args.backfill)
}

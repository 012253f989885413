//! `hookbot replay gitlab`: what GitLab has sent, once more.

use clap::Args;

use super::backfill::{BackfillArgs, backfill};
use crate::cli::Failure;
use crate::cli::provider::GitlabArgs;

/// Sends what GitLab has delivered, or failed to, by a webhook of a project or a group.
///
/// Oldest first, and each delivery once. GitLab, from 17.3 on, remembers seven days. It shows
/// neither its secret token nor its users' addresses, so that what is sent lacks them; --resign
/// puts the token back. TARGET is any HTTP service; a hookbot server's /pub/ URL, where it runs
/// with --deduplicate, publishes only what it has not got. The webhook's number can be left out
/// where there is only one.
#[derive(Debug, Args)]
#[command(override_usage = USAGE, after_help = EXAMPLES)]
pub(in crate::cli) struct GitlabReplayArgs {
    /// The project's path or number, where it is not --group that says whose webhook; its number;
    /// and where to send to.
    #[arg(value_name = "PROJECT [HOOK_ID] TARGET")]
    typed: Vec<String>,

    #[command(flatten)]
    backfill: BackfillArgs,

    #[command(flatten)]
    gitlab: GitlabArgs,
}

const USAGE: &str = "\
hookbot replay gitlab [OPTIONS] PROJECT [HOOK_ID] TARGET
       hookbot replay gitlab [OPTIONS] --group GROUP [HOOK_ID] TARGET
       hookbot replay gitlab [OPTIONS] PROJECT [HOOK_ID] --list-deliveries
       hookbot replay gitlab [OPTIONS] PROJECT --list-hooks";

const EXAMPLES: &str = "\
Examples, with the token in GITLAB_TOKEN:
  hookbot replay gitlab acme/web/site --list-hooks
  hookbot replay gitlab acme/web/site --failed --since 1d http://localhost:3000/webhooks
  hookbot replay gitlab --group acme --secret env:HOOK_TOKEN --resign http://localhost:3000/
  hookbot replay gitlab acme/web/site 42 --failed --redeliver";

pub(super) fn run(args: &GitlabReplayArgs) -> Result<(), Failure> {
    let (hook, typed) = args.gitlab.hook(&args.typed, &args.backfill.remote)?;
    backfill(hook, typed, &args.backfill)
}

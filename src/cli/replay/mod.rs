//! `hookbot replay`: messages once more, from files or from a server's log; and, by a provider's
//! name, from what it says it has sent.

use clap::{Args, Subcommand};

use super::Failure;

/// Sends messages again: saved ones, those of a server's log, or a provider's deliveries.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct ReplayArgs {
    #[command(subcommand)]
    provider: Option<Provider>,

    /// Folders or files that --save has written, or a URL such as
    /// 'wss://TOKEN@example.com/sub/deploys?since=2h'.
    #[arg(required = true)]
    from: Vec<String>,

    /// Where to send them.
    #[arg(required = true)]
    target: Option<String>,
}

/// Whose API is asked for its deliveries: a file each in this folder.
#[derive(Debug, Subcommand)]
enum Provider {}

pub(super) fn run(args: &ReplayArgs) -> Result<(), Failure> {
    match &args.provider {
        Some(provider) => match *provider {},
        None => Err(Failure::Usage(anyhow::anyhow!(
            "{:?} {:?}",
            args.from,
            args.target
        ))),
    }
}

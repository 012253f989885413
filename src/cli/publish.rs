//! `hookbot publish`: one message.

use std::path::PathBuf;

use clap::Args;
use hookbot_listen::Published;

use super::remote::{RemoteArgs, block_on};
use super::{Failure, input, output};

/// Publishes a file, or standard input, as one message.
///
/// Prints the message's place in the log once the server has it.
#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// Where to publish, for example https://TOKEN@example.com/pub/deploys.
    url: String,

    /// What to publish; - is standard input.
    #[arg(default_value = "-")]
    file: PathBuf,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    remote: RemoteArgs,
}

pub(super) fn run(args: &PublishArgs) -> Result<(), Failure> {
    let endpoint = args.remote.endpoint(&args.url)?;
    let body = input::read(&args.file)?;
    block_on(async {
        let Published { cursor, .. } = hookbot_listen::publish(&endpoint, body).await?;
        if args.json {
            return output::line(&serde_json::json!({ "cursor": cursor }).to_string());
        }
        output::line(cursor.as_deref().unwrap_or("OK"))
    })
}

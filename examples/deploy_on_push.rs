//! Runs a command for each push to a branch, with the commit in its environment.
//!
//! ```sh
//! cargo run --example deploy_on_push \
//!     ws://TOKEN@localhost:8080/sub/github.com/repo/acme/site/branch/main \
//!     sh -c 'echo "deploying $SHA"'
//! ```
//!
//! The URL may come from `HOOKBOT_URL` instead, which keeps its token out of the process list. The
//! messages are those of the server's github router, which publishes only what GitHub has signed.

use anyhow::{Context, Result};
use hookbot_listen::{Endpoint, retrying_watch};
use serde::Deserialize;
use tokio::process::Command;

/// What the github router says of a push.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Push {
    r#type: String,
    repo: String,
    branch: String,
    #[serde(rename = "SHA")]
    sha: String,
    who: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    let url = arguments.next_if(|argument| argument.contains("://"));
    let url = url.or_else(|| std::env::var("HOOKBOT_URL").ok());
    let endpoint = Endpoint::new(&url.context("give a URL, or set HOOKBOT_URL")?)?;
    let command: Vec<_> = arguments.collect();
    let (program, arguments) = command.split_first().context("give a command to run")?;

    eprintln!("waiting for pushes to {endpoint}");
    let mut messages = retrying_watch(endpoint);
    while let Some(message) = messages.next().await {
        let message = match message {
            Ok(message) => message,
            // A wrong token does not become right by trying again.
            Err(error) if error.is_refusal() => return Err(error.into()),
            // Once the connection is back, the pushes that came meanwhile come first.
            Err(error) => {
                eprintln!("{:#}, reconnecting", anyhow::Error::from(error));
                continue;
            }
        };
        match serde_json::from_slice(&message.payload) {
            // A deleted branch is a push of nothing.
            Ok(Push { sha, .. }) if sha.bytes().all(|digit| digit == b'0') => {}
            Ok(push) => deploy(&push, program, arguments).await?,
            Err(error) => eprintln!("not a push: {error}"),
        }
    }
    Ok(())
}

/// Runs the command to its end. Pushes that come meanwhile wait for their turn.
async fn deploy(push: &Push, program: &str, arguments: &[String]) -> Result<()> {
    let Push {
        r#type: kind,
        repo,
        branch,
        sha,
        who,
    } = push;
    eprintln!("{kind} to {branch} of {repo} by {who}");
    let status = Command::new(program)
        .args(arguments)
        .env("SHA", sha)
        .status()
        .await
        .with_context(|| format!("cannot run {program}"))?;
    eprintln!("{program}: {status}");
    Ok(())
}

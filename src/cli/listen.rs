//! `hookbot listen`: messages on standard output, or to a command each.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use hookbot_listen::{Error, Message, retrying_watch};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;
use tracing::{info, warn};

use super::remote::{RemoteArgs, block_on};
use super::{Failure, output};
use crate::config::Span;

/// Prints messages as they come, and reconnects for ever.
///
/// A URL whose path ends in a slash listens to everything below it; each message then comes
/// with its topic and a tab before it.
#[derive(Debug, Args)]
pub(super) struct ListenArgs {
    /// Where to listen, for example wss://TOKEN@example.com/sub/deploys/.
    url: String,

    /// Print one JSON object a message: topic, and body, or body_base64 where that is not UTF-8.
    #[arg(long)]
    json: bool,

    /// Run this with the shell for each message, one after the other: the body on its standard
    /// input, the topic in HOOKBOT_TOPIC.
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,

    /// Stop after so many messages.
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Stop after this time; not having had --count messages by then is a failure.
    #[arg(long, value_name = "TIME")]
    timeout: Option<Span>,

    /// Listen below /unsafe/, where anybody may publish: says that you check what you get.
    #[arg(long)]
    unsafe_is_ok: bool,

    #[command(flatten)]
    remote: RemoteArgs,
}

pub(super) fn run(args: &ListenArgs) -> Result<(), Failure> {
    block_on(async {
        let limit = args.timeout.map_or(Duration::MAX, |Span(span)| span);
        match (timeout(limit, listen(args)).await, args.count) {
            (Ok(done), _) => done,
            (Err(_), None) => Ok(()),
            (Err(_), Some(count)) => {
                let error = format!(
                    "{count} messages did not come within {}",
                    humantime::format_duration(limit)
                );
                Err(Failure::Timeout(error))
            }
        }
    })
}

async fn listen(args: &ListenArgs) -> Result<(), Failure> {
    let mut endpoint = args.remote.endpoint(&args.url)?;
    if args.unsafe_is_ok {
        endpoint = endpoint.header(
            "X-Hookbot-Unsafe-Is-Ok",
            "I understand the security implications",
        )?;
    }
    let mut messages = retrying_watch(endpoint);
    let (mut received, mut failed) = (0, 0_u64);
    while args.count.is_none_or(|count| received < count) {
        match messages.next().await {
            None => break,
            Some(Ok(message)) => {
                received += 1;
                match &args.exec {
                    Some(command) => failed += u64::from(!execute(command, &message).await?),
                    None => output::write(&format(args, &message))?,
                }
            }
            // A token that is wrong now will be wrong for ever; one that was right may be again.
            Some(Err(error)) if error.is_refusal() && received == 0 => return Err(error.into()),
            // A frame that can't be read is lost, but the connection is not.
            Some(Err(error @ Error::Frame)) => warn!(%error, "message skipped"),
            Some(Err(error)) => warn!(%error, "reconnecting"),
        }
    }
    messages.finish().await;
    match failed {
        0 => Ok(()),
        _ => Err(anyhow!("the command failed for {failed} of {received} messages").into()),
    }
}

/// A message as it is printed, its newline included.
fn format(args: &ListenArgs, message: &Message) -> Vec<u8> {
    let Message { topic, payload, .. } = message;
    if args.json {
        let object = match str::from_utf8(payload) {
            Ok(text) => serde_json::json!({ "topic": topic, "body": text }),
            Err(_) => {
                serde_json::json!({ "topic": topic, "body_base64": STANDARD.encode(payload) })
            }
        };
        return format!("{object}\n").into_bytes();
    }
    let path = args.url.split(['?', '#']).next().unwrap_or_default();
    let prefix = if path.ends_with('/') {
        format!("{topic}\t")
    } else {
        String::new()
    };
    [prefix.as_bytes(), payload, b"\n"].concat()
}

/// Runs the command; whether it succeeded.
async fn execute(command: &str, message: &Message) -> Result<bool, Failure> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .env("HOOKBOT_TOPIC", &message.topic)
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run sh")?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A command need not read what it is given.
            let _ = stdin.write_all(&message.payload).await;
        }
    };
    let (status, ()) = tokio::join!(child.wait(), feed);
    let status = status.context("cannot wait for the command")?;
    if !status.success() {
        warn!(topic = message.topic, %status, "the command failed");
        return Ok(false);
    }
    info!(
        topic = message.topic,
        bytes = message.payload.len(),
        "the command is done"
    );
    Ok(true)
}

//! `hookbot listen`: messages on standard output, or to a command each.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use hookbot_listen::{Endpoint, Error, Message, retrying_watch};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;
use tracing::{info, warn};

use super::remote::{RemoteArgs, block_on};
use super::{Failure, output};
use crate::config::Span;
use crate::state_file::StateFile;

/// Prints messages as they come, and reconnects for ever.
///
/// A URL whose path ends in a slash listens to everything below it; each message then comes
/// with its topic and a tab before it.
#[derive(Debug, Args)]
pub(super) struct ListenArgs {
    /// Where to listen, for example wss://TOKEN@example.com/sub/deploys/.
    url: String,

    /// Print one JSON object a message: topic, and body, or body_base64 where that is not UTF-8,
    /// and what else the server tells of it, such as the cursor, headers, source, verified_by, or
    /// why it was refused or parked.
    #[arg(long)]
    json: bool,

    /// Begin behind this cursor, or with the oldest message there is (start).
    #[arg(long, value_name = "CURSOR", conflicts_with = "since")]
    after: Option<String>,

    /// Begin with what was published since this time, such as 10m or 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,

    /// Keep the place in this file, and go on from it next time. A message whose --exec command
    /// failed counts as dealt with.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,

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
    let endpoint = endpoint(args)?;
    let mut received = 0;
    let done = block_on(async {
        let limit = args.timeout.map_or(Duration::MAX, |Span(span)| span);
        match (
            timeout(limit, listen(args, endpoint, &mut received)).await,
            args.count,
        ) {
            (Ok(done), _) => done,
            (Err(_), None) => Ok(()),
            (Err(_), Some(count)) => {
                let limit = humantime::format_duration(limit);
                Err(Failure::Timeout(format!(
                    "{received} of {count} messages came within {limit}"
                )))
            }
        }
    });
    match done {
        // There is no other end.
        Err(Failure::Interrupted) if args.count.is_none() => Ok(()),
        done => done,
    }
}

fn endpoint(args: &ListenArgs) -> Result<Endpoint, Failure> {
    let mut endpoint = args.remote.endpoint(&args.url)?;
    if args.unsafe_is_ok {
        let (name, value) = UNSAFE_IS_OK;
        endpoint = endpoint.header(name, value)?;
    }
    let stored = args
        .state
        .as_deref()
        .map(|file| StateFile::new(file).load())
        .transpose()?;
    Ok(match (stored.flatten(), &args.after, &args.since) {
        (Some(cursor), _, _) => endpoint.after(&cursor),
        (None, Some(cursor), _) => endpoint.after(cursor),
        (None, None, Some(time)) => endpoint.since(time),
        (None, None, None) => endpoint,
    })
}

/// What the server wants to hear from who listens to anybody's messages.
pub(super) const UNSAFE_IS_OK: (&str, &str) = (
    "X-Hookbot-Unsafe-Is-Ok",
    "I understand the security implications",
);

async fn listen(args: &ListenArgs, endpoint: Endpoint, received: &mut u64) -> Result<(), Failure> {
    let state = args.state.as_deref().map(StateFile::new);
    let is_prefix = endpoint.is_prefix();
    info!(%endpoint, "listening");
    let mut messages = retrying_watch(endpoint);
    let mut failed = 0_u64;
    let mut kept = None;
    let mut now_and_then = tokio::time::interval(KEEP_INTERVAL);
    while args.count.is_none_or(|count| *received < count) {
        if let Some(state) = &state {
            let place = messages.place().map(str::to_owned);
            if let Some(place) = place.as_deref().filter(|_| place != kept) {
                state.store(place)?;
            }
            kept = place;
        }
        let next = tokio::select! {
            next = messages.next() => next,
            // The place moves on without messages, too.
            _ = now_and_then.tick(), if state.is_some() => continue,
        };
        match next {
            None => break,
            Some(Ok(message)) => {
                *received += 1;
                match &args.exec {
                    Some(command) => failed += u64::from(!execute(command, &message).await?),
                    None if args.json => output::line(&json(&message))?,
                    None => output::write(&text(&message, is_prefix))?,
                }
            }
            // A token that is wrong now will be wrong for ever; one that was right may be again.
            Some(Err(error)) if error.is_refusal() && *received == 0 => return Err(error.into()),
            Some(Err(Error::Gap {
                asked,
                oldest,
                reason,
            })) if args.json => {
                let gap = serde_json::json!({ "gap": { "asked": asked, "oldest": oldest, "reason": reason } });
                output::line(&gap.to_string())?;
            }
            Some(Err(error)) if error.is_passing() => warn!("{:#}", anyhow::Error::from(error)),
            Some(Err(error)) => warn!("{:#}; reconnecting", anyhow::Error::from(error)),
        }
    }
    if let (Some(state), Some(place)) = (&state, messages.place()) {
        state.store(place)?;
    }
    messages.finish().await;
    match failed {
        0 => Ok(()),
        _ => Err(anyhow!("the command failed for {failed} of {received} messages").into()),
    }
}

/// How often the place is kept when no message comes.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A message as people read it, its newline included.
fn text(message: &Message, is_prefix: bool) -> Vec<u8> {
    let Message { topic, payload, .. } = message;
    let prefix = if is_prefix {
        format!("{topic}\t")
    } else {
        String::new()
    };
    [prefix.as_bytes(), payload, b"\n"].concat()
}

/// A message as scripts read it.
fn json(message: &Message) -> String {
    let Message {
        topic,
        payload,
        event,
    } = message;
    if let Some(event) = event {
        return event.to_json(payload);
    }
    let object = match str::from_utf8(payload) {
        Ok(text) => serde_json::json!({ "topic": topic, "body": text }),
        Err(_) => serde_json::json!({ "topic": topic, "body_base64": STANDARD.encode(payload) }),
    };
    object.to_string()
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
        std::future::pending().await
    };
    let status = tokio::select! {
        // Not even if somebody whom it has left behind holds its standard input.
        status = child.wait() => status,
        never = feed => never,
    };
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

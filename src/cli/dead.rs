//! `hookbot dead`: what targets did not take.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use hookbot_forward::letters::Letter;
use hookbot_forward::target::masked;
use hookbot_forward::{Answer, Exec, Message, Pair, Taker, Verdict};
use serde_json::json;

use super::forward::{CommandArgs, TargetArgs, prefix, store_in};
use super::remote::block_on;
use super::running::RunningArgs;
use super::{Failure, output};
use crate::server;
use crate::server::admin::{Line, Question};

/// Looks at the messages that forwarding has put aside, sends them again, or drops them.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DeadArgs {
    #[command(subcommand)]
    command: Dead,
}

#[derive(Debug, Subcommand)]
enum Dead {
    /// Print a line for each: its id, when, why, and what it is.
    List {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Print all that is known of one, and its body.
    Show {
        #[command(flatten)]
        place: PlaceArgs,
        /// Its id.
        id: u64,
    },
    /// Offer them again, once, and drop those that are taken.
    Retry(Box<RetryArgs>),
    /// Drop them.
    Drop {
        #[command(flatten)]
        place: PlaceArgs,
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Args)]
struct RetryArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    which: Which,
    /// Send them here, in place of where they were for: needed where that has a password.
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    command: CommandArgs,
}

/// Whose dead letters.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// What forward was given as --state.
    #[arg(long, env = "HOOKBOT_FORWARD_STATE", value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// What the deliveries of a server have put aside, rather than forward.
    #[arg(long)]
    deliveries: bool,
    #[command(flatten)]
    server: RunningArgs,
    /// Only of sources that have this in their URL.
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// Only of targets that have this in their URL.
    #[arg(long, value_name = "TEXT")]
    target_url: Option<String>,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Which of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Their ids.
    ids: Vec<u64>,
    /// All of them.
    #[arg(long)]
    all: bool,
}

const EXAMPLES: &str = "\
Examples:
  hookbot dead list
  hookbot dead show 3
  hookbot dead retry --all --target-url localhost:3000
  hookbot dead drop 3 4
  hookbot dead retry --deliveries --all";

pub(super) fn run(args: &DeadArgs) -> Result<(), Failure> {
    match &args.command {
        Dead::List { place } => list(place),
        Dead::Show { place, id } => show(place, *id),
        Dead::Retry(args) if args.place.deliveries => retry_deliveries(args),
        Dead::Retry(args) => block_on(retry(args)),
        Dead::Drop { place, which } => {
            let mut dropped = 0;
            for (pair, letter) in chosen(place, which)? {
                pair.letters().remove(letter.id).context("cannot drop it")?;
                dropped += 1;
            }
            said(place, "dropped", dropped)
        }
    }
}

fn list(place: &PlaceArgs) -> Result<(), Failure> {
    for pair in pairs(place)? {
        let letters = pair.letters().list().context("cannot list them")?;
        if letters.is_empty() {
            continue;
        }
        if !place.json {
            output::line(&format!("{} -> {}", pair.source, masked(&pair.target)))?;
        }
        for letter in letters {
            output::line(&if place.json {
                facts(&pair, &letter).to_string()
            } else {
                line(&letter)
            })?;
        }
    }
    Ok(())
}

fn show(place: &PlaceArgs, id: u64) -> Result<(), Failure> {
    let found = chosen(place, &Which::one(id))?;
    let Some((pair, _)) = found.first() else {
        return Ok(());
    };
    let (letter, message) = pair.letters().read(id).context("cannot read it")?;
    let mut all = facts(pair, &letter);
    let text = str::from_utf8(&message.payload).ok();
    if place.json || text.is_none() {
        use base64::Engine;
        match text {
            Some(text) => all["body"] = text.into(),
            None => {
                let text = base64::engine::general_purpose::STANDARD.encode(&message.payload);
                all["body_base64"] = text.into();
            }
        }
        return output::line(&all.to_string());
    }
    for (name, value) in all.as_object().into_iter().flatten() {
        output::line(&format!(
            "{name}: {}",
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        ))?;
    }
    output::write(&[b"\n", &*message.payload, b"\n"].concat())
}

async fn retry(args: &RetryArgs) -> Result<(), Failure> {
    let (mut taken, mut failed) = (0_u64, 0_u64);
    for (pair, letter) in chosen(&args.place, &args.which)? {
        let taker = taker(args, &pair)?;
        let (_, message) = pair.letters().read(letter.id).context("cannot read it")?;
        let answer = taker.offer(&message, letter.attempts + 1).await;
        if answer.verdict == Verdict::Taken {
            pair.letters().remove(letter.id).context("cannot drop it")?;
            taken += 1;
        } else {
            failed += 1;
        }
        tell(args, &letter, &message, &answer)?;
    }
    summary(args, taken, failed)
}

fn summary(args: &RetryArgs, taken: u64, failed: u64) -> Result<(), Failure> {
    match failed {
        0 => said(&args.place, "delivered", taken),
        _ => Err(anyhow!("{failed} of {} were not taken", taken + failed).into()),
    }
}

/// Has the server offer them, which signs them and knows where they may go.
fn retry_deliveries(args: &RetryArgs) -> Result<(), Failure> {
    let mut by_delivery = BTreeMap::<_, Vec<_>>::new();
    for (pair, letter) in chosen(&args.place, &args.which)? {
        by_delivery.entry(pair.target).or_default().push(letter.id);
    }
    let (mut taken, mut failed) = (0_u64, 0_u64);
    for (delivery, letters) in by_delivery {
        let question = Question::Retry { delivery, letters };
        args.place.server.ask(&question, |line| {
            let Line::Retried(retried) = line else {
                return Ok(());
            };
            match retried.is_taken {
                true => taken += 1,
                false => failed += 1,
            }
            output::line(&if args.place.json {
                json!({
                    "id": retried.id, "is_delivered": retried.is_taken, "text": retried.text,
                })
                .to_string()
            } else {
                format!("{} {}", retried.id, retried.text)
            })
        })?;
    }
    summary(args, taken, failed)
}

/// Whom the letters of a pair are for.
fn taker(args: &RetryArgs, pair: &Pair) -> Result<Arc<dyn Taker>, Failure> {
    let url = args.to.as_deref().unwrap_or(&pair.target);
    if let Some(command) = url.strip_prefix("exec:") {
        return Ok(Arc::new(Exec::new(
            command,
            args.command.settings(args.place.json),
        )));
    }
    Ok(Arc::new(args.target.target(url, prefix(&pair.source))?))
}

fn tell(
    args: &RetryArgs,
    letter: &Letter,
    message: &Message,
    answer: &Answer,
) -> Result<(), Failure> {
    let is_taken = answer.verdict == Verdict::Taken;
    output::line(&if args.place.json {
        json!({
            "id": letter.id, "is_delivered": is_taken, "code": answer.code, "text": answer.text,
            "delivery": message.delivery_id(),
        })
        .to_string()
    } else {
        format!("{} {}", letter.id, answer.text)
    })
}

fn said(place: &PlaceArgs, what: &str, count: u64) -> Result<(), Failure> {
    output::line(&if place.json {
        json!({ what: count }).to_string()
    } else {
        format!("{count} {what}")
    })
}

/// The sources and targets that are meant.
fn pairs(place: &PlaceArgs) -> Result<Vec<Pair>, Failure> {
    let store = match place.deliveries {
        true => server::store_in(&place.server.folder()?),
        false => store_in(place.state.as_deref())?,
    };
    let mut pairs = store.pairs().context("cannot read the state")?;
    let has =
        |text: &str, part: &Option<String>| part.as_ref().is_none_or(|part| text.contains(part));
    pairs.retain(|pair| has(&pair.source, &place.source) && has(&pair.target, &place.target_url));
    Ok(pairs)
}

/// The letters that are meant; each id that is named has to be there, and of one target.
fn chosen(place: &PlaceArgs, which: &Which) -> Result<Vec<(Pair, Letter)>, Failure> {
    let mut all = Vec::new();
    for pair in pairs(place)? {
        let letters = pair.letters().list().context("cannot list them")?;
        all.extend(letters.into_iter().map(|letter| (pair.clone(), letter)));
    }
    if which.all {
        return Ok(all);
    }
    for id in &which.ids {
        let error = match all.iter().filter(|(_, letter)| letter.id == *id).count() {
            0 => anyhow!("there is no dead letter {id}"),
            1 => continue,
            _ => anyhow!(
                "several targets have a dead letter {id}: choose with --target-url or --source"
            ),
        };
        return Err(Failure::Usage(error));
    }
    all.retain(|(_, letter)| which.ids.contains(&letter.id));
    Ok(all)
}

impl Which {
    fn one(id: u64) -> Self {
        Self {
            ids: vec![id],
            all: false,
        }
    }
}

fn line(letter: &Letter) -> String {
    let Letter {
        id,
        parked_at,
        reason,
        attempts,
        size,
        event,
        ..
    } = letter;
    format!(
        "{id}\t{parked_at}\t{}\t{size} B\tattempts: {attempts}\t{reason}",
        event.topic
    )
}

fn facts(pair: &Pair, letter: &Letter) -> serde_json::Value {
    let mut facts = serde_json::to_value(letter).unwrap_or_default();
    facts["source"] = pair.source.clone().into();
    facts["target"] = masked(&pair.target).into();
    facts
}

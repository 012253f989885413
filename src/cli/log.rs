//! `hookbot log`: a look at the messages that are kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use hookbot_log::{DiskLog, Log, Options, Retention};
use hookbot_protocol::{Cursor, Offset};
use tokio::sync::mpsc::{self, Receiver};

use super::remote::block_on;
use super::{Failure, output};
use crate::config::data_dir;
use crate::server::admin::{Line, Question, answer, ask};

/// Looks at the messages that are kept, whether or not a server is running.
#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// The server's folder.
    #[arg(long, global = true, env = "HOOKBOT_DATA_DIR", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,

    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    question: LogQuestion,
}

#[derive(Debug, Subcommand)]
enum LogQuestion {
    /// Tell how much is kept, and what keeping it has cost.
    Stats,
    /// Read everything and tell what is damaged.
    Verify,
    /// Print messages, one JSON object a line.
    Read {
        /// A topic, or a prefix that ends in a slash; those of strangers begin with /unsafe/.
        #[arg(default_value = "/")]
        filter: String,
        /// Begin behind this cursor or offset.
        #[arg(long, value_name = "CURSOR")]
        after: Option<Place>,
        /// At most so many.
        #[arg(long, default_value_t = u64::MAX, hide_default_value = true, value_name = "N")]
        limit: u64,
    },
    /// Drop the oldest messages, in whole segments.
    Trim {
        /// The oldest message to keep, by cursor or offset.
        #[arg(long, value_name = "CURSOR")]
        before: Place,
    },
}

/// A place in the log, with its epoch or without.
#[derive(Debug, Clone, Copy)]
struct Place(Offset);

impl std::str::FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let offset = text.parse().map(Offset).ok();
        let cursor = || text.parse().map(|cursor: Cursor| cursor.offset).ok();
        offset
            .or_else(cursor)
            .map(Self)
            .ok_or("expected a cursor or an offset")
    }
}

pub(super) fn run(args: &LogArgs) -> Result<(), Failure> {
    let folder = data_dir(args.data_dir.as_deref())?;
    let question = match &args.question {
        LogQuestion::Stats => Question::Stats,
        LogQuestion::Verify => Question::Verify,
        LogQuestion::Read {
            filter,
            after,
            limit,
        } => Question::Read {
            filter: filter.clone(),
            from: after.map_or(0, |Place(after)| after.next().0),
            limit: *limit,
        },
        LogQuestion::Trim {
            before: Place(before),
        } => Question::Trim { upto: before.0 },
    };
    block_on(async {
        let (out, lines) = mpsc::channel(64);
        let asking = async {
            let asked = ask(&folder, &question, &out).await;
            let asked =
                asked.with_context(|| format!("cannot ask the server in {}", folder.display()));
            if asked?.is_none() {
                answer(&*open(&folder, &question)?, question.clone(), &out).await;
            }
            drop(out);
            Ok::<_, Failure>(())
        };
        let (asked, shown) = tokio::join!(asking, show(lines, args.json));
        asked.and(shown)
    })
}

/// Opens the log of a server that is not running. What can't be opened can still be surveyed.
fn open(folder: &Path, question: &Question) -> Result<Box<dyn Log>, Failure> {
    if !folder.join("meta").exists() {
        return Err(anyhow!("there is no log in {}", folder.display()).into());
    }
    if *question == Question::Verify {
        let damage = hookbot_log::verify(folder)?;
        for place in &damage {
            output::line(&place.to_string())?;
        }
        if let Some(place) = damage.into_iter().next() {
            return Err(hookbot_log::OpenError::Damaged(place).into());
        }
    }
    // Looking must not be what drops messages.
    let everything = Retention {
        age: Duration::MAX,
        bytes: u64::MAX,
        messages: u64::MAX,
    };
    let options = Options {
        retain: everything,
        ..Options::default()
    };
    Ok(Box::new(DiskLog::open(folder, options)?))
}

async fn show(mut lines: Receiver<Line>, json: bool) -> Result<(), Failure> {
    let mut damaged = 0_u64;
    while let Some(line) = lines.recv().await {
        match line {
            Line::Message(message) => output::line(&message)?,
            Line::Error(error) => return Err(Failure::Usage(anyhow!(error))),
            Line::Stats(figures) if json => {
                let name = |name: String| name.replace(' ', "_");
                let figures = figures
                    .into_iter()
                    .map(|(own, value)| (name(own), value.into()));
                let figures: serde_json::Map<_, _> = figures.collect();
                output::line(&serde_json::Value::Object(figures).to_string())?;
            }
            line if json => output::line(&serde_json::json!(line).to_string())?,
            Line::Stats(figures) => {
                for (name, value) in figures {
                    output::line(&format!("{name:<20} {value:>14}"))?;
                }
            }
            Line::Damage(damage) => {
                damaged += 1;
                output::line(&damage)?;
            }
            Line::Verified(messages) => output::line(&format!("{messages} messages read"))?,
            // Nobody has asked for these.
            Line::Source(_)
            | Line::Delivery(_)
            | Line::Resumed(_)
            | Line::Retried(_)
            | Line::PreviousKey(_) => {}
            Line::Trimmed(first) => output::line(&format!("the oldest offset is now {first}"))?,
        }
    }
    match damaged {
        0 => Ok(()),
        _ => Err(anyhow!("{damaged} places are damaged").into()),
    }
}

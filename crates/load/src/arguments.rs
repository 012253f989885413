//! Arguments as typed, but for each command's own, which are with the command. Their docs are the
//! `--help`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::clock;
use crate::fanout::FanoutArgs;
use crate::floor::FloorArgs;
use crate::growth::GrowthArgs;
use crate::idle::IdleArgs;
use crate::pace::Pace;
use crate::publish::PublishArgs;
use crate::publisher::Plan;
use crate::resume::ResumeArgs;
use crate::schedule::Schedule;
use crate::shape::Shape;
use crate::slow::SlowArgs;
use crate::stamp::Stamp;

/// Puts load on a webhook broker, counts every loss and measures every wait.
///
/// Every payload says who sent it, as which, and when, so that each subscriber knows exactly what
/// is lost, repeated or out of order. In an open loop (--rate) a wait begins when a message was
/// due, whether it could be sent then or not.
#[derive(Debug, Parser)]
#[command(name = "hookbot-load", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes:
  0  all is well
  1  messages were lost, repeated, out of order or damaged
  2  it can't be done as it was asked for
  3  the server can't be reached, or refuses subscribers";

impl Cli {
    /// Parses a command line, the program's name first.
    ///
    /// # Errors
    ///
    /// When it is none, or asks for help.
    pub fn parse_arguments<A: Into<OsString> + Clone>(
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Publishers and subscribers: deliveries a second, and how long each takes.
    Fanout(FanoutArgs),
    /// Publishers alone.
    Publish(PublishArgs),
    /// Subscribers that wait: memory a connection, then one message to all, then a burst.
    Idle(IdleArgs),
    /// Subscribers that never read: what they cost those that do, and the server. 200 messages a
    /// second unless --rate says more.
    Slow(SlowArgs),
    /// Subscribers that hang up and go on where they were. 200 messages a second unless --rate says
    /// more.
    Resume(ResumeArgs),
    /// The time of a publish against the number of subscribers, and of topics.
    Growth(GrowthArgs),
    /// No server at all: what the kernel alone takes to write one frame to each of many sockets.
    Floor(FloorArgs),
}

impl Command {
    /// What it is called, how it is run, and where the server is, if there is one.
    pub(crate) fn parts(&self) -> (&'static str, &RunArgs, Option<&TargetArgs>) {
        match self {
            Self::Fanout(args) => ("fanout", &args.run, Some(&args.target)),
            Self::Publish(args) => ("publish", &args.run, Some(&args.target)),
            Self::Idle(args) => ("idle", &args.run, Some(&args.target)),
            Self::Slow(args) => ("slow", &args.run, Some(&args.target)),
            Self::Resume(args) => ("resume", &args.run, Some(&args.target)),
            Self::Growth(args) => ("growth", &args.run, Some(&args.target)),
            Self::Floor(args) => ("floor", &args.run, None),
        }
    }
}

/// Where the server is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct TargetArgs {
    /// Where it listens.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,

    /// Whose URLs it has.
    #[arg(long, value_enum, default_value_t = Shape::Hookbot)]
    pub(crate) shape: Shape,

    /// A file with the secret that tokens are made with; a last newline does not count. HOOKBOT_KEY
    /// may have the secret itself.
    #[arg(long, env = "HOOKBOT_KEY_FILE", value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,

    /// Certificates of the authorities that an https server is believed by, PEM.
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub(crate) ca: Option<PathBuf>,

    /// Believe any https server.
    #[arg(long)]
    pub(crate) insecure: bool,

    /// A process of the server, to measure its time and memory, with all that it started; may be
    /// repeated.
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Vec<u32>,

    /// Start the server with this command, wait until it listens, measure it, and stop it at the
    /// end. Without a key it gets a random one.
    #[arg(long, value_name = "COMMAND", conflicts_with = "pid")]
    pub(crate) spawn: Option<String>,

    /// Put load on a server that is not on this machine. Only its owner may say so.
    #[arg(long)]
    pub(crate) i_own_this_host: bool,
}

/// How it is run and told.
#[derive(Debug, Args)]
#[command(next_help_heading = "Run")]
pub(crate) struct RunArgs {
    /// How often it is all done again.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,

    /// Threads of the load; by default half as many as there are processors.
    #[arg(long)]
    pub(crate) threads: Option<usize>,

    /// Print one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,

    /// Append a row of tab-separated values to a file.
    #[arg(long, value_name = "FILE")]
    pub(crate) table: Option<PathBuf>,

    /// What the row and the JSON are called.
    #[arg(long, default_value = "")]
    pub(crate) label: String,

    /// Exit with 0 though messages were lost, repeated or out of order.
    #[arg(long)]
    pub(crate) allow_loss: bool,

    /// How long to wait for deliveries while none comes.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) patience: Duration,
}

/// Messages, and how they are published.
#[derive(Debug, Args)]
#[command(next_help_heading = "Messages")]
pub(crate) struct LoadArgs {
    /// Bytes of a payload.
    #[arg(long, default_value_t = 1_024, value_parser = size)]
    pub(crate) size: usize,

    /// How long to publish.
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,

    /// Messages a second, of all publishers together; as many as are answered without it.
    #[arg(long, value_parser = rate)]
    pub(crate) rate: Option<f64>,

    /// Requests under way on each connection.
    #[arg(long, default_value_t = 1, value_name = "DEPTH", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) pipeline: u16,
}

/// The rate of those commands that are about waits, and so have an open loop always.
const DEFAULT_RATE: f64 = 200.0;

impl LoadArgs {
    /// The rate where there has to be one.
    pub(crate) fn rate_or_default(&self) -> Option<f64> {
        self.rate.or(Some(DEFAULT_RATE))
    }

    /// How so many publishers are paced.
    pub(crate) fn paces(&self, rate: Option<f64>, publishers: usize) -> Vec<Pace> {
        let Some(rate) = rate else {
            return (0..publishers)
                .map(|_| Pace::closed(self.duration))
                .collect();
        };
        let schedule = Schedule::new(clock::now(), rate, self.duration);
        let shares = schedule.start(publishers).into_iter();
        shares
            .map(|share| Pace::open(share, self.duration))
            .collect()
    }

    /// The settings that a row names.
    pub(crate) fn settings(&self, rate: Option<f64>) -> [(&'static str, String); 4] {
        let rate = rate.map_or_else(|| "closed".to_owned(), |rate| rate.to_string());
        [
            ("size", self.size.to_string()),
            ("rate", rate),
            ("pipeline", self.pipeline.to_string()),
            ("seconds", self.duration.as_secs_f64().to_string()),
        ]
    }

    /// What publishers of so many topics do.
    pub(crate) fn plan(&self, run: u16, topics: u32) -> Plan {
        Plan {
            run,
            topics,
            size: self.size,
            depth: self.pipeline.into(),
        }
    }
}

/// A payload's size that has room for a stamp.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let size = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(Stamp::MIN_SIZE..=1 << 30).contains(&size) {
        return Err(format!("a payload has {} bytes or more", Stamp::MIN_SIZE));
    }
    Ok(size)
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().map_err(|_| "not a number".to_owned())?;
    if !(rate.is_finite() && rate > 0.0) {
        return Err("a rate is more than zero".to_owned());
    }
    Ok(rate)
}

/// A number of topics that can be told apart.
pub(crate) fn topics() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(Stamp::MAX_TOPICS))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let refused = [
            "load fanout --size 10",
            "load fanout --rate 0",
            "load fanout --rate inf",
            "load fanout --subscribers 0",
            "load fanout --topics 9999999",
            "load publish --pipeline 0",
            "load publish --rounds 0",
            "load idle --ca x --insecure",
            "load fanout --pid 1 --spawn x",
            "load fanout --duration soon",
            "load",
        ];
        for line in refused {
            let refused = Cli::parse_arguments(line.split(' ')).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{line}");
        }
        for line in [
            "load fanout --rate 2.5 --duration 100ms",
            "load floor",
            "load idle",
        ] {
            assert!(Cli::parse_arguments(line.split(' ')).is_ok(), "{line}");
        }
    }
}

//! Arguments as typed: one file a command, and how each way to fail leaves the process.

mod check;
mod completion;
mod dead;
mod deliveries;
mod forward;
mod gosmee;
mod input;
mod listen;
mod listing;
mod log;
mod make_tokens;
mod man;
mod output;
mod provider;
mod publish;
mod reconcile;
mod remote;
mod replay;
mod resend;
mod route;
mod route_github;
mod running;
mod serve;
mod sign;
mod sources;
mod tunnel;
mod verify;
mod webhook;
mod when;

use std::io;
use std::process::ExitCode;

use anstream::{AutoStream, ColorChoice};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use hookbot_log::OpenError;
use tracing::{Level, warn};
use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, KeyArgs, KeyError, NoDataDir, Secret};

/// Turns webhooks into messages that anything can listen to, from behind any firewall.
///
/// Senders post to a public URL; listeners dial out over a WebSocket. Tokens are HMACs of paths
/// under one key: HOOKBOT_KEY=... hookbot serve
#[derive(Debug, Parser)]
#[command(name = "hookbot", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct GlobalArgs {
    #[command(flatten)]
    keys: KeyArgs,

    /// The secret that GitHub signs webhooks with.
    #[arg(
        long,
        global = true,
        env = "HOOKBOT_GITHUB_SECRET",
        hide_env_values = true
    )]
    #[arg(value_name = "SECRET", help_heading = "Keys")]
    github_secret: Option<Secret>,

    /// How log lines are written, to standard error. RUST_LOG chooses which.
    #[arg(
        long,
        global = true,
        env = "HOOKBOT_LOG_FORMAT",
        value_enum,
        default_value_t,
        help_heading = "Logging"
    )]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::ServeArgs>),
    #[command(visible_alias = "t")]
    MakeTokens(make_tokens::MakeTokensArgs),
    Listen(listen::ListenArgs),
    Publish(publish::PublishArgs),
    #[command(visible_alias = "client")]
    Forward(Box<forward::ForwardArgs>),
    Dead(dead::DeadArgs),
    Tunnel(Box<tunnel::TunnelArgs>),
    Replay(Box<replay::ReplayArgs>),
    Reconcile(reconcile::ReconcileArgs),
    RouteGithub(route_github::RouteGithubArgs),
    Route(route::RouteArgs),
    Check(check::CheckArgs),
    Log(log::LogArgs),
    Sources(sources::SourcesArgs),
    Deliveries(deliveries::DeliveriesArgs),
    Verify(Box<verify::VerifyArgs>),
    Sign(Box<sign::SignArgs>),
    Completion(completion::CompletionArgs),
    Man(man::ManArgs),
}

/// Why a command failed, by the exit code it leaves.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The arguments or the environment are not right.
    #[error("{0:#}")]
    Usage(anyhow::Error),
    /// The server said no, or a signature is not to be believed.
    #[error("{0:#}")]
    Refused(anyhow::Error),
    /// The server can't be reached, or was lost.
    #[error("{0:#}")]
    Unreachable(anyhow::Error),
    /// Not enough happened in time.
    #[error("{0}")]
    Timeout(String),
    /// Messages that were acknowledged are damaged.
    #[error("{0}; --repair gives the damaged messages up and keeps all others")]
    Damaged(OpenError),
    /// The configuration file is wrong.
    #[error("{0}")]
    Config(ConfigError),
    /// Deliveries were missing, and are not any more.
    #[error("{0}")]
    Missing(String),
    /// The last target has said that it wants no more.
    #[error("every target has answered 410 Gone, so there is nobody left to forward to")]
    Gone,
    /// Somebody pressed Ctrl-C before it was done.
    #[error("interrupted")]
    Interrupted,
    /// Everything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Other(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
            Self::Unreachable(_) => 4,
            Self::Timeout(_) => 5,
            Self::Damaged(_) => 6,
            Self::Config(_) => 7,
            Self::Missing(_) => 8,
            Self::Gone => 9,
            Self::Interrupted => 130,
        }
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Self::Usage(error.into())
    }
}

impl From<NoDataDir> for Failure {
    fn from(error: NoDataDir) -> Self {
        Self::Usage(error.into())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Read { .. } => Self::Usage(error.into()),
            error => Self::Config(error),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Damaged(_) => Self::Damaged(error),
            error => Self::Other(error.into()),
        }
    }
}

impl From<hookbot_listen::Error> for Failure {
    fn from(error: hookbot_listen::Error) -> Self {
        match error {
            hookbot_listen::Error::Url(_) => Self::Usage(error.into()),
            error if error.is_refusal() => Self::Refused(error.into()),
            error => Self::Unreachable(error.into()),
        }
    }
}

/// How every command's help ends.
const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  failed, for example because the port is taken
    2  wrong arguments, a missing key or a malformed URL
    3  the server refused, for example because of the token, or verify did
    4  the server can't be reached or was lost
    5  not done within --timeout, or --within
    6  messages on disk are damaged
    7  the configuration file is wrong
    8  reconcile found that deliveries were missing
    9  every target of forward is gone (410)
  130  interrupted before it was done, or told to stop a second time";

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let matches = gosmee::heed(Cli::command()).try_get_matches();
    let cli = match matches.and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe is no reason to fail.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(2),
            };
        }
    };
    let (command, level) = match &cli.command {
        Command::Forward(args) => {
            if args.is_colourless() {
                ColorChoice::Never.write_global();
            }
            ("forward", args.log_level())
        }
        Command::Replay(args) if args.asks_a_provider() => ("backfill", None),
        Command::Replay(_) => ("replay", None),
        _ => ("", None),
    };
    start_log(cli.global.log_format, level.unwrap_or(Level::INFO));
    for variable in gosmee::unheeded(command) {
        warn!("{variable} is not heeded here: see docs/moving.md");
    }
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        // Who presses Ctrl-C need not be told.
        Err(failure @ Failure::Interrupted) => failure.code().into(),
        Err(failure @ Failure::Missing(_)) => {
            anstream::eprintln!("{failure}");
            failure.code().into()
        }
        Err(failure) => {
            let style = anstyle::AnsiColor::Red.on_default().bold();
            anstream::eprintln!("{style}error:{style:#} {failure}");
            failure.code().into()
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::Serve(args) => serve::run(&global, &args),
        Command::MakeTokens(args) => make_tokens::run(&global.keys, &args),
        Command::Listen(args) => listen::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::Forward(args) => forward::run(&args),
        Command::Dead(args) => dead::run(&args),
        Command::Tunnel(args) => tunnel::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Reconcile(args) => reconcile::run(&args),
        Command::RouteGithub(args) => route_github::run(&global, &args),
        Command::Route(args) => route::run(&global, &args),
        Command::Check(args) => check::run(&args),
        Command::Log(args) => log::run(&args),
        Command::Sources(args) => sources::run(&args),
        Command::Deliveries(args) => deliveries::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Sign(args) => sign::run(&args),
        Command::Completion(args) => completion::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

/// Sends log lines to standard error, in colour where somebody looks at them.
fn start_log(format: LogFormat, level: Level) {
    let filter = EnvFilter::builder().with_default_directive(level.into());
    let is_coloured = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy())
        .with_writer(io::stderr);
    match format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.with_ansi(is_coloured).init(),
    }
}

//! A load generator for hookbot, and for what it is compared with.
//!
//! Each command puts one kind of load on a server and looks at it from outside: what it answers,
//! what its subscribers receive, and what its process takes. Client and server share a machine, so
//! the load itself is lean: raw sockets, one read buffer a thread, and of a payload only its
//! beginning is looked at.
//!
//! The rule a reader would get wrong: in an open loop a wait begins when a message was due, not
//! when it was sent. A server that stalls holds up its publishers, and what they could not send
//! would otherwise not be counted.

mod arguments;
mod arrivals;
mod clock;
mod crowd;
mod decoder;
mod descriptors;
mod event_lines;
mod failure;
mod fanout;
mod floor;
mod frames;
mod growth;
mod guest;
mod idle;
mod latency;
mod ledger;
mod pace;
mod phase;
mod process;
mod publish;
mod publisher;
mod report;
mod response;
mod resume;
mod row;
mod schedule;
mod seat;
mod session;
mod shape;
mod slow;
mod spawned;
mod stamp;
mod stream;
mod subscriber;
mod target;
mod tls;

use std::process::ExitCode;

use clap::Parser;

use arguments::Command;
use session::Session;

pub use arguments::Cli;
pub use failure::Failure;
pub use report::Report;
pub use row::Row;

/// Runs all the rounds of a command.
///
/// # Errors
///
/// When it ends before it has figures. Losses are figures.
pub async fn run(cli: &Cli) -> Result<Report, Failure> {
    let command = &cli.command;
    let (name, how, target) = command.parts();
    let session = match target {
        Some(args) => Some(Session::begin(args).await?),
        None => None,
    };
    let mut rounds = Vec::new();
    for _ in 0..how.rounds {
        rounds.push(match (command, &session) {
            (Command::Fanout(args), Some(session)) => vec![fanout::round(args, session).await?],
            (Command::Publish(args), Some(session)) => vec![publish::round(args, session).await?],
            (Command::Idle(args), Some(session)) => vec![idle::round(args, session).await?],
            (Command::Slow(args), Some(session)) => vec![slow::round(args, session).await?],
            (Command::Resume(args), Some(session)) => vec![resume::round(args, session).await?],
            (Command::Growth(args), Some(session)) => growth::round(args, session).await?,
            (Command::Floor(args), _) => vec![floor::round(args)?],
            (_, None) => unreachable!("every other command has a server"),
        });
    }
    Ok(Report::new(name, &how.label, rounds))
}

/// The program: runs what its arguments say, prints what it found, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run_and_print(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("hookbot-load: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Whether nothing went wrong that should not.
fn run_and_print(cli: &Cli) -> Result<bool, Failure> {
    let (_, args, _) = cli.command.parts();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(args.threads()).enable_all().build();
    let runtime = runtime.map_err(|cause| Failure::Local("cannot start threads", cause))?;
    let report = runtime.block_on(run(cli))?;
    if let Some(file) = &args.table {
        report.append_to(file)?;
    }
    if args.json {
        println!("{}", report.to_json());
    } else {
        print!("{}", report.to_text());
    }
    Ok(report.is_clean() || args.allow_loss)
}

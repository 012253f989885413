//! The commands against a real broker, and against one that does wrong.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod commands;
mod forgetful;
mod misdeeds;
mod program;
mod real;
mod request;
mod wrong;

use hookbot_load::{Cli, Report, Row, run};

/// Runs a command line as the program would.
async fn load(line: &str) -> Report {
    let arguments = std::iter::once("hookbot-load").chain(line.split_whitespace());
    let cli = Cli::parse_arguments(arguments).unwrap();
    run(&cli).await.unwrap()
}

/// The only row of a report.
fn only(report: &Report) -> Row {
    let rows = report.rows();
    assert_eq!(rows.len(), 1);
    rows[0].clone()
}

/// A figure of a row, which must be there.
#[track_caller]
fn figure(row: &Row, name: &str) -> f64 {
    let value = row.value(name);
    value.unwrap_or_else(|| panic!("no figure {name} in {row:?}"))
}

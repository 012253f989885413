//! `hookbot check`: what is wrong with a configuration file.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, output};
use crate::config::Config;

/// Checks a configuration file, its templates and its circles included.
///
/// Tells what is wrong with it, in all its tables at once, with line and column, and ends with 7. It
/// needs neither a key nor any secret, and shows none.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The file.
    file: PathBuf,
}

pub(super) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let config = Config::load(&args.file, None)?;
    let routes = match config.routes.len() {
        1 => "1 route".to_owned(),
        number => format!("{number} routes"),
    };
    let deliveries = match config.deliveries.len() {
        0 => String::new(),
        1 => ", 1 delivery".to_owned(),
        number => format!(", {number} deliveries"),
    };
    let sources = match config.sources.len() {
        0 => String::new(),
        1 => ", 1 source".to_owned(),
        number => format!(", {number} sources"),
    };
    let file = args.file.display();
    output::line(&format!("{file}: good, {routes}{sources}{deliveries}"))
}

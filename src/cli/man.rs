//! `hookbot man`: the manual pages.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_mangen::Man;

use super::{Cli, Failure, output};

/// Prints the manual page, or writes one a command.
///
/// For example: hookbot man | man -l -
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// A folder to write hookbot.1, hookbot-serve.1 and so on to.
    folder: Option<PathBuf>,
}

pub(super) fn run(args: &ManArgs) -> Result<(), Failure> {
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        Man::new(Cli::command())
            .render(&mut page)
            .context("cannot render the page")?;
        return output::write(&page);
    };
    let context = || format!("cannot write manual pages to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(context)?;
    clap_mangen::generate_to(Cli::command(), folder).with_context(context)?;
    Ok(())
}

//! `hookbot completion`: what a shell needs to complete a command line.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failure, output};

/// Prints a completion script.
///
/// For example: hookbot completion bash > /etc/bash_completion.d/hookbot
#[derive(Debug, Args)]
pub(super) struct CompletionArgs {
    /// The shell to complete in.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "hookbot", &mut script);
    output::write(&script)
}

//! The `hookbot` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    hookbot::cli::main()
}

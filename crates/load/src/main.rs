//! The `hookbot-load` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    hookbot_load::main()
}

//! Standard output, which may be a pipe that nobody reads any more.

use std::io::{self, Write};

use anyhow::Context;

use super::Failure;

/// Prints a line at once.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    write(&[text.as_bytes(), b"\n"].concat())
}

/// Writes bytes at once. A reader that has had enough ends the process, quietly.
pub(super) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => Ok(written.context("cannot write to standard output")?),
    }
}

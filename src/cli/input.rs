//! What a command is given to read: a file, or standard input.

use std::io::Read;
use std::path::Path;

use anyhow::Context;

use super::Failure;

/// Reads a whole file; `-` is standard input.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    if file.as_os_str() != "-" {
        let context = || format!("cannot read {}", file.display());
        return Ok(std::fs::read(file).with_context(context)?);
    }
    let mut body = Vec::new();
    std::io::stdin()
        .read_to_end(&mut body)
        .context("cannot read standard input")?;
    Ok(body)
}

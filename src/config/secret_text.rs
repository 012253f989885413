//! A secret as a file says it: where it is, rather than what it is.

use std::fs;
use std::os::unix::ffi::OsStringExt;

use tracing::warn;

use super::without_newline;

/// A secret that was found.
pub(super) struct Found {
    /// Where it was, or which one it is of those that are in the configuration.
    pub(super) label: String,
    /// What it is.
    pub(super) bytes: Vec<u8>,
}

/// A secret that was not found.
pub(super) struct NotFound {
    /// Where it should be.
    pub(super) label: String,
    /// Why it was not found. Names no secret.
    pub(super) reason: String,
}

/// Whether the secret is the text itself.
pub(super) fn is_literal(text: &str) -> bool {
    !text.starts_with("env:") && !text.starts_with("file:")
}

/// Finds the secret that `text` tells of: `env:NAME`, `file:PATH`, or itself, which is the
/// `number`th then, counted from 1, of `owner`.
pub(super) fn find(text: &str, number: usize, owner: &str) -> Result<Found, NotFound> {
    let not_found = |reason: String| NotFound {
        label: text.to_owned(),
        reason,
    };
    let found = |bytes| Found {
        label: text.to_owned(),
        bytes,
    };
    if let Some(name) = text.strip_prefix("env:") {
        let value = std::env::var_os(name).map(OsStringExt::into_vec);
        return value
            .map(found)
            .ok_or_else(|| not_found("it is not set".to_owned()));
    }
    if let Some(file) = text.strip_prefix("file:") {
        let bytes = fs::read(file).map_err(|error| not_found(error.to_string()))?;
        return Ok(found(without_newline(bytes)));
    }
    warn!(
        of = owner,
        "a secret is in the configuration itself, where others may read it; better write env:NAME or file:PATH"
    );
    Ok(Found {
        label: format!("literal {number}"),
        bytes: text.as_bytes().to_vec(),
    })
}

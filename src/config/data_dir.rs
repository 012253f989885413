//! Where a server keeps what it must not lose.

use std::path::{Path, PathBuf};

/// The folder that was given, or else `hookbot` in the system's folder for state.
///
/// # Errors
///
/// When none was given and the system has no such folder, as for a user without a home.
pub fn data_dir(given: Option<&Path>) -> Result<PathBuf, NoDataDir> {
    match given {
        Some(folder) => Ok(folder.to_owned()),
        None => Ok(state_dir().ok_or(NoDataDir)?.join("hookbot")),
    }
}

/// Where programs keep their state: `XDG_STATE_HOME` or its default (XDG Base Directory
/// Specification), or what Apple has in its place.
pub(crate) fn state_dir() -> Option<PathBuf> {
    let named = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    named.filter(|folder| folder.is_absolute()).or_else(|| {
        let below = if cfg!(target_os = "macos") {
            "Library/Application Support"
        } else {
            ".local/state"
        };
        std::env::home_dir().map(|home| home.join(below))
    })
}

/// There is nowhere to keep anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no folder for data: set HOOKBOT_DATA_DIR or --data-dir, or use --memory")]
pub struct NoDataDir;

//! A file of revoked tokens, read again when it changes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hookbot_protocol::{DenyList, DenyListError};
use tracing::warn;

use super::Control;
use super::fingerprint::Fingerprint;

/// The file, and what it was when it was read last.
pub(super) struct DenyFile {
    file: PathBuf,
    seen: Fingerprint,
}

impl DenyFile {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// When it can't be read, or revokes something that is no token.
    pub(super) fn load(file: PathBuf) -> Result<(Self, DenyList), DenyFileError> {
        // Before it is read: a change that comes now is seen later.
        let seen = Fingerprint::of(&file);
        let list = read(&file)?;
        Ok((Self { file, seen }, list))
    }

    /// Applies what the file says whenever it changes, until dropped. A file that can't be used is
    /// logged, and what was revoked stays so.
    pub(super) async fn watch(mut self, control: Control) {
        loop {
            // What is half written would give back what is still to be in it.
            let now = Fingerprint::at_rest(&self.file, WATCH_INTERVAL).await;
            if now == self.seen {
                continue;
            }
            self.seen = now;
            match read(&self.file) {
                Ok(list) => control.revoke(list).await,
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    warn!(%error, cause, "what was revoked before stays so");
                }
            }
        }
    }
}

fn read(file: &Path) -> Result<DenyList, DenyFileError> {
    let text = fs::read_to_string(file).map_err(|source| DenyFileError::Read {
        file: file.to_owned(),
        source,
    })?;
    DenyList::parse(&text).map_err(|source| DenyFileError::Parse {
        file: file.to_owned(),
        source,
    })
}

/// How often the file is looked at: whoever is revoked is out within a second.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// Why a deny list can't be had. Shows nothing of what is in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DenyFileError {
    /// It can't be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// Which one.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line is no entry.
    #[error("{} is no list of tokens", file.display())]
    Parse {
        /// Which one.
        file: PathBuf,
        /// Which line.
        source: DenyListError,
    },
}

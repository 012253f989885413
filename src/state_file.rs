//! The place of a listener or of a router, kept in a file from one run to the next.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A file with the cursor of the last message that was dealt with.
#[derive(Debug, Clone)]
pub(crate) struct StateFile(PathBuf);

impl StateFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The cursor, if one was ever kept.
    pub(crate) fn load(&self) -> anyhow::Result<Option<String>> {
        match fs::read_to_string(&self.0) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|cursor| !cursor.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.0.display())),
        }
    }

    /// Keeps a cursor, so that a crash leaves either this one or the one before.
    pub(crate) fn store(&self, cursor: &str) -> anyhow::Result<()> {
        let store = || {
            let mut name = self.0.clone().into_os_string();
            name.push(".new");
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&name)?;
            file.write_all(format!("{cursor}\n").as_bytes())?;
            file.sync_all()?;
            fs::rename(&name, &self.0)?;
            let folder = self
                .0
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
        };
        store().with_context(|| format!("cannot write {}", self.0.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_last_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFile::new(&folder.path().join("state"));
        assert_eq!(state.load().unwrap(), None);
        for cursor in ["e.1", "e.2"] {
            state.store(cursor).unwrap();
            assert_eq!(state.load().unwrap().as_deref(), Some(cursor));
        }
        let nowhere = StateFile::new(&folder.path().join("no/state"));
        assert!(
            nowhere
                .store("e.1")
                .unwrap_err()
                .to_string()
                .contains("no/state")
        );
    }
}

//! A folder that remembers, for each source and target, how far the one has got with the other and
//! what it would not take.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hex::encode;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::letters::{Letters, Limits};
use crate::place::{Place, PlaceError, make_folder, sync_folder_of};

/// What is remembered of all sources and targets.
#[derive(Debug, Clone)]
pub struct Store(PathBuf);

/// What is remembered of one source and one target.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Where messages come from, without credentials.
    pub source: String,
    /// Where they go, without credentials.
    pub target: String,
    folder: PathBuf,
}

/// Whose folder it is.
#[derive(Serialize, Deserialize)]
struct About {
    source: String,
    target: String,
}

impl Store {
    /// The store in a folder, which need not be there yet.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// A source and a target, by the names that they have themselves.
    #[must_use]
    pub fn pair(&self, source: &str, target: &str) -> Pair {
        let digest = Sha256::digest(format!("{source}\n{target}"));
        Pair {
            source: source.to_owned(),
            target: target.to_owned(),
            folder: self.0.join(encode(&digest[..8])),
        }
    }

    /// A source and a target whose folder has a name of its own, whatever they are called.
    #[must_use]
    pub fn named(&self, folder: &str, source: &str, target: &str) -> Pair {
        Pair {
            folder: self.0.join(folder),
            ..self.pair(source, target)
        }
    }

    /// All sources and targets that anything is remembered of.
    ///
    /// # Errors
    ///
    /// When the folder can't be read.
    pub fn pairs(&self) -> io::Result<Vec<Pair>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut pairs = Vec::new();
        for entry in entries {
            let folder = entry?.path();
            // Somebody else's folder, or one that is just being made.
            let Ok(about) = fs::read(folder.join(ABOUT)) else {
                continue;
            };
            let About { source, target } = serde_json::from_slice(&about)?;
            pairs.push(Pair {
                source,
                target,
                folder,
            });
        }
        pairs.sort_by(|one, other| (&one.source, &one.target).cmp(&(&other.source, &other.target)));
        Ok(pairs)
    }
}

impl Pair {
    /// Opens its place.
    ///
    /// # Errors
    ///
    /// As [`Place::open`].
    pub fn place(&self) -> Result<Place, PlaceError> {
        self.introduce().map_err(|source| PlaceError::Io {
            folder: self.folder.clone(),
            source,
        })?;
        Place::open(&self.folder)
    }

    /// Where it is, if it has ever been anywhere.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    pub fn peek(&self) -> io::Result<Option<String>> {
        Place::peek(&self.folder)
    }

    /// Its dead letters.
    #[must_use]
    pub fn letters(&self) -> Letters {
        Letters::new(&self.folder.join("dead"), Limits::default())
    }

    /// Writes down whose folder it is.
    fn introduce(&self) -> io::Result<()> {
        let path = self.folder.join(ABOUT);
        if path.exists() {
            return Ok(());
        }
        make_folder(&self.folder)?;
        let about = About {
            source: self.source.clone(),
            target: self.target.clone(),
        };
        let mut file = NamedTempFile::new_in(&self.folder)?;
        file.write_all(&serde_json::to_vec(&about)?)?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        sync_folder_of(&path)
    }
}

const ABOUT: &str = "about.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_a_pair_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(&folder.path().join("a/b"));
        assert!(store.pairs().unwrap().is_empty());
        for target in ["http://h/2", "http://h/1"] {
            store.pair("s", target).place().unwrap();
            store.pair("s", target).place().unwrap();
        }
        fs::create_dir(folder.path().join("a/b/other")).unwrap();
        let pairs = store.pairs().unwrap();
        let targets: Vec<_> = pairs.iter().map(|pair| &*pair.target).collect();
        assert_eq!(targets, ["http://h/1", "http://h/2"]);
        assert_eq!(pairs[0].peek().unwrap(), None);
        assert_eq!(pairs[0].folder, store.pair("s", "http://h/1").folder);
    }
}

//! Messages kept as files, to look at and to send again.
//!
//! Each is three files: `.body` has its bytes, `.json` everything else that is known, and `.sh`
//! sends it again. They may hold credentials, so nobody else may read them. A file is there whole
//! or not at all, and `.json` comes last: where that is, the others are.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hookbot_protocol::event::Event;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::message::Message;
use crate::script::ScriptOptions;

/// Saves messages into a folder.
///
/// Files are called `<time>-<event>-<id>`, after when they were saved, and sort in that order. No
/// file is ever replaced. Cloning gives another handle to the same.
#[derive(Debug, Clone)]
pub struct Saver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    scripts: ScriptOptions,
    /// The newest time that is in a name, in microseconds since 1970.
    last: Mutex<i64>,
}

/// What the `.json` file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// What the provider calls this kind of event.
    pub(crate) event_type: Option<String>,
    /// What the provider calls this delivery.
    pub(crate) delivery_id: Option<String>,
    /// Of the body, in hex.
    pub(crate) sha256: String,
    pub(crate) event: Event,
}

impl Saver {
    /// Saves into this folder, which is made where it is not there.
    ///
    /// # Errors
    ///
    /// When there can't be such a folder.
    pub fn new(folder: &Path, scripts: ScriptOptions) -> Result<Self, SaveError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| SaveError::new(folder, source))?;
        Ok(Self(Arc::new(Inner {
            folder: folder.to_owned(),
            scripts,
            last: Mutex::new(0),
        })))
    }

    /// Saves a message, and tells the file with its body.
    ///
    /// # Errors
    ///
    /// When a file can't be written.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn save(&self, message: &Message) -> Result<PathBuf, SaveError> {
        let (inner, message) = (self.0.clone(), message.clone());
        let saved = tokio::task::spawn_blocking(move || inner.save(&message)).await;
        saved.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}

impl Inner {
    fn save(&self, message: &Message) -> Result<PathBuf, SaveError> {
        let facts = Facts {
            event_type: message.event_type(),
            delivery_id: message.delivery_id(),
            sha256: sha256(&message.payload),
            event: message.event.clone(),
        };
        let written = || -> io::Result<PathBuf> {
            let mut json = serde_json::to_vec_pretty(&facts)?;
            json.push(b'\n');
            let body = self.reserve(&facts, &message.payload)?;
            let script = self.scripts.script(message);
            self.write(&script, 0o700, &body.with_extension("sh"))?;
            self.write(&json, 0o600, &body.with_extension("json"))?;
            Ok(body)
        };
        written().map_err(|source| SaveError::new(&self.folder, source))
    }

    /// Writes the body under a name that nobody has yet.
    fn reserve(&self, facts: &Facts, payload: &[u8]) -> io::Result<PathBuf> {
        loop {
            let name = format!("{}.body", self.name(facts));
            let file = self.folder.join(name);
            match self.write(payload, 0o600, &file) {
                Ok(()) => return Ok(file),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A name that sorts behind all that were given before.
    fn name(&self, facts: &Facts) -> String {
        let now = Timestamp::now().as_microsecond();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = now.max(*last + 1);
        let time = Timestamp::from_microsecond(*last).unwrap_or_default();
        let mut name = time.strftime("%Y-%m-%dT%H.%M.%S.%6fZ").to_string();
        for part in [&facts.event_type, &facts.delivery_id] {
            let part = part.as_deref().unwrap_or_default();
            if !part.is_empty() {
                name.push('-');
                name.extend(part.chars().take(MAX_PART).map(harmless));
            }
        }
        name
    }

    /// Makes a file that nobody sees before it is whole. Replaces none.
    fn write(&self, content: &[u8], mode: u32, file: &Path) -> io::Result<()> {
        let mut new = tempfile::Builder::new()
            .prefix(".")
            .suffix(".new")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(&self.folder)?;
        new.write_all(content)?;
        // The mask of the process may have taken from the mode.
        fs::set_permissions(new.path(), Permissions::from_mode(mode))?;
        new.persist_noclobber(file)?;
        Ok(())
    }
}

/// What a name may hold of what a sender chose.
fn harmless(letter: char) -> char {
    if letter.is_ascii_alphanumeric() || "-_.".contains(letter) {
        letter
    } else {
        '_'
    }
}

/// The SHA-256 of a body, in hex.
pub(crate) fn sha256(body: &[u8]) -> String {
    format!("{:x}", Bytes::copy_from_slice(&Sha256::digest(body)))
}

/// Why a message is not saved.
#[derive(Debug, thiserror::Error)]
#[error("cannot save to {}", folder.display())]
pub struct SaveError {
    folder: PathBuf,
    source: io::Error,
}

impl SaveError {
    fn new(folder: &Path, source: io::Error) -> Self {
        Self {
            folder: folder.to_owned(),
            source,
        }
    }
}

/// Longer than any provider's names and ids, and shorter than what a file system allows.
const MAX_PART: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::test_message;
    use std::collections::BTreeSet;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_message_is_three_files_that_nobody_else_may_read() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        let saver = Saver::new(&below, ScriptOptions::default()).unwrap();
        let headers = [("x-github-event", "push"), ("x-github-delivery", "d-1")];
        let body = saver
            .save(&test_message(&headers, b"\xff\r\n"))
            .await
            .unwrap();
        assert_eq!(fs::read(&body).unwrap(), b"\xff\r\n");

        let names = names(&below);
        assert_eq!(names.len(), 3, "{names:?}");
        for (name, (end, mode)) in names.iter().zip([
            ("Z-push-d-1.body", 0o600),
            ("Z-push-d-1.json", 0o600),
            ("Z-push-d-1.sh", 0o700),
        ]) {
            assert!(name.ends_with(end), "{name}");
            let found = fs::metadata(below.join(name)).unwrap();
            assert_eq!(found.permissions().mode() & 0o777, mode, "{name}");
        }
        let mode = fs::metadata(&below).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[tokio::test]
    async fn names_are_harmless_whatever_a_sender_calls_things() {
        let folder = tempfile::tempdir().unwrap();
        let saver = Saver::new(folder.path(), ScriptOptions::default()).unwrap();
        for text in [
            "../../etc/passwd",
            "a\u{202e}b",
            "$(touch canary)",
            "-rf",
            "",
            &"x".repeat(5_000),
        ] {
            let headers = [("x-github-event", text), ("x-github-delivery", text)];
            saver.save(&test_message(&headers, b"")).await.unwrap();
        }
        let names = names(folder.path());
        assert_eq!(names.len(), 18);
        for name in names {
            assert!(name.starts_with("20") && name.len() < 255, "{name}");
            assert!(
                name.chars().all(|letter| harmless(letter) == letter),
                "{name}"
            );
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn names_sort_as_messages_came_and_nothing_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let saver = Saver::new(folder.path(), ScriptOptions::default()).unwrap();
        let other = Saver::new(folder.path(), ScriptOptions::default()).unwrap();
        let message = test_message(&[("x-github-event", "push")], b"x");
        let mut files = BTreeSet::new();
        let mut last = PathBuf::new();
        for _ in 0..100 {
            let (one, two) = tokio::join!(saver.save(&message), other.save(&message));
            let one = one.unwrap();
            assert!(one > last, "{one:?} came behind {last:?}");
            last.clone_from(&one);
            files.extend([one, two.unwrap()]);
        }
        assert_eq!(files.len(), 200);
        assert_eq!(names(folder.path()).len(), 600);

        // A name that is taken is not taken twice.
        let inner = &saver.0;
        let taken = inner.folder.join("taken");
        inner.write(b"first", 0o600, &taken).unwrap();
        let error = inner.write(b"second", 0o600, &taken).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&taken).unwrap(), b"first");
        assert_eq!(names(folder.path()).len(), 601);
    }

    #[tokio::test]
    async fn a_folder_that_can_not_be_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Saver::new(&file, ScriptOptions::default()).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
    }
}

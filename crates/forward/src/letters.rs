//! Dead letters: messages that a target will not take, kept until somebody decides about them.
//!
//! Each is a file: JSON that says what happened and how the message was sent, NUL, and the body as
//! it is. It is on disk before the place moves on. The list is bounded, and what finds no room is
//! not dropped: it stays on its way until there is some.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hookbot_protocol::event::Event;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;

use crate::message::Message;
use crate::place::{make_folder, sync_folder_of};

/// What is known of a dead letter besides its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Its number in its list, which is the name of its file.
    #[serde(default)]
    pub id: u64,
    /// When it was parked: RFC 3339, UTC.
    pub parked_at: String,
    /// Whom it was for, without credentials.
    pub target: String,
    /// Why it was not taken.
    pub reason: String,
    /// The HTTP status or the exit code, where there was one.
    pub code: Option<u16>,
    /// How often it was offered.
    pub attempts: u32,
    /// The size of its body, in bytes.
    pub size: u64,
    /// How it was sent.
    pub event: Event,
}

/// The dead letters of one target and source.
#[derive(Debug, Clone)]
pub struct Letters {
    folder: PathBuf,
    limits: Limits,
}

/// How much a list holds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most letters.
    pub count: usize,
    /// How large they are together, in bytes.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            count: 10_000,
            bytes: 1 << 30,
        }
    }
}

impl Letters {
    /// The list in a folder, which need not be there yet.
    #[must_use]
    pub fn new(folder: &Path, limits: Limits) -> Self {
        Self {
            folder: folder.to_owned(),
            limits,
        }
    }

    /// Adds a letter, whose id is chosen here, and returns once the disk has it.
    pub(crate) async fn add(&self, letter: Letter, body: Bytes) -> Result<u64, LetterError> {
        let own = self.clone();
        let added = spawn_blocking(move || own.write(&letter, &body)).await;
        added.map_err(io::Error::other)?
    }

    fn write(&self, letter: &Letter, body: &[u8]) -> Result<u64, LetterError> {
        make_folder(&self.folder)?;
        // Whoever retries and drops letters does so in another process.
        let (mut last, mut count, mut bytes) = (0, 0, body.len() as u64);
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if let Some(id) = id_of(&entry.path()) {
                last = last.max(id);
                count += 1;
                bytes += entry.metadata().map_or(0, |data| data.len());
            }
        }
        if count >= self.limits.count || (count > 0 && bytes > self.limits.bytes) {
            return Err(LetterError::Full);
        }
        let mut file = NamedTempFile::new_in(&self.folder)?;
        let mut head = serde_json::to_vec(letter).map_err(io::Error::other)?;
        head.push(0);
        file.write_all(&head)?;
        file.write_all(body)?;
        file.as_file().sync_all()?;
        loop {
            last += 1;
            // Several may be added at once.
            match file.persist_noclobber(self.path(last)) {
                Ok(_) => break,
                Err(taken) if taken.error.kind() == io::ErrorKind::AlreadyExists => {
                    file = taken.file;
                }
                Err(failed) => return Err(failed.error.into()),
            }
        }
        sync_folder_of(&self.path(last))?;
        Ok(last)
    }

    /// All of them, the oldest first.
    ///
    /// # Errors
    ///
    /// When the folder can't be read.
    pub fn list(&self) -> Result<Vec<Letter>, LetterError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut ids = Vec::new();
        for entry in entries {
            ids.extend(id_of(&entry?.path()));
        }
        ids.sort_unstable();
        let mut letters = Vec::new();
        for id in ids {
            match self.open(id) {
                Ok((letter, _)) => letters.push(letter),
                // Somebody has dropped it meanwhile.
                Err(LetterError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(letters)
    }

    /// One of them, with the message as it was offered.
    ///
    /// # Errors
    ///
    /// When it is not there or can't be read.
    pub fn read(&self, id: u64) -> Result<(Letter, Message), LetterError> {
        let (letter, mut rest) = self.open(id)?;
        let mut body = Vec::new();
        rest.read_to_end(&mut body)?;
        let message = Message {
            event: letter.event.clone(),
            payload: body.into(),
        };
        Ok((letter, message))
    }

    /// Removes one of them.
    ///
    /// # Errors
    ///
    /// When it is not there or can't be removed.
    pub fn remove(&self, id: u64) -> Result<(), LetterError> {
        let path = self.path(id);
        fs::remove_file(&path).map_err(|error| unknown(id, error))?;
        Ok(sync_folder_of(&path)?)
    }

    fn open(&self, id: u64) -> Result<(Letter, BufReader<File>), LetterError> {
        let file = File::open(self.path(id)).map_err(|error| unknown(id, error))?;
        let mut reader = BufReader::new(file);
        let mut head = Vec::new();
        reader.read_until(0, &mut head)?;
        let letter = head.strip_suffix(b"\0").unwrap_or_default();
        let letter: Letter =
            serde_json::from_slice(letter).map_err(|_| LetterError::Damaged(id))?;
        Ok((Letter { id, ..letter }, reader))
    }

    fn path(&self, id: u64) -> PathBuf {
        self.folder.join(format!("{id:08}.letter"))
    }
}

fn id_of(path: &Path) -> Option<u64> {
    let is_letter = path.extension()? == "letter";
    path.file_stem()?
        .to_str()?
        .parse()
        .ok()
        .filter(|_| is_letter)
}

fn unknown(id: u64, error: io::Error) -> LetterError {
    match error.kind() {
        io::ErrorKind::NotFound => LetterError::Unknown(id),
        _ => error.into(),
    }
}

/// What may go wrong with dead letters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LetterError {
    /// There is no room for another one.
    #[error("the list of dead letters is full; retry or drop some")]
    Full,
    /// There is none of this id.
    #[error("there is no dead letter {0}")]
    Unknown(u64),
    /// Its file is not what it should be.
    #[error("the file of dead letter {0} is damaged")]
    Damaged(u64),
    /// The disk fails.
    #[error("cannot reach the dead letters")]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::test_message;
    use std::os::unix::fs::PermissionsExt;

    fn letter(message: &Message) -> Letter {
        Letter {
            id: 0,
            parked_at: "2026-01-31T12:00:00Z".to_owned(),
            target: "http://h/".to_owned(),
            reason: "404 Not Found".to_owned(),
            code: Some(404),
            attempts: 1,
            size: message.payload.len() as u64,
            event: message.event.clone(),
        }
    }

    #[tokio::test]
    async fn a_letter_is_read_as_it_was_written_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let letters = Letters::new(&folder.path().join("dead"), Limits::default());
        assert_eq!(letters.list().unwrap(), []);
        let message = test_message(&[("x-a", "\0\n")], b"\0\xff\0");
        for id in 1..=3 {
            let added = letters.add(letter(&message), message.payload.clone()).await;
            assert_eq!(added.unwrap(), id);
        }
        let mode = fs::metadata(letters.path(1)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        letters.remove(2).unwrap();
        let ids: Vec<_> = letters.list().unwrap().iter().map(|one| one.id).collect();
        assert_eq!(ids, [1, 3]);
        let (read, same) = letters.read(3).unwrap();
        assert_eq!((read.code, same), (Some(404), message));
        assert!(matches!(letters.read(2), Err(LetterError::Unknown(2))));
        assert!(matches!(letters.remove(2), Err(LetterError::Unknown(2))));
        fs::write(letters.path(4), "{}").unwrap();
        assert!(matches!(letters.read(4), Err(LetterError::Damaged(4))));
    }

    #[tokio::test]
    async fn those_that_are_added_at_once_are_all_there() {
        let folder = tempfile::tempdir().unwrap();
        let letters = Letters::new(folder.path(), Limits::default());
        let message = test_message(&[], b"x");
        let adds = (0..32).map(|_| letters.add(letter(&message), message.payload.clone()));
        futures_util::future::join_all(adds).await;
        assert_eq!(letters.list().unwrap().len(), 32);
    }

    #[tokio::test]
    async fn a_full_list_takes_no_more_until_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let message = test_message(&[], b"0123456789");
        let add =
            async |letters: &Letters| letters.add(letter(&message), message.payload.clone()).await;
        let limits = Limits {
            count: 2,
            ..Limits::default()
        };
        let letters = Letters::new(folder.path(), limits);
        add(&letters).await.unwrap();
        add(&letters).await.unwrap();
        assert!(matches!(add(&letters).await, Err(LetterError::Full)));
        letters.remove(1).unwrap();
        assert_eq!(add(&letters).await.unwrap(), 3);
        let limits = Limits {
            bytes: 20,
            ..Limits::default()
        };
        assert!(matches!(
            add(&Letters::new(folder.path(), limits)).await,
            Err(LetterError::Full)
        ));
    }
}

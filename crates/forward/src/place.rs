//! How far a target has got with a source, kept on disk from one run to the next.
//!
//! A journal of lines: `= place` says that everything up to that place is dealt with, and nothing
//! behind it; `+ place` that this one message behind it is, though something before that is not. A line is written at each
//! step, before the next message is offered, so that a process that is killed has at most those
//! messages offered again whose answer it had not seen. Lines are synced to the disk now and then:
//! after a power cut, what the target took since the last time is offered again.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use tokio::task::spawn_blocking;

/// How far a target has got.
#[derive(Debug, Default)]
pub struct Place {
    current: Option<String>,
    /// The places of the messages behind it that are dealt with.
    ahead: HashSet<String>,
    journal: Option<Journal>,
    /// Whether the journal does not say so yet.
    is_unwritten: bool,
}

#[derive(Debug)]
struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    /// Whether there is something that a power cut would take away.
    is_unsynced: bool,
    /// Whether the last write broke off in the middle of a line.
    is_torn: bool,
    /// Held by one process at a time.
    _lock: File,
}

impl Place {
    /// A place that nothing is kept of.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Opens the place in a folder of its own, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// When it can't be read or written, or another process has it.
    pub fn open(folder: &Path) -> Result<Self, PlaceError> {
        let failed = |source| PlaceError::Io {
            folder: folder.to_owned(),
            source,
        };
        make_folder(folder).map_err(failed)?;
        let lock = create(&folder.join("lock"), false).map_err(failed)?;
        match try_lock(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(PlaceError::Taken(folder.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let path = folder.join("place");
        let text = match fs::read(&path) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(error)),
        };
        let mut place = Self::parse(&text);
        // What broke off is left behind, too.
        let (file, length) = rewrite(&path, &place.lines()).map_err(failed)?;
        place.journal = Some(Journal {
            path,
            file,
            length,
            is_unsynced: false,
            is_torn: false,
            _lock: lock,
        });
        Ok(place)
    }

    /// Begins there, if it has never been anywhere, and has the disk keep that.
    ///
    /// # Errors
    ///
    /// When that can't be written.
    pub async fn begin_at(&mut self, place: String) -> io::Result<()> {
        if self.current.is_none() {
            self.advance(place, &[])?;
            self.sync().await?;
        }
        Ok(())
    }

    /// Whether it is gone with the process.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.journal.is_none()
    }

    /// The place in a folder that another process may have open.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    pub fn peek(folder: &Path) -> io::Result<Option<String>> {
        let text = fs::read(folder.join("place"))?;
        Ok(Self::parse(&String::from_utf8_lossy(&text)).current)
    }

    fn parse(text: &str) -> Self {
        let mut place = Self::default();
        for line in text.split_inclusive('\n') {
            let Some((kind, text)) = line
                .strip_suffix('\n')
                .and_then(|line| line.split_once(' '))
            else {
                continue;
            };
            let Ok(text) = percent_decode_str(text).decode_utf8() else {
                continue;
            };
            match kind {
                "=" => {
                    place.ahead.clear();
                    place.current = Some(text.into_owned());
                }
                "+" => drop(place.ahead.insert(text.into_owned())),
                _ => {}
            }
        }
        place
    }

    fn lines(&self) -> String {
        let current = self.current.iter().map(|text| line('=', text));
        let ahead = self.ahead.iter().map(|text| line('+', text));
        current.chain(ahead).collect()
    }

    /// The place behind which the next message is, if the source was ever read.
    #[must_use]
    pub fn current(&self) -> Option<&str> {
        self.current.as_deref()
    }

    /// Whether the message at a place behind it is dealt with already.
    pub(crate) fn is_ahead(&self, place: &str) -> bool {
        self.ahead.contains(place)
    }

    /// Moves to a place, over those that were ahead of it, without hurry to write it down.
    pub(crate) fn note(&mut self, place: String, passed: &[String]) {
        for place in passed {
            self.ahead.remove(place);
        }
        self.is_unwritten |= self.current.as_ref() != Some(&place);
        self.current = Some(place);
    }

    /// Moves to a place, and writes that down.
    pub(crate) fn advance(&mut self, place: String, passed: &[String]) -> io::Result<()> {
        self.note(place, passed);
        self.write()
    }

    /// Writes down that one message behind the place is dealt with.
    pub(crate) fn take(&mut self, place: String) -> io::Result<()> {
        let written = match &mut self.journal {
            Some(journal) => journal.append(&line('+', &place)),
            None => Ok(()),
        };
        self.ahead.insert(place);
        self.is_unwritten |= written.is_err();
        written
    }

    fn write(&mut self) -> io::Result<()> {
        if self.is_unwritten && self.journal.is_some() {
            let lines = self.lines();
            if let Some(journal) = &mut self.journal {
                journal.append(&lines)?;
            }
        }
        self.is_unwritten = false;
        Ok(())
    }

    /// Has the disk keep everything, and the journal short.
    pub(crate) async fn sync(&mut self) -> io::Result<()> {
        self.write()?;
        let is_long = self.journal.as_ref().is_some_and(Journal::is_long);
        let lines = is_long.then(|| self.lines());
        let Some(journal) = self.journal.as_mut().filter(|own| own.is_unsynced) else {
            return Ok(());
        };
        let work = journal.file.try_clone()?;
        let path = journal.path.clone();
        let done = spawn_blocking(move || match lines {
            Some(lines) => rewrite(&path, &lines).map(Some),
            None => work.sync_data().map(|()| None),
        });
        if let Some(new) = done.await.map_err(io::Error::other)?? {
            (journal.file, journal.length) = new;
            journal.is_torn = false;
        }
        journal.is_unsynced = false;
        Ok(())
    }
}

impl Journal {
    fn is_long(&self) -> bool {
        self.length > MAX_LENGTH
    }

    fn append(&mut self, lines: &str) -> io::Result<()> {
        self.is_unsynced = true;
        if self.is_torn {
            self.file.write_all(b"\n")?;
            self.is_torn = false;
        }
        self.length += lines.len() as u64;
        let written = self.file.write_all(lines.as_bytes());
        self.is_torn = written.is_err();
        written
    }
}

/// Locks a file, if need be after a moment: a command that its last holder was just starting has
/// it until it runs.
fn try_lock(lock: &File) -> Result<(), TryLockError> {
    for _ in 0..20 {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
            locked => return locked,
        }
    }
    lock.try_lock()
}

/// One line of the journal. A place is opaque, and might hold anything.
fn line(kind: char, place: &str) -> String {
    format!("{kind} {}\n", utf8_percent_encode(place, UNFIT))
}

const UNFIT: &AsciiSet = &CONTROLS.add(b'%');

/// Puts a new journal in the place of the old one, so that a crash leaves one of the two.
fn rewrite(path: &Path, lines: &str) -> io::Result<(File, u64)> {
    let new = path.with_extension("new");
    let mut file = create(&new, true)?;
    file.write_all(lines.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_folder_of(path)?;
    Ok((file, lines.len() as u64))
}

fn create(path: &Path, truncate: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(truncate);
    options.mode(0o600).open(path)
}

/// Makes a folder, and those that it is in, and has the disk keep them.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent().filter(|own| !own.as_os_str().is_empty()) {
        make_folder(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_folder_of(folder)
}

/// Has the disk keep the names in the folder that a file is in.
pub(crate) fn sync_folder_of(file: &Path) -> io::Result<()> {
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// A journal that is longer is written anew, in bytes.
const MAX_LENGTH: u64 = 1 << 20;

/// Why a place can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// Another process delivers the same source to the same target.
    #[error(
        "another process is at work with {}: it delivers the same source to the same target; \
         give this one another --state if both are to have every message", .0.display()
    )]
    Taken(PathBuf),
    /// The folder can't be read or written.
    #[error("cannot keep the place in {}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_is_there_again_with_what_was_ahead_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("a/b");
        let mut place = Place::open(&folder).unwrap();
        assert_eq!(place.current(), None);
        place.advance("e.1".to_owned(), &[]).unwrap();
        place.take("e.3\n%".to_owned()).unwrap();
        place.take("e.4".to_owned()).unwrap();
        assert!(matches!(Place::open(&folder), Err(PlaceError::Taken(_))));
        assert_eq!(Place::peek(&folder).unwrap().as_deref(), Some("e.1"));
        drop(place);

        let mut place = Place::open(&folder).unwrap();
        assert_eq!(place.current(), Some("e.1"));
        assert!(place.is_ahead("e.3\n%") && place.is_ahead("e.4"));
        place.note("e.3\n%".to_owned(), &["e.3\n%".to_owned()]);
        place.sync().await.unwrap();
        drop(place);
        let place = Place::open(&folder).unwrap();
        assert_eq!(place.current(), Some("e.3\n%"));
        assert!(!place.is_ahead("e.3\n%") && place.is_ahead("e.4"));
    }

    #[tokio::test]
    async fn only_one_who_was_nowhere_begins_where_he_is_told() {
        let folder = tempfile::tempdir().unwrap();
        for place in ["e.1", "e.2"] {
            let mut own = Place::open(folder.path()).unwrap();
            own.begin_at(place.to_owned()).await.unwrap();
            drop(own);
            let kept = Place::peek(folder.path()).unwrap();
            assert_eq!(kept.as_deref(), Some("e.1"));
        }
    }

    #[test]
    fn what_broke_off_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        for (text, current) in [
            ("= e.1\n= e.2", Some("e.1")),
            ("= e.1\n\0\0\0", Some("e.1")),
            ("= e.1\n= \n", Some("")),
            ("= e.1\n\n= e.3\n", Some("e.3")),
            ("e.1\n", None),
            ("", None),
        ] {
            fs::write(folder.path().join("place"), text).unwrap();
            let place = Place::open(folder.path()).unwrap();
            assert_eq!(place.current(), current, "{text:?}");
        }
    }

    #[tokio::test]
    async fn the_journal_stays_short() {
        let folder = tempfile::tempdir().unwrap();
        let mut place = Place::open(folder.path()).unwrap();
        place.take("ahead".to_owned()).unwrap();
        for number in 0..200_000 {
            place.advance(format!("e.{number}"), &[]).unwrap();
            if number % 10_000 == 0 {
                place.sync().await.unwrap();
            }
        }
        let length = fs::metadata(folder.path().join("place")).unwrap().len();
        assert!(length < 2 * MAX_LENGTH, "{length}");
        drop(place);
        let place = Place::open(folder.path()).unwrap();
        assert_eq!(place.current(), Some("e.199999"));
        assert!(place.is_ahead("ahead"));
    }
}

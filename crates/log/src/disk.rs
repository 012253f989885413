//! What the log asks of the disk, and the real one.
//!
//! The seam is here so that tests can put a disk behind it that loses power, fills up or fails.
//! Above it nothing opens a file by itself.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use rustix::io::Errno;

/// One folder of files. A change to the folder itself is durable after [`Disk::sync`].
pub(crate) trait Disk: Send + Sync {
    fn list(&self) -> io::Result<Vec<String>>;
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Opens a new file, or empties the one that has this name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

/// An open file. What was written is durable after [`File::sync`].
pub(crate) trait File: Send + Sync {
    fn length(&self) -> io::Result<u64>;
    /// May read less than there is room for; nothing at the end.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
    /// May write less than it was given.
    fn write_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<usize>;
    fn truncate(&self, length: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

/// Fills the buffer from `at` on.
pub(crate) fn read_exact(file: &dyn File, mut buffer: &mut [u8], mut at: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, at) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buffer = &mut buffer[read..];
                at += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all parts, one behind the other, from `at` on.
pub(crate) fn write_all(
    file: &dyn File,
    mut parts: &mut [IoSlice<'_>],
    mut at: u64,
) -> io::Result<()> {
    // Only non-empty parts count, or nothing written could not be told from an error.
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match file.write_at(&parts[..parts.len().min(MAX_PARTS)], at) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut parts, written);
                at += written as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives the file `name` new contents, such that a crash leaves the old ones or the new ones.
pub(crate) fn replace(disk: &dyn Disk, name: &str, contents: &[u8]) -> io::Result<()> {
    let unfinished = format!("{name}{UNFINISHED}");
    let file = disk.create(&unfinished)?;
    write_all(&*file, &mut [IoSlice::new(contents)], 0)?;
    file.sync()?;
    disk.rename(&unfinished, name)?;
    disk.sync()
}

/// Whether there is no room, on the disk or for another open file, which time or an operator can
/// change.
pub(crate) fn is_full(error: &io::Error) -> bool {
    let kinds = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded];
    kinds.contains(&error.kind()) || lacks_descriptors(error)
}

/// Whether the process, or the machine, has as many files open as it may.
fn lacks_descriptors(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

/// Opens a file to be read, and waits for a descriptor if there is none: what is not opened would
/// count as damaged.
fn open_patiently<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..ATTEMPTS {
        match open() {
            Err(error) if lacks_descriptors(&error) => sleep(PAUSE),
            opened => return opened,
        }
    }
    open()
}

/// A real folder, readable by its owner alone.
pub(crate) struct Folder {
    path: PathBuf,
    /// So that a sync needs no descriptor of its own.
    handle: fs::File,
}

impl Folder {
    /// Opens a folder, which is made if it is not there.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            if let Some(parent) = path.parent().filter(|parent| parent.is_dir()) {
                fs::File::open(parent)?.sync_all()?;
            }
        }
        Self::open(path)
    }

    /// Opens a folder that is there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        fs::read_dir(path)?;
        Ok(Self {
            path: path.to_owned(),
            handle: fs::File::open(path)?,
        })
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is not text is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        Ok(Arc::new(open_patiently(|| options.open(&path))?))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        Ok(Arc::new(options.mode(0o600).open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

impl File for fs::File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, at)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(self, parts, at)?)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// What the name of a file ends in that may be half written.
pub(crate) const UNFINISHED: &str = ".tmp";

/// How many parts Linux takes in one call.
const MAX_PARTS: usize = 1_024;

/// How often a file is tried to be opened, and how long after another.
const ATTEMPTS: usize = 200;
const PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_waits_for_a_descriptor_and_for_nothing_else() {
        for (error, tries) in [(Errno::MFILE, 3), (Errno::NFILE, 3), (Errno::IO, 1)] {
            let mut tried = 0;
            let opened = open_patiently(|| {
                tried += 1;
                if tried < 3 { Err(error.into()) } else { Ok(()) }
            });
            assert_eq!((tried, opened.is_ok()), (tries, tries == 3), "{error}");
        }
    }
}

//! What tells that a file has changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What changes when a file is written or replaced, behind symbolic links too; nothing where there
/// is no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(Option<(u64, i64, i64, u64)>);

impl Fingerprint {
    pub(super) fn of(file: &Path) -> Self {
        let print = |file: fs::Metadata| (file.ino(), file.mtime(), file.mtime_nsec(), file.len());
        Self(fs::metadata(file).ok().map(print))
    }
}

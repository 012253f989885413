//! What tells that a file has changed.

use std::fs;
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

/// What changes when a file is written or replaced, behind symbolic links too; nothing where there
/// is no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(Option<(u64, i64, i64, u64)>);

impl Fingerprint {
    pub(super) fn of(file: &Path) -> Self {
        let print = |file: fs::Metadata| (file.ino(), file.mtime(), file.mtime_nsec(), file.len());
        Self(fs::metadata(file).ok().map(print))
    }

    /// What the file is once two looks in a row, so far apart, have seen the same: one that still
    /// changes may be half written.
    pub(super) async fn at_rest(file: &Path, interval: Duration) -> Self {
        let mut last = Self::of(file);
        loop {
            sleep(interval).await;
            let now = Self::of(file);
            if mem::replace(&mut last, now) == now {
                return now;
            }
        }
    }
}

//! What the threads of one open log share.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hookbot_protocol::{Message, Offset};
use tokio::sync::Notify;

use crate::Bounds;
use crate::disk::{Disk, replace};
use crate::index::{Growing, Index};
use crate::lane::Lane;
use crate::meta::Meta;
use crate::newest::Newest;
use crate::options::Options;
use crate::scan::Scan;
use crate::segment::{Indexed, Place, Segment};
use crate::sidecar::{self, Frozen};
use crate::stats::Counters;

pub(crate) struct Store {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) meta: Meta,
    pub(crate) options: Options,
    pub(crate) lanes: [Lane; 2],
    newest: Mutex<Newest>,
    /// Messages came, for the tail.
    pub(crate) appended: Notify,
    pub(crate) counters: Counters,
    sidecars: Mutex<Vec<(Place, Arc<Frozen>)>>,
    failed: AtomicBool,
    opened: Instant,
    /// When there was no room last, in milliseconds after `opened`, or 0.
    full: AtomicU64,
}

impl Store {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        meta: Meta,
        options: Options,
        lanes: [Lane; 2],
        next: Offset,
    ) -> Self {
        Self {
            disk,
            meta,
            newest: Mutex::new(Newest::new(next, options.tail_bytes)),
            options,
            lanes,
            appended: Notify::new(),
            counters: Counters::default(),
            sidecars: Mutex::default(),
            failed: AtomicBool::new(false),
            opened: Instant::now(),
            full: AtomicU64::new(0),
        }
    }

    pub(crate) fn newest(&self) -> MutexGuard<'_, Newest> {
        // No code that holds the lock can leave the list half changed.
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn bounds(&self) -> Bounds {
        let next = self.newest().next();
        let firsts = self.lanes.iter().filter_map(Lane::first);
        Bounds {
            first: firsts.min().unwrap_or(next).min(next),
            next,
        }
    }

    /// Makes a durable batch visible to readers and to the tail.
    pub(crate) fn publish(&self, batch: impl IntoIterator<Item = Arc<Message>>) {
        self.newest().extend(batch);
        self.full.store(0, Relaxed);
        self.appended.notify_one();
    }

    /// Whether something went wrong after which nothing can be trusted to become durable.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Relaxed)
    }

    pub(crate) fn fail(&self) {
        self.failed.store(true, Relaxed);
    }

    /// Notes that there was no room.
    pub(crate) fn was_full(&self) {
        let now = self.opened.elapsed().as_millis();
        self.full.store((now as u64).max(1), Relaxed);
    }

    pub(crate) fn is_writable(&self) -> bool {
        let full = self.full.load(Relaxed);
        let since = Duration::from_millis(full);
        // After a while it is worth another try.
        let is_full = full > 0 && self.opened.elapsed().saturating_sub(since) < FULL_FOR;
        !self.has_failed() && !is_full
    }

    /// Writes the sidecar of a segment that grows no more, and lets go of its index.
    pub(crate) fn seal(&self, segment: &Segment) -> io::Result<()> {
        let (bytes, summary) = match &*segment.index() {
            Indexed::Growing(index) => sidecar::encode(index, segment.seed, &self.meta),
            Indexed::Sealed(_) => return Ok(()),
        };
        replace(&*self.disk, &segment.place().index_name(), &bytes)?;
        *segment.index_mut() = Indexed::Sealed(summary);
        Ok(())
    }

    /// Looks something up in a segment's index, wherever that is.
    pub(crate) fn look_up<T>(
        &self,
        segment: &Segment,
        look_up: impl FnOnce(&dyn Index) -> T,
    ) -> io::Result<T> {
        if let Indexed::Growing(index) = &*segment.index() {
            return Ok(look_up(index));
        }
        Ok(look_up(&*self.frozen(segment)?))
    }

    fn frozen(&self, segment: &Segment) -> io::Result<Arc<Frozen>> {
        let place = segment.place();
        let mut sidecars = self.sidecars.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = sidecars.iter().position(|(own, _)| *own == place) {
            // The one used last is at the end.
            sidecars[at..].rotate_left(1);
            return Ok(sidecars[sidecars.len() - 1].1.clone());
        }
        drop(sidecars);

        let frozen = match sidecar::read(&*self.disk, place, segment.seed) {
            Ok(frozen) => frozen,
            Err(error) => self.rebuild(segment, &error)?,
        };
        let frozen = Arc::new(frozen);
        let mut sidecars = self.sidecars.lock().unwrap_or_else(PoisonError::into_inner);
        sidecars.push((place, frozen.clone()));
        let mut size: usize = sidecars.iter().map(|(_, frozen)| frozen.size()).sum();
        while size > CACHE_BYTES && sidecars.len() > 1 {
            size -= sidecars.remove(0).1.size();
        }
        Ok(frozen)
    }

    /// Makes an index again whose sidecar has been lost while the log was open. The next start
    /// writes the file.
    fn rebuild(&self, segment: &Segment, error: &io::Error) -> io::Result<Frozen> {
        let file = self.disk.open(&segment.place().log_name())?;
        let name = segment.place().index_name();
        tracing::warn!("cannot use {name}, so its segment is read instead: {error}");
        let scan = Scan::new(&*file, &segment.header, segment.seed, &self.meta)?;
        let index: Growing = scan.index;
        let (bytes, _) = sidecar::encode(&index, segment.seed, &self.meta);
        sidecar::decode(&bytes, segment.seed).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// For how long a log that had no room is said not to be writable.
const FULL_FOR: Duration = Duration::from_secs(5);

/// How much memory sidecars may take that were used lately.
const CACHE_BYTES: usize = 16 << 20;

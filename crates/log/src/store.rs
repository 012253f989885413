//! What the threads of one open log share.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hookbot_protocol::{Message, Offset};
use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_blocking;

use crate::Bounds;
use crate::disk::{Disk, replace};
use crate::index::{Growing, Index};
use crate::lane::Lane;
use crate::meta::Meta;
use crate::newest::Newest;
use crate::options::Options;
use crate::record::Damage;
use crate::scan::Scan;
use crate::segment::{Indexed, Segment};
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
    pub(crate) readers: Arc<Semaphore>,
    pub(crate) counters: Counters,
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
            readers: Arc::new(Semaphore::new(READERS)),
            counters: Counters::default(),
            failed: AtomicBool::new(false),
            opened: Instant::now(),
            full: AtomicU64::new(0),
        }
    }

    /// Has another thread read files, a segment's and its index at a time; nothing if that panics.
    /// Waits while as many others read as may, or there could be more files open than there may.
    pub(crate) async fn read<T: Send + 'static>(
        self: Arc<Self>,
        read: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        let turns = self.readers.clone();
        // In a task of its own, for who waits may look late, and must not hold a turn until then.
        let reading = tokio::spawn(async move {
            let turn = turns.acquire_owned().await;
            let reading = spawn_blocking(move || {
                let _turn = turn;
                read(&self)
            });
            reading.await.ok()
        });
        reading.await.ok().flatten()
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
        look_up: impl Fn(&dyn Index) -> io::Result<T>,
    ) -> io::Result<T> {
        // A sealed segment's index is never changed, so nobody waits for this lock.
        let error = match &*segment.index() {
            Indexed::Growing(index) => return look_up(index),
            Indexed::Sealed(summary) => {
                let frozen = Frozen::open(&*self.disk, segment.place(), segment.seed, summary);
                match frozen.and_then(|frozen| look_up(&frozen)) {
                    Err(error) => error,
                    found => return found,
                }
            }
        };
        look_up(&self.rebuild(segment, &error)?)
    }

    /// Makes an index again whose sidecar has been lost while the log was open.
    fn rebuild(&self, segment: &Segment, error: &io::Error) -> io::Result<Growing> {
        let place = segment.place();
        let file = self.disk.open(&place.log_name())?;
        let name = place.index_name();
        tracing::warn!("cannot use {name}, so it is made again from its segment: {error}");
        let scan = Scan::new(&*file, &segment.header, segment.seed, &self.meta)?;
        // Part of an index would hide messages.
        if let Some(damage) = scan.damage {
            return Err(io::Error::new(ErrorKind::InvalidData, damage));
        }
        if scan.index.extent != segment.extent() {
            return Err(io::Error::new(ErrorKind::InvalidData, Damage::Other));
        }
        let (bytes, _) = sidecar::encode(&scan.index, segment.seed, &self.meta);
        if let Err(error) = replace(&*self.disk, &name, &bytes) {
            tracing::warn!("cannot write {name}: {error}");
        }
        Ok(scan.index)
    }
}

/// How many may read at a time.
pub(crate) const READERS: usize = 16;

/// For how long a log that had no room is said not to be writable.
const FULL_FOR: Duration = Duration::from_secs(5);

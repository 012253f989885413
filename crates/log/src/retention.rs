//! Forgetting, and the thread that does it: seals closed segments, drops the oldest.
//!
//! A segment leaves the list first, so that new readers are told; its files go later, one after
//! the other, so that a crash leaves no hole in the numbers.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hookbot_protocol::Offset;

use crate::lane::Lane;
use crate::queue::Queue;
use crate::record::micros;
use crate::segment::{Indexed, Place, Segment};
use crate::store::Store;

/// The one who tidies up.
pub(crate) struct Keeper {
    pub(crate) store: Arc<Store>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) dropped: Arc<Dropped>,
}

/// Segments that are on no list any more, but still on disk.
#[derive(Default)]
pub(crate) struct Dropped(Mutex<Vec<Arc<Segment>>>);

impl Dropped {
    fn push(&self, segment: Arc<Segment>) {
        self.list().push(segment);
    }

    fn oldest(&self) -> Option<Arc<Segment>> {
        let list = self.list();
        list.iter()
            .min_by_key(|segment| segment.place().number)
            .cloned()
    }

    fn forget(&self, segment: &Arc<Segment>) {
        self.list().retain(|own| !Arc::ptr_eq(own, segment));
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Segment>>> {
        // No code that holds the lock can leave the list half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper {
    /// Works until the writer has ended.
    pub(crate) fn run(&self, closed: &Receiver<Option<Arc<Segment>>>) {
        let mut looked = Instant::now();
        loop {
            match closed.recv_timeout(PERIOD.saturating_sub(looked.elapsed())) {
                Ok(Some(segment)) => self.seal(&segment),
                Ok(None) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if looked.elapsed() >= PERIOD {
                looked = Instant::now();
                self.seal_leftovers();
                self.close_old();
                self.drop_aged(micros(SystemTime::now()));
            }
            self.drop_surplus();
            self.remove_dropped();
        }
        self.remove_dropped();
    }

    fn seal(&self, segment: &Segment) {
        if let Err(error) = self.store.seal(segment) {
            // Its index stays in memory.
            tracing::warn!("cannot write {}: {error}", segment.place().index_name());
        }
    }

    /// Tries again what there was no room for.
    fn seal_leftovers(&self) {
        for lane in &self.store.lanes {
            if let [closed @ .., _] = &**lane.segments() {
                for segment in closed {
                    if matches!(&*segment.index(), Indexed::Sealed(_)) {
                        continue;
                    }
                    self.seal(segment);
                }
            }
        }
    }

    /// Closes segments that have been growing for long, so that a quiet log forgets, too.
    fn close_old(&self) {
        let now = micros(SystemTime::now());
        let age = self.store.options.segment_age().as_micros();
        for lane in &self.store.lanes {
            if let Some(segment) = lane.segments().last()
                && let Indexed::Growing(index) = &*segment.index()
                && index.extent.count > 0
                && u128::from(now.saturating_sub(index.extent.first_time)) > age
            {
                self.queue.close(lane.space);
            }
        }
    }

    /// Drops the oldest segment of each lane if all of it is too old.
    ///
    /// One segment a run: a clock that jumps ahead makes everything look old, and there must be
    /// time to notice.
    pub(crate) fn drop_aged(&self, now: u64) {
        let age = u64::try_from(self.store.options.retain.age.as_micros()).unwrap_or(u64::MAX);
        let oldest = now.saturating_sub(age);
        for lane in &self.store.lanes {
            drop_oldest(&self.store, lane, &self.dropped, |segment, _| {
                segment.extent().max_time < oldest
            });
        }
    }

    /// Drops what is more than the lanes may keep.
    fn drop_surplus(&self) {
        for lane in &self.store.lanes {
            let budget = self.store.options.budget(lane.space);
            let is_surplus = |_: &Segment, segments: &[Arc<Segment>]| {
                let bytes: u64 = segments.iter().map(|segment| segment.bytes()).sum();
                let messages = segments
                    .iter()
                    .map(|segment| u64::from(segment.extent().count));
                bytes > budget.bytes || messages.sum::<u64>() > budget.messages
            };
            while drop_oldest(&self.store, lane, &self.dropped, is_surplus) {}
        }
    }

    fn remove_dropped(&self) {
        while let Some(segment) = self.dropped.oldest() {
            if let Err(error) = self.remove(segment.place()) {
                // The ones after it have to wait, or there would be a hole.
                let name = segment.place().log_name();
                tracing::warn!("cannot remove {name}: {error}");
                return;
            }
            self.dropped.forget(&segment);
        }
    }

    fn remove(&self, place: Place) -> io::Result<()> {
        let disk = &self.store.disk;
        match disk.remove(&place.log_name()) {
            // Gone already, but perhaps not durably.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        // Of several removals a crash could keep the later ones only.
        disk.sync()?;
        // There is none if it was dropped before it was sealed. The next start removes it
        // otherwise.
        let _ = disk.remove(&place.index_name());
        Ok(())
    }
}

/// Drops all segments that only have messages before `upto`.
pub(crate) fn trim(store: &Store, dropped: &Dropped, upto: Offset) {
    for lane in &store.lanes {
        while drop_oldest(store, lane, dropped, |segment, _| {
            segment.extent().last < upto
        }) {}
    }
}

fn drop_oldest(
    store: &Store,
    lane: &Lane,
    dropped: &Dropped,
    goes: impl Fn(&Segment, &[Arc<Segment>]) -> bool,
) -> bool {
    let tail = store.newest().tail;
    lane.drop_oldest(|segment, segments| {
        // The tail has yet to hand out what it may have to read from here.
        let is_passed = tail.is_none_or(|tail| segment.extent().last < tail);
        let goes = is_passed && goes(segment, segments);
        if goes {
            // Under the lane's lock, or a later segment could be removed before this one.
            dropped.push(segment.clone());
        }
        goes
    })
}

/// How often there is a look at what has grown old.
const PERIOD: Duration = Duration::from_secs(60);

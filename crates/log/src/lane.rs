//! A lane: the segments of one space of topics, oldest first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hookbot_protocol::Offset;

use crate::segment::{Segment, Space};

/// There is always at least one segment, and the last one grows.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) space: Space,
    segments: Mutex<Arc<Vec<Arc<Segment>>>>,
}

impl Lane {
    pub(crate) fn new(space: Space, segments: Vec<Arc<Segment>>) -> Self {
        Self {
            space,
            segments: Mutex::new(Arc::new(segments)),
        }
    }

    /// The segments as they are now.
    pub(crate) fn segments(&self) -> Arc<Vec<Arc<Segment>>> {
        self.list().clone()
    }

    pub(crate) fn push(&self, segment: Arc<Segment>) {
        Arc::make_mut(&mut *self.list()).push(segment);
    }

    /// Takes the oldest segment off the list if `goes` says so of it and of all there are. The
    /// list is locked meanwhile. The segment that grows stays.
    pub(crate) fn drop_oldest(
        &self,
        goes: impl FnOnce(&Arc<Segment>, &[Arc<Segment>]) -> bool,
    ) -> bool {
        let mut list = self.list();
        let [oldest, _, ..] = &***list else {
            return false;
        };
        if !goes(oldest, &list) {
            return false;
        }
        Arc::make_mut(&mut list).remove(0);
        true
    }

    /// The offset of the oldest message, if there is one.
    pub(crate) fn first(&self) -> Option<Offset> {
        let segments = self.segments();
        let mut extents = segments.iter().map(|segment| segment.extent());
        let first = extents.find(|extent| extent.count > 0)?;
        Some(first.first)
    }

    /// Where the lane begins if messages that `from` asks for have been trimmed.
    pub(crate) fn trimmed(&self, segments: &[Arc<Segment>], from: Offset) -> Option<Offset> {
        let header = &segments.first()?.header;
        let before = header.durable[self.space as usize];
        (before > Offset(0) && from <= before).then_some(header.base)
    }

    fn list(&self) -> MutexGuard<'_, Arc<Vec<Arc<Segment>>>> {
        // No code that holds the lock can leave the list half changed.
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

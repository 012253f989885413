//! The newest messages, in memory: what the tail hands out and most reads want.

use std::collections::VecDeque;
use std::sync::Arc;

use hookbot_protocol::{Filter, Message, Offset};

use crate::{Limit, Page};

/// The end of both lanes, in order and without a hole.
#[derive(Debug)]
pub(crate) struct Newest {
    messages: VecDeque<Arc<Message>>,
    bytes: usize,
    capacity: usize,
    /// What the next message will get. Everything before it is durable.
    next: Offset,
    /// What the tail hands out next.
    pub(crate) tail: Option<Offset>,
}

impl Newest {
    pub(crate) fn new(next: Offset, capacity: usize) -> Self {
        Self {
            messages: VecDeque::new(),
            bytes: 0,
            capacity,
            next,
            tail: None,
        }
    }

    pub(crate) fn next(&self) -> Offset {
        self.next
    }

    /// Where memory begins; what is before is on disk only.
    pub(crate) fn first(&self) -> Offset {
        Offset(self.next.0 - self.messages.len() as u64)
    }

    /// Adds a batch of durable messages.
    pub(crate) fn extend(&mut self, batch: impl IntoIterator<Item = Arc<Message>>) {
        for message in batch {
            self.bytes += message.publication.size();
            self.next = message.offset.next();
            self.messages.push_back(message);
        }
        while self.bytes > self.capacity
            && let Some(message) = self.messages.pop_front()
        {
            self.bytes -= message.publication.size();
        }
    }

    /// The messages from `from` on, or nothing if they are not all here.
    pub(crate) fn since(&self, from: Offset) -> Option<impl Iterator<Item = &Arc<Message>>> {
        let skip = from.0.checked_sub(self.first().0)?;
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        Some(self.messages.range(skip.min(self.messages.len())..))
    }

    /// Reads a page, or nothing if `from` is before what is here.
    pub(crate) fn read(&self, filter: &Filter, from: Offset, limit: Limit) -> Option<Page> {
        let mut page = Page {
            messages: Vec::new(),
            next: from,
        };
        let mut room = Room::new(limit);
        for message in self.since(from)?.take(SCAN) {
            if filter.matches(message.topic()) {
                if !room.take(message) {
                    break;
                }
                page.messages.push(message.clone());
            }
            page.next = message.offset.next();
        }
        Some(page)
    }
}

/// What of a limit is left.
pub(crate) struct Room {
    limit: Limit,
    messages: usize,
    bytes: usize,
}

impl Room {
    pub(crate) fn new(limit: Limit) -> Self {
        Self {
            limit,
            messages: 0,
            bytes: 0,
        }
    }

    /// Whether one more message fits. The first one always does.
    pub(crate) fn take(&mut self, message: &Message) -> bool {
        self.bytes = self.bytes.saturating_add(message.publication.size());
        let fits = self.messages < self.limit.messages && self.bytes <= self.limit.bytes;
        let fits = fits || self.messages == 0;
        self.messages += 1;
        fits
    }
}

/// How many messages one read looks at, so that a sparse topic does not hold the lock for long.
const SCAN: usize = 1_024;

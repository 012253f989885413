//! What waits for one subscriber: bounded, and never in anybody's way.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use hookbot_protocol::{Message, Offset};

/// The messages the hub has for one subscription.
pub(crate) struct Queue(Mutex<State>);

struct State {
    messages: VecDeque<Arc<Message>>,
    bytes: usize,
    /// Everything before this has been passed over, because the queue was full. The subscription
    /// has to read it from the log, and only then is the queue filled again.
    missed: Option<Offset>,
    reader: Option<Waker>,
}

/// What a subscription finds when it looks into its queue.
pub(crate) enum Taken {
    /// Some messages.
    Messages,
    /// Nothing yet; the reader will be woken.
    Nothing,
    /// Nothing, but the log has messages that the queue had no room for.
    Missed,
}

impl Queue {
    /// A queue that is filled.
    pub(crate) fn live() -> Self {
        Self::with_missed(None)
    }

    /// A queue whose reader reads the log first.
    pub(crate) fn behind() -> Self {
        // The hub or the reader will know better; nothing is before this.
        Self::with_missed(Some(Offset::default()))
    }

    fn with_missed(missed: Option<Offset>) -> Self {
        Self(Mutex::new(State {
            messages: VecDeque::new(),
            bytes: 0,
            missed,
            reader: None,
        }))
    }

    /// Says that everything before `upto` is for the reader to read.
    pub(crate) fn miss(&self, upto: Offset) {
        let mut state = self.state();
        state.missed = state.missed.max(Some(upto));
    }

    /// Whether the reader has taken everything it was offered.
    pub(crate) fn is_drained(&self) -> bool {
        let state = self.state();
        state.messages.is_empty() && state.missed.is_none()
    }

    /// Takes a message, or notes that it did not.
    pub(crate) fn offer(&self, message: &Arc<Message>) {
        let mut state = self.state();
        let size = message.publication.size();
        let full = state.messages.len() >= MAX_MESSAGES || state.bytes + size > MAX_BYTES;
        if state.missed.is_some() || (full && !state.messages.is_empty()) {
            state.missed = Some(message.offset.next());
            return;
        }
        state.messages.push_back(message.clone());
        state.bytes += size;
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Swaps everything queued into `batch`, which must be empty.
    ///
    /// `next` is where the reader has got to. Once that is past everything missed, the queue is
    /// filled again.
    pub(crate) fn take(
        &self,
        batch: &mut VecDeque<Arc<Message>>,
        next: Offset,
        context: &Context<'_>,
    ) -> Taken {
        let mut state = self.state();
        if !state.messages.is_empty() {
            mem::swap(&mut state.messages, batch);
            state.bytes = 0;
            return Taken::Messages;
        }
        if state.missed.is_some_and(|upto| next < upto) {
            return Taken::Missed;
        }
        state.missed = None;
        state.reader = Some(context.waker().clone());
        give_back(&mut state.messages);
        Taken::Nothing
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the state half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frees the memory of an empty queue that a burst has made large.
pub(crate) fn give_back(messages: &mut VecDeque<Arc<Message>>) {
    if messages.capacity() > IDLE_CAPACITY {
        *messages = VecDeque::new();
    }
}

/// How many messages wait at most.
pub(crate) const MAX_MESSAGES: usize = 512;

/// How many bytes wait at most, if they are more than one message's.
const MAX_BYTES: usize = 1 << 20;

/// What an idle queue may keep, in messages.
const IDLE_CAPACITY: usize = 16;

//! What waits to be written.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::AppendError;
use crate::batch::Request;
use crate::segment::Space;

/// Bounded by bytes: what does not fit is refused, not piled up.
pub(crate) struct Queue {
    state: Mutex<State>,
    came: Condvar,
    capacity: usize,
    batch_bytes: usize,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    bytes: usize,
    close: [bool; 2],
    wake_keeper: bool,
    is_ended: bool,
}

/// What the writer is to do next.
pub(crate) enum Work {
    /// Write these.
    Append(Vec<Request>),
    /// Close the growing segment of a lane.
    Close(Space),
    /// Wake the keeper.
    WakeKeeper,
}

impl Queue {
    /// Batches hold no more than `batch_bytes`, unless that is one request.
    pub(crate) fn new(capacity: usize, batch_bytes: u64) -> Self {
        let batch_bytes = usize::try_from(batch_bytes).unwrap_or(usize::MAX);
        Self {
            state: Mutex::default(),
            came: Condvar::new(),
            capacity,
            batch_bytes: batch_bytes.min(BATCH_BYTES),
        }
    }

    /// Takes a request, or refuses it if there is no room.
    pub(crate) fn push(&self, request: Request) -> Result<(), AppendError> {
        let mut state = self.state();
        if state.is_ended {
            return Err(AppendError::Failed);
        }
        let is_full = state.bytes + request.size > self.capacity;
        if is_full && !state.requests.is_empty() {
            return Err(AppendError::Full);
        }
        state.bytes += request.size;
        state.requests.push_back(request);
        drop(state);
        self.came.notify_one();
        Ok(())
    }

    /// Asks for the growing segment of a lane to be closed.
    pub(crate) fn close(&self, space: Space) {
        self.state().close[space as usize] = true;
        self.came.notify_one();
    }

    /// Has the keeper look whether there is something to remove.
    pub(crate) fn wake_keeper(&self) {
        self.state().wake_keeper = true;
        self.came.notify_one();
    }

    /// Takes nothing more. What is here is still written.
    pub(crate) fn end(&self) {
        self.state().is_ended = true;
        self.came.notify_one();
    }

    /// Takes nothing more and lets go of what is here: nobody is left to write it.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        state.is_ended = true;
        state.requests.clear();
        state.bytes = 0;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// Waits for work. Nothing once the queue has ended and is empty.
    pub(crate) fn take(&self) -> Option<Work> {
        let mut state = self.state();
        loop {
            for space in Space::ALL {
                if std::mem::take(&mut state.close[space as usize]) {
                    return Some(Work::Close(space));
                }
            }
            if std::mem::take(&mut state.wake_keeper) {
                return Some(Work::WakeKeeper);
            }
            let batch = state.take(self.batch_bytes);
            if !batch.is_empty() {
                return Some(Work::Append(batch));
            }
            if state.is_ended {
                return None;
            }
            state = self
                .came
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, most: usize) -> Vec<Request> {
        let (mut count, mut bytes) = (0, 0);
        for request in self.requests.iter().take(BATCH_REQUESTS) {
            if count > 0 && bytes + request.size > most {
                break;
            }
            count += 1;
            bytes += request.size;
        }
        self.bytes -= bytes;
        self.requests.drain(..count).collect()
    }
}

/// The most that is written at once. More would only make those wait who came first.
const BATCH_REQUESTS: usize = 1_000;
const BATCH_BYTES: usize = 4 << 20;

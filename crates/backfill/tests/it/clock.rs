//! Time that passes only as far as somebody says that he waits.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookbot_backfill::{Api, Wait};
use tokio::sync::mpsc::{self, UnboundedSender};

/// The clock of a test that was started with `start_paused`.
///
/// A paused clock would jump to the next deadline while an answer is on its way, were there not a
/// blocking task. This one keeps it still, and each wait that is told moves it on by just that.
pub(crate) struct Clock {
    waits: Arc<Mutex<Vec<Wait>>>,
    moves: UnboundedSender<Duration>,
    _still: std::sync::mpsc::Sender<()>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let (still, dropped) = std::sync::mpsc::channel();
        tokio::task::spawn_blocking(move || dropped.recv());
        let (moves, mut pauses) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(pause) = pauses.recv().await {
                // Timers are exact to a millisecond.
                tokio::time::advance(pause + Duration::from_millis(1)).await;
            }
        });
        Self {
            waits: Arc::default(),
            moves,
            _still: still,
        }
    }

    /// Has the API's waits be those of this clock.
    pub(crate) fn of(&self, api: Api) -> Api {
        let (waits, moves) = (self.waits.clone(), self.moves.clone());
        api.telling(move |wait| {
            waits.lock().unwrap().push(wait.clone());
            moves.send(wait.pause).unwrap();
        })
    }

    pub(crate) fn advance(&self, span: Duration) {
        self.moves.send(span).unwrap();
    }

    /// How long was waited so far, in seconds.
    pub(crate) fn pauses(&self) -> Vec<u64> {
        let waits = self.waits.lock().unwrap();
        waits.iter().map(|wait| wait.pause.as_secs()).collect()
    }

    /// What was told.
    pub(crate) fn told(&self) -> Vec<String> {
        let waits = self.waits.lock().unwrap();
        waits.iter().map(ToString::to_string).collect()
    }
}

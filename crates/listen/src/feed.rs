//! The queue between the task that reads a connection and the consumer of its messages.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::error::Error;
use crate::message::Message;

/// The consumer's end. Dropping it ends the task, which still says goodbye to the server.
#[derive(Debug)]
pub(crate) struct Feed {
    items: mpsc::Receiver<Result<Message, Error>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// The task's end.
pub(crate) struct Outlet {
    pub(crate) items: mpsc::Sender<Result<Message, Error>>,
    /// An error that the consumer has not made room for yet. A later one takes its place: both
    /// mark the same gap between two messages.
    pub(crate) waiting: Option<Error>,
    /// Ready once nobody wants more messages, however it ends.
    pub(crate) stop: oneshot::Receiver<()>,
}

impl Feed {
    /// Starts the task that `work` makes.
    pub(crate) fn start<W: Future<Output = ()> + Send + 'static>(
        work: impl FnOnce(Outlet) -> W,
    ) -> Self {
        let (sender, items) = mpsc::channel(CAPACITY);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(work(Outlet {
            items: sender,
            waiting: None,
            stop: stopped,
        }));
        Self { items, stop, task }
    }

    pub(crate) async fn next(&mut self) -> Option<Result<Message, Error>> {
        self.items.recv().await
    }

    /// Stops the task and waits for its end; it has its own deadline.
    pub(crate) async fn finish(self) {
        drop(self.items);
        drop(self.stop);
        if let Err(error) = self.task.await
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Stream for Feed {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.poll_recv(cx)
    }
}

impl Outlet {
    /// Hands an error to the consumer now, or keeps it until there is room.
    pub(crate) fn report(&mut self, error: Error) {
        self.waiting = Some(error);
        if let Ok(room) = self.items.try_reserve()
            && let Some(error) = self.waiting.take()
        {
            room.send(Err(error));
        }
    }
}

/// How many messages wait for the consumer before the server has to.
const CAPACITY: usize = 16;

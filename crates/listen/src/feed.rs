//! The queue between the task that reads a connection and the consumer of its messages.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::Error;
use crate::message::{Message, Said};

/// The consumer's end. Dropping it ends the task, which still says goodbye to the server.
#[derive(Debug)]
pub(crate) struct Feed {
    items: mpsc::Receiver<Result<Said, Error>>,
    /// Where to go on behind what the consumer has taken.
    place: Option<String>,
    heard: Heard,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// The task's end.
pub(crate) struct Outlet {
    pub(crate) items: mpsc::Sender<Result<Said, Error>>,
    /// An error that the consumer has not made room for yet. A later one takes its place: both
    /// mark the same gap between two messages.
    pub(crate) waiting: Option<Error>,
    pub(crate) heard: Heard,
    /// Ready once nobody wants more messages, however it ends.
    pub(crate) stop: oneshot::Receiver<()>,
}

/// When a sign of life last came from the server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Option<Instant>>>);

impl Heard {
    pub(crate) fn at(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, moment: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(moment);
    }
}

impl Feed {
    /// Starts the task that `work` makes.
    pub(crate) fn start<W: Future<Output = ()> + Send + 'static>(
        work: impl FnOnce(Outlet) -> W,
    ) -> Self {
        let (sender, items) = mpsc::channel(CAPACITY);
        let (stop, stopped) = oneshot::channel();
        let heard = Heard::default();
        let task = tokio::spawn(work(Outlet {
            items: sender,
            waiting: None,
            heard: heard.clone(),
            stop: stopped,
        }));
        Self {
            items,
            place: None,
            heard,
            stop,
            task,
        }
    }

    pub(crate) async fn next(&mut self) -> Option<Result<Message, Error>> {
        poll_fn(|context| self.poll_item(context)).await
    }

    /// Where to go on behind what the consumer has taken, as far as the server tells.
    pub(crate) fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// When a sign of life last came from the server.
    pub(crate) fn heard(&self) -> Option<Instant> {
        self.heard.at()
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        loop {
            match ready!(self.items.poll_recv(context)) {
                None => return Poll::Ready(None),
                Some(Ok(Said::Place(place))) => self.place = Some(place),
                Some(Ok(Said::Message(message))) => {
                    if let Some(cursor) = message.cursor() {
                        self.place = Some(cursor.to_owned());
                    }
                    return Poll::Ready(Some(Ok(message)));
                }
                Some(Ok(Said::Gap(gap))) => {
                    self.place = Some(gap.oldest.clone());
                    return Poll::Ready(Some(Err(gap.into())));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            }
        }
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
        self.poll_item(cx)
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

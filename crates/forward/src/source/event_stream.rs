//! Server-sent events (WHATWG HTML, section 9.2) of one response, with a clock and a limit.

use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::StreamExt;
use http_body_util::BodyDataStream;
use hyper::body::Incoming;
use sse_stream::{Sse, SseByteStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::connector::chain;

/// The events of one response.
pub(super) struct EventStream {
    events: SseByteStream<Counted>,
    seen: Arc<Seen>,
    silence: Duration,
}

/// What comes of it.
#[derive(Debug)]
pub(super) enum Item {
    Event(Sse),
    /// Bytes that are no event yet, or only a comment.
    Heard,
    /// An event is longer than allowed; nothing more comes.
    TooLong,
    /// Nothing came for too long.
    Silent,
    /// It ended, or broke.
    End(String),
}

/// What has come over the line.
#[derive(Default)]
struct Seen {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    at: Option<Instant>,
    /// Bytes since the last event.
    pending: usize,
}

impl EventStream {
    /// Reads a response. `silence` is how long a living server may say nothing.
    pub(super) fn new(body: Incoming, silence: Duration) -> Self {
        let seen = Arc::new(Seen::default());
        seen.note(0);
        let counted = Counted {
            body: BodyDataStream::new(body),
            seen: seen.clone(),
        };
        Self {
            events: SseByteStream::new(counted),
            seen,
            silence,
        }
    }

    /// Waits for something.
    pub(super) async fn next(&mut self) -> Item {
        loop {
            let last = self.seen.last();
            let given_up = last.map(|at| at + self.silence);
            tokio::select! {
                // What has come must count before the clock does.
                biased;
                event = self.events.next() => return match event {
                    Some(Ok(event)) => {
                        self.seen.forget();
                        Item::Event(event)
                    }
                    Some(Err(sse_stream::Error::Body(error))) => match error.downcast() {
                        Ok(error) if matches!(*error, ReadError::TooLong) => Item::TooLong,
                        Ok(error) => Item::End(chain(&*error)),
                        Err(error) => Item::End(chain(&*error)),
                    },
                    Some(Err(error)) => Item::End(chain(&error)),
                    None => Item::End("the server ended the stream".to_owned()),
                },
                () = self.seen.news.notified() => return Item::Heard,
                () = at(given_up) => if self.seen.last() == last {
                    return Item::Silent;
                }
            }
        }
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

impl Seen {
    /// Notes bytes, and tells how many there are without an event.
    fn note(&self, bytes: usize) -> usize {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.at = Some(Instant::now());
        state.pending += bytes;
        state.pending
    }

    fn forget(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pending = 0;
    }

    fn last(&self) -> Option<Instant> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).at
    }
}

/// The bytes of a response, counted.
struct Counted {
    body: BodyDataStream<Incoming>,
    seen: Arc<Seen>,
}

/// Why there are no more bytes.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    /// `sse-stream` has no limit of its own.
    #[error("an event is too long")]
    TooLong,
    #[error("the stream broke")]
    Body(#[from] hyper::Error),
}

impl Stream for Counted {
    type Item = Result<Bytes, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = Pin::new(&mut self.body).poll_next(context);
        polled.map(|item| {
            Some(match item? {
                Ok(data) => {
                    self.seen.news.notify_one();
                    if self.seen.note(data.len()) > MAX_EVENT {
                        Err(ReadError::TooLong)
                    } else {
                        Ok(data)
                    }
                }
                Err(error) => Err(error.into()),
            })
        })
    }
}

/// The longest event, in bytes. Base64 makes 48 MiB of body as long.
const MAX_EVENT: usize = 64 << 20;

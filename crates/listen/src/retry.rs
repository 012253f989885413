//! Messages for ever: a new connection whenever one is lost.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::time::{Instant, sleep};

use crate::endpoint::{Endpoint, Timing};
use crate::error::Error;
use crate::feed::{Feed, Outlet};
use crate::message::{Message, Said};
use crate::socket::{Ending, Socket};

/// Subscribes to an endpoint and reconnects whenever that is needed, for ever.
///
/// Nothing ends it, a refusal included: a wrong token may be made right on the server. A caller
/// who sees that otherwise asks [`Error::is_refusal`].
///
/// # Panics
///
/// Outside a Tokio runtime.
#[must_use]
pub fn retrying_watch(endpoint: Endpoint) -> RetryingMessages {
    RetryingMessages(Feed::start(|outlet| keep_watching(endpoint, outlet)))
}

/// The messages of one connection after the other. See [`retrying_watch`].
///
/// An error item says why there is no connection. The next one goes on behind the last message,
/// so nothing is missing that the server still has, and what it has no more is an
/// [`Error::Gap`]; only a server that gives no events loses what was published meanwhile. While
/// the consumer takes nothing, the latest error stands for those before it.
#[derive(Debug)]
pub struct RetryingMessages(Feed);

impl RetryingMessages {
    /// The next message or error. Never `None`.
    pub async fn next(&mut self) -> Option<Result<Message, Error>> {
        self.0.next().await
    }

    /// Where to go on behind what has been taken, for [`Endpoint::after`] another time: behind
    /// the last message, or further where nothing came for a while. `None` until the server has
    /// told.
    #[must_use]
    pub fn place(&self) -> Option<&str> {
        self.0.place()
    }

    /// When a sign of life last came from the server, if only the answer to a ping. While the
    /// consumer takes nothing, the server is not listened to.
    #[must_use]
    pub fn heard(&self) -> Option<Instant> {
        self.0.heard()
    }

    /// Closes the connection, if there is one, and waits until the server has agreed, or a few
    /// seconds. Messages that arrive meanwhile are dropped.
    pub async fn finish(self) {
        self.0.finish().await;
    }
}

impl Stream for RetryingMessages {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx)
    }
}

async fn keep_watching(endpoint: Endpoint, mut outlet: Outlet) {
    let mut backoff = Backoff::new(&endpoint.timing);
    let mut pause = Duration::ZERO;
    let mut place = None;
    loop {
        let opened = tokio::select! {
            _ = &mut outlet.stop => return,
            () = deliver(&mut outlet.waiting, &outlet.items) => return,
            opened = async {
                sleep(pause).await;
                Socket::open(&endpoint, place.clone()).await
            } => opened,
        };
        let error = match opened {
            Ok(mut socket) => {
                let since = Instant::now();
                let ending = socket.carry(&mut outlet).await;
                place = socket.place.take();
                if socket.fruitful || since.elapsed() >= endpoint.timing.stable {
                    backoff.reset();
                }
                match ending {
                    Ending::Stopped => return,
                    Ending::Failed(error) => error,
                }
            }
            Err(error) => error,
        };
        pause = backoff.next_pause();
        if let Some(asked) = error.retry_after() {
            pause = pause.max(asked.min(MAX_ASKED));
        }
        outlet.report(error);
    }
}

/// Hands over an error that found no room, when there is some. Ends only when nobody is there to
/// take it.
async fn deliver(
    waiting: &mut Option<Error>,
    items: &tokio::sync::mpsc::Sender<Result<Said, Error>>,
) {
    if waiting.is_some() {
        let Ok(room) = items.reserve().await else {
            return;
        };
        if let Some(error) = waiting.take() {
            room.send(Err(error));
        }
    }
    std::future::pending().await
}

/// Pauses between attempts: at random up to a limit that doubles, so that the listeners of a
/// server that comes back do not all come at once.
struct Backoff {
    first: Duration,
    last: Duration,
    limit: Duration,
}

impl Backoff {
    fn new(timing: &Timing) -> Self {
        Self {
            first: timing.first_retry,
            last: timing.last_retry,
            limit: timing.first_retry,
        }
    }

    fn next_pause(&mut self) -> Duration {
        let pause = self.limit.mul_f64(fastrand::f64());
        self.limit = (self.limit * 2).min(self.last);
        pause
    }

    fn reset(&mut self) {
        self.limit = self.first;
    }
}

/// A server may ask for a longer pause than ours, though not for ever.
const MAX_ASKED: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message as Frame;

    use super::*;
    use crate::test_server::{Peer, Server};

    /// Retries in milliseconds.
    fn hasty(mut endpoint: Endpoint) -> Endpoint {
        endpoint.timing.first_retry = Duration::from_millis(1);
        endpoint.timing.last_retry = Duration::from_millis(4);
        endpoint
    }

    async fn send(peer: &mut Peer, payload: &'static str) {
        peer.send(Frame::binary(payload)).await.expect("a listener");
    }

    #[tokio::test]
    async fn messages_go_on_after_a_restart() {
        let server = Server::start().await;
        let mut messages = retrying_watch(hasty(server.endpoint("/sub/a")));
        for payload in ["before", "after", "later"] {
            let mut peer = server.accept().await;
            send(&mut peer, payload).await;
            assert_eq!(messages.next().await.unwrap().unwrap().payload, payload);
            drop(peer);
            assert!(matches!(messages.next().await, Some(Err(Error::Lost(_)))));
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told_and_tried_again() {
        let server = Server::start().await;
        let mut messages = retrying_watch(hasty(server.endpoint("/sub/a")));
        for _ in 0..3 {
            let no = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
            let _ = server.answer(no).await;
            assert!(messages.next().await.unwrap().unwrap_err().is_refusal());
        }
        let mut peer = server.accept().await;
        send(&mut peer, "at last").await;
        assert_eq!(messages.next().await.unwrap().unwrap().payload, "at last");
    }

    #[tokio::test]
    async fn a_consumer_that_sleeps_finds_an_error_between_the_messages_it_parts() {
        let server = Server::start().await;
        let mut messages = retrying_watch(hasty(server.endpoint("/sub/a")));
        // More than the queue holds, so that the second connection is there before the error.
        let mut peer = server.accept().await;
        for _ in 0..16 {
            send(&mut peer, "first").await;
        }
        drop(peer);
        let mut taken = Vec::new();
        // Nothing is read while the queue is full, the end of the connection included.
        taken.push(messages.next().await.unwrap());
        let mut peer = server.accept().await;
        send(&mut peer, "second").await;
        while taken.len() < 18 {
            taken.push(messages.next().await.unwrap());
        }
        let taken: Vec<Option<Bytes>> = taken
            .into_iter()
            .map(|item| Some(item.ok()?.payload))
            .collect();
        assert!(taken[..16].iter().all(|item| *item == Some("first".into())));
        assert_eq!(taken[16..], [None, Some("second".into())]);
    }

    #[tokio::test]
    async fn finishing_does_not_wait_for_the_next_attempt() {
        let server = Server::start().await;
        let mut endpoint = server.endpoint("/sub/a");
        endpoint.timing.first_retry = Duration::from_secs(1_000_000);
        drop(server);
        let mut messages = retrying_watch(endpoint);
        assert!(matches!(
            messages.next().await,
            Some(Err(Error::Connect { .. }))
        ));
        messages.finish().await;
    }

    #[tokio::test]
    async fn dropping_says_goodbye() {
        let server = Server::start().await;
        let mut messages = retrying_watch(server.endpoint("/sub/a"));
        let mut peer = server.accept().await;
        send(&mut peer, "hello").await;
        assert_eq!(messages.next().await.unwrap().unwrap().payload, "hello");
        drop(messages);
        assert!(peer.next().await.unwrap().unwrap().is_close());
    }

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew() {
        let mut backoff = Backoff::new(&Timing::default());
        for limit in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
            assert_eq!(backoff.limit.as_secs_f32(), limit);
            assert!(backoff.next_pause().as_secs_f32() <= limit);
        }
        backoff.reset();
        assert_eq!(backoff.limit, Timing::default().first_retry);
    }
}

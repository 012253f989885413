//! The broker's end of a tunnel: calls go in, answers come out.
//!
//! The broker is HTTP/2's client here, though it is the WebSocket's server.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hookbot_listen::dial::Transport;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::sending::Tasks;
use crate::stream::{ByteStream, Ends};
use crate::tuning::{self, KeepAlive, MAX_CALLS};

/// What goes wrong while a body is read or sent.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a call.
pub trait CallBody: Body<Data = Bytes, Error = BoxError> + Send + Unpin + 'static {}

impl<B: Body<Data = Bytes, Error = BoxError> + Send + Unpin + 'static> CallBody for B {}

/// Sends calls to one responder.
pub struct Line<B: CallBody> {
    requests: SendRequest<B>,
    dispatch: Dispatch<B>,
}

/// What takes calls from a [`Line`]; nothing once it takes no more.
type Dispatch<B> = Arc<Mutex<Option<Conn<B>>>>;

type Conn<B> = Connection<TokioIo<ByteStream<Box<dyn Transport>>>, B, Tasks>;

impl<B: CallBody> Line<B> {
    /// Begins HTTP/2 over a WebSocket on which the handshake is done. `early` is what the responder
    /// has sent behind it.
    ///
    /// # Errors
    ///
    /// When the connection is gone already.
    pub async fn open(
        transport: Box<dyn Transport>,
        early: Vec<u8>,
        keep_alive: KeepAlive,
    ) -> Result<(Self, Upkeep<B>), hyper::Error> {
        let stream = ByteStream::new(transport, early, Role::Server).await;
        let ends = stream.ends();
        let builder = tuning::client(Tasks, keep_alive);
        let (requests, connection) = builder.handshake(TokioIo::new(stream)).await?;
        let dispatch = Arc::new(Mutex::new(Some(connection)));
        let upkeep = Upkeep {
            dispatch: dispatch.clone(),
            ends,
        };
        Ok((Self { requests, dispatch }, upkeep))
    }

    /// How many calls the responder takes at a time. More would wait here without a sign.
    #[must_use]
    pub fn max_calls(&self) -> usize {
        let dispatch = lock(&self.dispatch);
        let allowed = dispatch.as_ref().map(Conn::current_max_send_streams);
        allowed.unwrap_or_default().min(MAX_CALLS)
    }

    /// Whether the responder takes calls that become something else than HTTP (RFC 8441).
    #[must_use]
    pub fn takes_upgrades(&self) -> bool {
        let dispatch = lock(&self.dispatch);
        dispatch
            .as_ref()
            .is_some_and(Conn::is_extended_connect_protocol_enabled)
    }

    /// Whether nothing can be sent any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Sends a call, whose URL has to be absolute, and waits for the head of its answer. Dropping
    /// the future, or later the body of the answer, takes the call back.
    ///
    /// # Errors
    ///
    /// [`CallError::NotSent`] gives a call back that may be sent to somebody else.
    pub async fn call(&self, call: Request<B>) -> Result<Response<Incoming>, CallError<B>> {
        let sending = self.requests.clone().try_send_request(call);
        sending
            .await
            .map_err(|mut error| match error.take_message() {
                Some(call) => CallError::NotSent(Box::new(call)),
                None => CallError::Failed(error.into_error()),
            })
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum CallError<B> {
    /// The responder has not seen anything of the call.
    NotSent(Box<Request<B>>),
    /// The responder was lost, or said that it will not answer.
    Failed(hyper::Error),
}

/// Keeps a [`Line`] going, and ends it.
pub struct Upkeep<B: CallBody> {
    dispatch: Dispatch<B>,
    ends: Arc<Ends>,
}

impl<B: CallBody> Upkeep<B> {
    /// Waits until the responder has said something; before that nobody knows whether it is one.
    pub async fn heard(&self) {
        poll_fn(|context| self.ends.poll_heard(context)).await;
    }

    /// Hands calls over until the responder is gone, or says that it leaves. What was handed over
    /// goes on when this is done, and so does what is still handed over, if [`Upkeep::finish`] is
    /// awaited.
    pub async fn run(&mut self) {
        poll_fn(|context| {
            if self.ends.poll_leaving(context).is_ready() {
                return Poll::Ready(());
            }
            self.poll_dispatch(context)
        })
        .await;
    }

    /// Waits until every call is over and the connection closed. Whoever holds the [`Line`] holds
    /// this up, too.
    pub async fn finish(&mut self, code: CloseCode, reason: &'static str) {
        self.ends.explain(code, reason);
        poll_fn(|context| self.poll_dispatch(context)).await;
        poll_fn(|context| self.ends.poll_gone(context)).await;
    }

    /// Ends the connection, whatever is under way. The responder is told why, if it listens.
    pub async fn hang_up(&mut self, code: CloseCode, reason: &'static str) {
        self.ends.hang_up(code, reason);
        let gone = poll_fn(|context| self.ends.poll_gone(context));
        if timeout(PATIENCE, gone).await.is_err() {
            self.ends.cut();
        }
    }

    fn poll_dispatch(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut dispatch = lock(&self.dispatch);
        let Some(connection) = &mut *dispatch else {
            return Poll::Ready(());
        };
        let polled = Pin::new(connection).poll(context);
        polled.map(|result| {
            if let Err(error) = result {
                tracing::debug!(%error, "a tunnel is lost");
            }
            // It would keep the connection open.
            *dispatch = None;
        })
    }
}

impl<B: CallBody> Drop for Upkeep<B> {
    fn drop(&mut self) {
        self.ends.cut();
        // Gives back what was not handed over: nobody does that any more.
        *lock(&self.dispatch) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a connection may take to end, its close included.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;
    use http_body_util::{BodyExt, Empty};

    use super::*;

    #[tokio::test]
    async fn a_call_that_nobody_hands_over_any_more_is_given_back() {
        let (near, _far) = tokio::io::duplex(1 << 16);
        let line = Line::open(Box::new(near), Vec::new(), KeepAlive::default());
        let (line, upkeep) = line.await.unwrap();
        let body = Empty::new().map_err(|never| match never {}).boxed();
        let mut call = pin!(line.call(Request::get("http://h/").body(body).unwrap()));
        assert!(call.as_mut().now_or_never().is_none());
        drop(upkeep);
        let given_back = timeout(PATIENCE, call).await.expect("an end");
        assert!(matches!(given_back, Err(CallError::NotSent(_))));
    }
}

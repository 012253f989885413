//! The responder's end of a tunnel: dials out, and answers.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hookbot_listen::{Endpoint, Error, Upgraded, upgrade};
use http::{HeaderValue, Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;

use crate::body::Lean;
use crate::headers::has_word;
use crate::line::BoxError;
use crate::stream::ByteStream;
use crate::tuning::{self, KeepAlive, MAX_CALLS};
use crate::{CALL_URL, LEAVING, TUNNEL_V1, WORDS};

/// Answers calls, for as long as it is left to, whatever happens to the connection.
#[derive(Debug, Clone)]
pub struct Responder {
    endpoint: Endpoint,
    max_calls: u32,
    keep_alive: KeepAlive,
    grace: Duration,
    first_pause: Duration,
}

/// What happens to a responder's connection.
#[derive(Debug)]
pub enum Event {
    /// Calls come in.
    Connected {
        /// Where they come from, without a token.
        call_url: String,
    },
    /// They don't, until there is a new connection.
    Lost {
        /// Why not.
        error: Error,
        /// How long it takes until the next attempt.
        pause: Duration,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { call_url } => write!(f, "answering calls to {call_url}"),
            Self::Lost { error, pause } => {
                let pause = pause.as_secs_f32();
                write!(f, "{error}; connecting again in {pause:.1} s")
            }
        }
    }
}

impl Responder {
    /// Answers what is called at this endpoint, a URL with the path `/answer/<topic>`.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            max_calls: MAX_CALLS as u32,
            keep_alive: KeepAlive::default(),
            grace: Duration::from_secs(30),
            first_pause: Duration::from_millis(500),
        }
    }

    /// Takes at most so many calls at a time, from 1 to [`MAX_CALLS`], which is the default. The
    /// broker answers further ones with `503`.
    #[must_use]
    pub fn max_concurrent(mut self, calls: u32) -> Self {
        self.max_calls = calls.clamp(1, MAX_CALLS as u32);
        self
    }

    /// Finds out like this whether the broker is still there.
    #[must_use]
    pub fn keep_alive(mut self, keep_alive: KeepAlive) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// Leaves open calls so much time once it is to stop, rather than 30 s.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Pauses about so long before the second attempt, rather than half a second; further pauses
    /// double, up to half a minute.
    #[must_use]
    pub fn first_pause(mut self, pause: Duration) -> Self {
        self.first_pause = pause;
        self
    }

    /// Connects, and connects again whenever that is needed, until `stop` is cancelled. Then no new
    /// calls are taken, and open ones have a while to end.
    ///
    /// # Errors
    ///
    /// When the broker refuses the first connection: a wrong token will not become right by trying
    /// again. Later the broker may only have been told something else for a while.
    pub async fn run<S, B>(
        &self,
        service: S,
        stop: CancellationToken,
        mut event: impl FnMut(Event),
    ) -> Result<(), Error>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let service = Arc::new(service);
        let mut limit = self.first_pause;
        let mut was_connected = false;
        loop {
            let opening = upgrade(&self.endpoint, TUNNEL_V1);
            let Some(opened) = stop.run_until_cancelled(opening).await else {
                return Ok(());
            };
            let error = match opened {
                Ok(upgraded) => {
                    was_connected = true;
                    event(Event::Connected {
                        call_url: self.call_url(&upgraded),
                    });
                    let since = Instant::now();
                    let error = self.serve(upgraded, service.clone(), &stop).await;
                    if since.elapsed() >= STABLE {
                        limit = self.first_pause;
                    }
                    error
                }
                Err(error) => error,
            };
            if stop.is_cancelled() {
                return Ok(());
            }
            if error.is_refusal() && !was_connected {
                return Err(error);
            }
            // At random, so that all who lost a broker do not come back at once.
            let mut pause = limit.mul_f64(0.5 + 0.5 * fastrand::f64());
            if let Error::Refused {
                retry_after: Some(asked),
                ..
            } = &error
            {
                pause = pause.max((*asked).min(MAX_ASKED));
            }
            limit = (limit * 2).min(MAX_PAUSE);
            event(Event::Lost { error, pause });
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Answers on one connection, and says how it ended.
    async fn serve<S, B>(&self, upgraded: Upgraded, service: S, stop: &CancellationToken) -> Error
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let service = service_fn(move |call| {
            let answering = service.call(call);
            async move { answering.await.map(|answer| answer.map(Lean)) }
        });
        let is_understood = has_word(&upgraded.headers, &WORDS, LEAVING);
        let stream = ByteStream::new(upgraded.stream, Vec::new(), Role::Client).await;
        let ends = stream.ends();
        ends.explain(CloseCode::Normal, "");
        let connection = tuning::server(TokioExecutor::new(), self.max_calls, self.keep_alive)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => Some(served),
            () = stop.cancelled() => {
                let leave = async {
                    if is_understood {
                        // Calls that are on their way are answered, and then the broker ends it.
                        ends.leave();
                        return connection.await;
                    }
                    // Until the broker has begun, hyper knows no end but one at once, which would
                    // take along what is being sent.
                    tokio::select! {
                        served = connection.as_mut() => return served,
                        () = poll_fn(|context| ends.poll_heard(context)) => {}
                    }
                    connection.as_mut().graceful_shutdown();
                    connection.as_mut().await
                };
                timeout(self.grace, leave).await.ok()
            }
        };
        match (ends.told(), served) {
            (Some(told), _) => Error::Closed {
                code: told.code.into(),
                reason: told.reason.to_string(),
            },
            (None, Some(Err(error))) => Error::Lost(std::io::Error::other(error)),
            (None, _) => Error::Lost(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Where calls come from: as the broker says, or else as it was reached.
    fn call_url(&self, upgraded: &Upgraded) -> String {
        let told = upgraded.headers.get(CALL_URL).map(HeaderValue::to_str);
        match told {
            Some(Ok(url)) => url.to_owned(),
            _ => self.endpoint.public_url().replacen("/answer/", "/call/", 1),
        }
    }
}

/// How long a connection must last for its end to be a new beginning.
const STABLE: Duration = Duration::from_secs(30);

/// The longest pause, if the broker does not ask for a longer one.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The longest pause that a broker can ask for.
const MAX_ASKED: Duration = Duration::from_secs(300);

//! The body of an answer on its way to the caller.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hookbot_tunnel::Lean;
use http::Method;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::{debug, info};

use super::exchange::Place;
use super::upload::Flow;
use crate::server::head::Requests;
use crate::server::metrics::{CallCount, Outcome};
use crate::server::reply::Cut;
use crate::server::transport::Peer;

/// An answer, until its last byte is with the caller. Dropped before, it takes the call back.
pub(in crate::server) struct Download {
    pub(super) body: Lean<Incoming>,
    pub(super) flow: Arc<Flow>,
    pub(super) idle: Duration,
    /// When something came last.
    pub(super) moved: Instant,
    pub(super) timer: Option<Pin<Box<Sleep>>>,
    /// Where the connection's end is the only end that the caller sees.
    pub(super) unframed: Option<Arc<Requests>>,
    pub(super) bytes: u64,
    pub(super) is_over: bool,
    pub(super) count: CallCount,
    pub(super) line: Option<LogLine>,
    pub(super) _place: Arc<Place>,
}

/// What the log says of a call, once it is over.
pub(in crate::server) struct LogLine {
    pub(in crate::server) peer: Peer,
    pub(in crate::server) method: Method,
    pub(in crate::server) path: String,
    pub(in crate::server) status: u16,
    pub(in crate::server) token: Option<String>,
    pub(in crate::server) began: std::time::Instant,
}

impl Download {
    /// Has the call logged like this when it is over.
    pub(in crate::server) fn log_as(&mut self, line: LogLine) {
        self.line = Some(line);
    }

    pub(in crate::server) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.poll_idle(context));
                return self.cut(Outcome::Timeout);
            }
        };
        match frame {
            None => {
                self.is_over = true;
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                self.moved = Instant::now();
                self.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                // Hyper does not look for more behind either.
                self.is_over |= frame.is_trailers() || self.body.is_end_stream();
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                debug!(%error, "an answer was cut off");
                self.cut(Outcome::Cut)
            }
        }
    }

    /// Ready once neither side has moved for too long.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let end = self.moved.max(self.flow.moved()) + self.idle;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
    }

    /// Ends the answer so that nobody takes it for a whole one.
    fn cut<T>(&mut self, outcome: Outcome) -> Poll<Option<Result<T, Cut>>> {
        self.count.outcome = outcome;
        match &self.unframed {
            // Hyper would close the connection, which is how such an answer ends well.
            Some(requests) => {
                requests.cut();
                Poll::Pending
            }
            None => Poll::Ready(Some(Err(Cut))),
        }
    }

    pub(in crate::server) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(in crate::server) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if self.is_over || self.body.is_end_stream() {
            self.count.outcome = Outcome::Answered;
        } else {
            self.flow.give_up();
        }
        let outcome = self.count.outcome.word();
        let sent = self.bytes;
        let bytes = self.flow.bytes.load(Ordering::Relaxed);
        if let Some(LogLine {
            peer,
            method,
            path,
            status,
            token,
            began,
        }) = self.line.take()
        {
            let ms = (began.elapsed().as_secs_f64() * 1e6).round() / 1e3;
            info!(target: "hookbot::request", %peer, %method, ?path, status, bytes, ms, token, sent, outcome);
        }
    }
}

//! The body of a call on its way to the responder, watched: it may stand still because of either
//! side, and while it does nobody else would notice that the caller is gone.

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hookbot_tunnel::{BoxError, Lean, sending};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::exchange::Place;
use crate::server::head::Requests;

/// A body, with the place that its call has at a responder: as long as one of the two lives, the
/// responder has something to do.
pub(in crate::server) struct Upload {
    body: Lean<Incoming>,
    left: u64,
    flow: Arc<Flow>,
    requests: Arc<Requests>,
    /// It may fill the responder's window, and has not been put off yet.
    is_long: bool,
    pub(super) place: Option<Arc<Place>>,
}

impl Upload {
    /// A body of at most `limit` bytes, and what is known of its progress.
    pub(super) fn new(body: Incoming, limit: u64, requests: Arc<Requests>) -> (Self, Arc<Flow>) {
        let stage = if body.is_end_stream() {
            requests.watch();
            Stage::Done
        } else {
            Stage::Responder
        };
        let flow = Arc::new(Flow {
            began: Instant::now(),
            moved: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            stage: AtomicU8::new(stage as u8),
            sending: OnceLock::new(),
        });
        let upload = Self {
            is_long: body.size_hint().upper().is_none_or(|most| most > SHORT),
            body: Lean(body),
            left: limit,
            flow: flow.clone(),
            requests,
            place: None,
        };
        (upload, flow)
    }

    /// The body, of which nothing was read.
    pub(super) fn into_body(self) -> Incoming {
        self.body.0
    }

    fn end(&self, stage: Stage) {
        self.flow.enter(stage);
        if stage == Stage::Done {
            // Nothing more is to come but the end of the connection.
            self.requests.watch();
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.flow.sending.get().is_none() {
            if let Some(sending) = sending() {
                this.flow.sending.get_or_init(|| sending);
            } else if std::mem::take(&mut this.is_long) {
                // Not here, where it could not be given up once it is stuck.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            this.flow
                .stage
                .store(Stage::Caller as u8, Ordering::Relaxed);
            return Poll::Pending;
        };
        match frame {
            None => {
                this.end(Stage::Done);
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                this.end(Stage::Broken);
                Poll::Ready(Some(Err(error.into())))
            }
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                let Some(left) = this.left.checked_sub(length) else {
                    this.end(Stage::TooLarge);
                    return Poll::Ready(Some(Err("the body is too large".into())));
                };
                this.left = left;
                this.flow.bytes.fetch_add(length, Ordering::Relaxed);
                // Whoever looks for the end before the next piece need not ask again.
                let is_last = frame.is_trailers() || this.body.is_end_stream();
                this.end(if is_last {
                    Stage::Done
                } else {
                    Stage::Responder
                });
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How far a body is.
pub(super) struct Flow {
    began: Instant,
    /// When something happened last, in milliseconds since it began.
    moved: AtomicU64,
    pub(super) bytes: AtomicU64,
    stage: AtomicU8,
    sending: OnceLock<CancellationToken>,
}

/// Whom a body waits for, or how it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The responder does not ask for more.
    Responder,
    /// The caller does not send more.
    Caller,
    Done,
    TooLarge,
    /// It ended early.
    Broken,
}

impl Flow {
    pub(super) fn stage(&self) -> Stage {
        let all = [
            Stage::Responder,
            Stage::Caller,
            Stage::Done,
            Stage::TooLarge,
            Stage::Broken,
        ];
        let own = self.stage.load(Ordering::Acquire);
        all[usize::from(own).min(all.len() - 1)]
    }

    /// Has nothing more sent, whatever the body waits for.
    pub(super) fn give_up(&self) {
        if let Some(sending) = self.sending.get() {
            sending.cancel();
        }
    }

    /// When something happened last.
    pub(super) fn moved(&self) -> Instant {
        self.began + Duration::from_millis(self.moved.load(Ordering::Relaxed))
    }

    fn enter(&self, stage: Stage) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(now, Ordering::Relaxed);
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// Ends once the body has stood still for `idle`, or, once all of it is sent, the head of the
    /// answer has taken longer than `answer`. Says how far it was then.
    pub(super) async fn stall(&self, answer: Duration, idle: Duration) -> Stage {
        loop {
            let stage = self.stage();
            let patience = if stage == Stage::Done { answer } else { idle };
            let end = self.moved() + patience;
            let now = Instant::now();
            if end <= now {
                return stage;
            }
            // Meanwhile all of it may have been sent, and the other patience counts.
            sleep_until(end.min(now + answer)).await;
        }
    }
}

/// What fits into the window of any responder that has not asked for a smaller one, in bytes.
const SHORT: u64 = 65_535;

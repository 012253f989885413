//! A subscriber on an HTTP response: server-sent events (WHATWG HTML, section 9.2).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hookbot_broker::Missing;
use hookbot_protocol::{Cursor, Epoch};
use tokio::time::{Instant, Interval, Sleep, interval_at, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::{info, warn};

use super::State;
use super::channels::{Dialect, masked};
use super::subscriber::{Subscriber, deadline};

/// The events of one subscription, as they go into the response.
pub(super) struct EventStream {
    state: Arc<State>,
    subscriber: Subscriber,
    epoch: Epoch,
    dialect: Dialect,
    /// What goes before the next message.
    notice: Option<Bytes>,
    pings: Interval,
    expires: Option<Pin<Box<Sleep>>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    began: Instant,
    delivered: u64,
}

impl EventStream {
    pub(super) fn new(state: &Arc<State>, mut subscriber: Subscriber, dialect: Dialect) -> Self {
        let epoch = state.broker.epoch();
        let offset = subscriber.subscription.next_offset().before();
        let gap = subscriber.gap.take();
        let notice = dialect.greeting(Cursor { epoch, offset }, gap.as_deref());
        let period = state.settings.ping_interval;
        Self {
            state: state.clone(),
            epoch,
            dialect,
            notice: Some(notice),
            pings: interval_at(Instant::now() + period, period),
            expires: subscriber
                .expires
                .map(|at| Box::pin(sleep_until(deadline(at)))),
            stop: Box::pin(state.close.clone().cancelled_owned()),
            began: Instant::now(),
            delivered: 0,
            subscriber,
        }
    }

    /// Polls for the next piece; `None` when the stream ends.
    pub(super) fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(notice) = self.notice.take() {
            return Poll::Ready(Some(notice));
        }
        if let Some(expires) = &mut self.expires
            && expires.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(None);
        }
        if self.subscriber.seat.poll_dismissed(context).is_ready() {
            return Poll::Ready(None);
        }
        match self.subscriber.subscription.poll_next(context) {
            Poll::Ready(Ok(message)) => {
                self.delivered += 1;
                self.state.metrics.deliveries.inc();
                return Poll::Ready(Some(self.dialect.message(&message, self.epoch)));
            }
            Poll::Ready(Err(missing)) => {
                let Subscriber { peer, seat, .. } = &self.subscriber;
                let path = masked(seat.path());
                warn!(%peer, ?path, %missing, "a subscriber misses messages");
                self.state.metrics.gaps.inc();
                let gap =
                    matches!(missing, Missing::Gap { .. }).then(|| missing.notice(self.epoch));
                return Poll::Ready(gap.flatten().map(|gap| self.dialect.gap(&gap)));
            }
            Poll::Pending => {}
        }
        // Whoever reads the log waits as well, and is not done yet.
        if self.subscriber.subscription.is_caught_up()
            && self.stop.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(None);
        }
        if self.pings.poll_tick(context).is_ready() {
            // Not even a tick may pass without the next one being waited for.
            context.waker().wake_by_ref();
            if let Some(place) = self.subscriber.subscription.place() {
                return Poll::Ready(Some(self.dialect.ping(place)));
            }
        }
        Poll::Pending
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        let Subscriber { peer, seat, .. } = &self.subscriber;
        let path = masked(seat.path());
        let (delivered, seconds) = (self.delivered, self.began.elapsed().as_secs_f32());
        info!(target: "hookbot::request", %peer, ?path, delivered, seconds, "event stream ended");
    }
}

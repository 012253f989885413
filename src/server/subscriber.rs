//! One subscriber on the line: messages out, pings both ways, until either side has enough.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use hookbot_broker::{Missing, Subscription};
use hookbot_protocol::event::{GapNotice, at_frame, gap_frame};
use hookbot_protocol::{Cursor, Form, Message, encode};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::{info, warn};

use super::State;
use super::channels::masked;
use super::metrics::{Counted, Metrics};
use super::roster::Seat;
use super::socket::{Frame, Received, Socket, close_code};
use super::transport::Peer;

/// A subscription and what the connection was opened with.
pub(super) struct Subscriber {
    pub(super) subscription: Subscription,
    pub(super) form: Form,
    /// What it asked for and does not get.
    pub(super) gap: Option<Box<GapNotice>>,
    pub(super) peer: Peer,
    pub(super) skips_gaps: bool,
    /// Whether it began in the past.
    pub(super) resumes: bool,
    /// When its token ends, in seconds since 1970.
    pub(super) expires: Option<u64>,
    /// Left when its token is revoked.
    pub(super) seat: Seat,
    /// Until it is gone.
    pub(super) _counted: Counted,
}

/// Why a subscriber is no longer served: what it is told, if there is still somebody to tell.
type End = (CloseCode, &'static str);

/// It closed, or is gone.
const LEFT: End = (CloseCode::Normal, "left");
/// It neither sent nor accepted anything for too long.
const SILENT: End = (CloseCode::Abnormal, "silent for too long");
/// The server stops.
const GOING_AWAY: End = (CloseCode::Away, "the server is shutting down");
/// Retention has passed it by, and plain frames have no room to say what is missing.
const GAP: End = (
    CloseCode::Library(4410),
    "messages were trimmed before you read them",
);
const BROKEN: End = (CloseCode::Error, "the log cannot be read");
const EXPIRED: End = (CloseCode::Policy, "the token has expired");
const REVOKED: End = (CloseCode::Policy, "the token has been revoked");
const CHATTY: End = (CloseCode::Policy, "too many frames");

/// How many frames a client may send between two pings. It is expected to send pongs.
const MAX_FRAMES: u32 = 5_000;

/// How many bytes a client may send between two pings.
const MAX_RECEIVED: u64 = 4 << 20;

/// A ping without a payload, in bytes.
const PING_LENGTH: u64 = 2;

/// What changes while a subscriber is served.
struct Line {
    delivered: u64,
    /// Frames received since the last ping.
    frames: u32,
    /// There is nothing to queue right now.
    is_waiting: bool,
    /// It has not had everything from the past yet.
    is_behind: bool,
    /// Why it ends, once everything queued is out.
    end: Option<End>,
    /// What was delivered by the last ping.
    delivered_before: u64,
    /// Bytes of pings and places: that they fit into a buffer is no sign of life.
    unasked: u64,
    /// Bytes received by the last ping.
    received_before: u64,
}

/// What goes out to a subscriber.
pub(super) enum Outgoing {
    Message {
        message: Arc<Message>,
        form: Form,
    },
    /// A whole frame of our own.
    Notice(Vec<u8>),
}

impl Frame for Outgoing {
    fn parts(&self) -> [&[u8]; 2] {
        match self {
            Self::Message { message, form } => message.frame(*form),
            Self::Notice(frame) => [frame, &[]],
        }
    }
}

impl Subscriber {
    /// Serves the subscriber to the end.
    pub(super) async fn run(&mut self, state: &State, socket: &mut Socket<Outgoing>) {
        let began = Instant::now();
        let mut line = Line {
            delivered: 0,
            frames: 0,
            is_waiting: false,
            is_behind: self.resumes,
            end: None,
            delivered_before: 0,
            unasked: 0,
            received_before: 0,
        };
        if let Form::Event(epoch) = self.form {
            // So that even one who is cut off before the first message knows where to go on.
            let offset = self.subscription.next_offset().before();
            let notice = self
                .gap
                .take()
                .map_or_else(|| at_frame(Cursor { epoch, offset }), |gap| gap_frame(&gap));
            socket.queue(Outgoing::Notice(encode(&notice)));
        }
        let (code, reason) = self.serve(state, socket, &mut line).await;
        if (code, reason) != SILENT {
            socket.close(code, reason).await;
        }
        let Self { peer, seat, .. } = self;
        let path = masked(seat.path());
        let (delivered, seconds) = (line.delivered, began.elapsed().as_secs_f32());
        info!(target: "hookbot::request", %peer, ?path, delivered, seconds, reason, "subscriber gone");
    }

    async fn serve(
        &mut self,
        state: &State,
        socket: &mut Socket<Outgoing>,
        line: &mut Line,
    ) -> End {
        let settings = &state.settings;
        let tick = settings.ping_interval.min(settings.write_timeout / 3);
        let expires = self.expires.map(deadline);
        let mut stopping = false;
        let (mut next_tick, mut progress, mut alive) = (Instant::now() + tick, 0, Instant::now());
        loop {
            let wake = expires.map_or(next_tick, |at| at.min(next_tick));
            tokio::select! {
                end = poll_fn(|context| self.poll_line(context, state, socket, line, stopping)) => return end,
                () = state.close.cancelled(), if !stopping => stopping = true,
                () = sleep_until(wake) => {}
            }
            let now = Instant::now();
            if expires.is_some_and(|at| at <= now) {
                return EXPIRED;
            }
            if now < next_tick {
                continue;
            }
            next_tick = now + tick;
            let now_at = socket.moved().saturating_sub(line.unasked);
            if now_at > progress {
                (progress, alive) = (now_at, now);
            }
            if now - alive >= settings.write_timeout {
                return SILENT;
            }
            line.frames = 0;
            line.received_before = socket.received();
            // Who got nothing lately would not know where it may resume from.
            if line.delivered == line.delivered_before && socket.has_room() {
                self.tell_place(socket, line);
            }
            line.delivered_before = line.delivered;
            if socket.ping().is_err() {
                return LEFT;
            }
            line.unasked += PING_LENGTH;
        }
    }

    /// Tells a subscriber to events where it may resume from, if it has everything up to there.
    fn tell_place(&self, socket: &mut Socket<Outgoing>, line: &mut Line) {
        if let (Form::Event(_), Some(place)) = (self.form, self.subscription.place()) {
            let frame = encode(&at_frame(place));
            line.unasked += frame.len() as u64;
            line.is_behind = false;
            socket.queue(Outgoing::Notice(frame));
        }
    }

    /// Moves everything that can be moved; ready when the subscriber is to be served no longer.
    fn poll_line(
        &mut self,
        context: &mut Context<'_>,
        state: &State,
        socket: &mut Socket<Outgoing>,
        line: &mut Line,
        stopping: bool,
    ) -> Poll<End> {
        // Reading is how pings are answered and a hang-up is noticed.
        if self.seat.poll_dismissed(context).is_ready() {
            return Poll::Ready(REVOKED);
        }
        while let Poll::Ready(received) = socket.poll_receive(context) {
            match received {
                Some(Ok(Received::Close(_))) | None => return Poll::Ready(LEFT),
                Some(Ok(_)) => line.frames += 1,
                Some(Err(error)) => {
                    let broke_a_rule = |code| (code, "protocol violation");
                    return Poll::Ready(close_code(&error).map_or(LEFT, broke_a_rule));
                }
            }
            if line.frames > MAX_FRAMES {
                return Poll::Ready(CHATTY);
            }
        }
        // What never becomes a message is not counted as one.
        if socket.received() - line.received_before > MAX_RECEIVED {
            return Poll::Ready(CHATTY);
        }
        loop {
            let before = line.delivered;
            self.fill(context, &state.metrics, socket, line);
            if line.delivered > before {
                state.metrics.deliveries.inc_by(line.delivered - before);
            }
            match socket.poll_send(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(LEFT),
                Poll::Pending => return Poll::Pending,
            }
            if let Some(end) = line.end {
                return Poll::Ready(end);
            }
            if line.is_waiting {
                // Whoever reads the log waits as well, and is not done yet.
                let done = stopping && self.subscription.is_caught_up();
                return if done {
                    Poll::Ready(GOING_AWAY)
                } else {
                    Poll::Pending
                };
            }
        }
    }

    /// Queues messages while there are some and there is room.
    fn fill(
        &mut self,
        context: &mut Context<'_>,
        metrics: &Metrics,
        socket: &mut Socket<Outgoing>,
        line: &mut Line,
    ) {
        line.is_waiting = false;
        let form = self.form;
        while socket.has_room() && line.end.is_none() {
            match self.subscription.poll_next(context) {
                Poll::Ready(Ok(message)) => {
                    line.delivered += 1;
                    socket.queue(Outgoing::Message { message, form });
                }
                Poll::Ready(Err(missing)) => {
                    let Self { peer, seat, .. } = self;
                    let path = masked(seat.path());
                    warn!(%peer, ?path, %missing, "a subscriber misses messages");
                    metrics.gaps.inc();
                    match (form, &missing) {
                        (_, Missing::Broken { .. }) => line.end = Some(BROKEN),
                        (Form::Event(epoch), _) => {
                            let notice = missing.notice(epoch).map(|gap| encode(&gap_frame(&gap)));
                            notice
                                .into_iter()
                                .for_each(|frame| socket.queue(Outgoing::Notice(frame)));
                        }
                        _ if self.skips_gaps => {}
                        _ => line.end = Some(GAP),
                    }
                }
                Poll::Pending => {
                    line.is_waiting = true;
                    // Here the past ends, which one who reads only that wants to know at once.
                    if line.is_behind {
                        self.tell_place(socket, line);
                    }
                    break;
                }
            }
        }
    }
}

/// When `at`, in seconds since 1970, comes.
pub(super) fn deadline(at: u64) -> Instant {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let left = Duration::from_secs(at).saturating_sub(now);
    Instant::now() + left.min(FAR_AWAY)
}

/// Long enough for every connection.
const FAR_AWAY: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

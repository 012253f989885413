//! The client of a channel of webhook-over-websocket on the line: requests out, answers in, pings
//! both ways, until either side has enough.

use std::future::poll_fn;
use std::task::{Context, Poll};

use serde::Deserialize;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::{debug, info};

use super::channel_id::masked;
use super::responder::{Answer, Place, Request, Room};
use crate::server::State;
use crate::server::metrics::Counted;
use crate::server::roster::Seat;
use crate::server::socket::{Received, Socket, close_code};
use crate::server::transport::Peer;

/// Why a client is no longer served.
type End = (CloseCode, &'static str);

const LEFT: End = (CloseCode::Normal, "left");
const SILENT: End = (CloseCode::Abnormal, "silent for too long");
const GOING_AWAY: End = (CloseCode::Away, "the server is shutting down");
const REFUSED: End = (
    CloseCode::Policy,
    "the channel or the address is refused now",
);
const CHATTY: End = (CloseCode::Policy, "too many frames");
const NO_ROOM: End = (
    CloseCode::Again,
    "the server has no room for so large an answer",
);

/// A client that is served.
pub(super) struct Client {
    pub(super) place: Place,
    pub(super) peer: Peer,
    pub(super) seat: Seat,
    pub(super) _counted: Counted,
}

/// What changes while a client is served.
struct Line {
    /// Frames received since the last ping.
    frames: u32,
    /// The room for what is here of an answer that is not whole yet.
    room: Room,
    /// Bytes received that there was room for.
    received: u64,
    /// How many calls were answered.
    answers: u64,
}

impl Client {
    /// Serves the client to the end.
    pub(super) async fn run(mut self, state: &State, mut socket: Socket<Request>) {
        let began = Instant::now();
        let mut line = Line {
            frames: 0,
            room: Room::new(state),
            received: 0,
            answers: 0,
        };
        let (code, reason) = self.serve(state, &mut socket, &mut line).await;
        let Self { peer, seat, .. } = &self;
        let path = masked(seat.path()).into_owned();
        let (answers, seconds, peer) = (line.answers, began.elapsed().as_secs_f32(), *peer);
        // Its calls must not wait for the goodbye.
        drop(self);
        if (code, reason) != SILENT {
            socket.close(code, reason).await;
        }
        info!(target: "hookbot::request", %peer, ?path, answers, seconds, reason, "client of a channel gone");
    }

    async fn serve(&mut self, state: &State, socket: &mut Socket<Request>, line: &mut Line) -> End {
        let settings = &state.settings;
        let tick = settings.ping_interval.min(settings.write_timeout / 3);
        let mut next_tick = Instant::now() + tick;
        let (mut moved, mut unasked, mut alive) = (0, 0, Instant::now());
        loop {
            tokio::select! {
                end = poll_fn(|context| self.poll_line(context, state, socket, line)) => return end,
                () = state.close.cancelled() => return GOING_AWAY,
                () = sleep_until(next_tick) => {}
            }
            let now = Instant::now();
            next_tick = now + tick;
            // That a ping fits into a buffer is no sign of life.
            let has_moved = socket.moved().saturating_sub(unasked);
            if has_moved > moved {
                (moved, alive) = (has_moved, now);
            }
            if now - alive >= settings.write_timeout {
                return SILENT;
            }
            line.frames = 0;
            if socket.ping().is_err() {
                return LEFT;
            }
            unasked += PING_LENGTH;
        }
    }

    /// Reads answers and writes requests until one of them ends.
    fn poll_line(
        &mut self,
        context: &mut Context<'_>,
        state: &State,
        socket: &mut Socket<Request>,
        line: &mut Line,
    ) -> Poll<End> {
        if self.seat.poll_dismissed(context).is_ready() {
            return Poll::Ready(REFUSED);
        }
        // Reading is how pings are answered and a hang-up is noticed.
        loop {
            let polled = socket.poll_receive(context);
            let more = usize::try_from(socket.received() - line.received);
            line.received = socket.received();
            if line.room.add(more.unwrap_or(usize::MAX)).is_err() {
                return Poll::Ready(NO_ROOM);
            }
            let Poll::Ready(received) = polled else {
                break;
            };
            line.frames += 1;
            if line.frames > MAX_FRAMES {
                return Poll::Ready(CHATTY);
            }
            let room = std::mem::replace(&mut line.room, Room::new(state));
            match received {
                Some(Ok(Received::Text(text))) => self.take(text.as_bytes(), room, line),
                Some(Ok(Received::Binary(bytes))) => self.take(&bytes, room, line),
                Some(Ok(Received::Close(_))) | None => return Poll::Ready(LEFT),
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    let code = close_code(&error);
                    return Poll::Ready(code.map_or(LEFT, |code| (code, "broke a rule")));
                }
            }
        }
        loop {
            let mut is_waiting = false;
            while socket.has_room() && !is_waiting {
                match self.place.queue.poll_recv(context) {
                    Poll::Ready(Some(request)) => socket.queue(request),
                    _ => is_waiting = true,
                }
            }
            match socket.poll_send(context) {
                Poll::Ready(Ok(())) if !is_waiting => {}
                Poll::Ready(Err(_)) => return Poll::Ready(LEFT),
                _ => return Poll::Pending,
            }
        }
    }

    /// Brings an answer to the call that it is for; one that nobody waits for any more is dropped.
    fn take(&self, frame: &[u8], room: Room, line: &mut Line) {
        let packet: Packet = match serde_json::from_slice(frame) {
            Ok(packet) => packet,
            Err(error) => {
                let peer = self.peer;
                return debug!(%peer, %error, "a client of a channel sends what is no answer");
            }
        };
        let Ok(number) = packet.req_id.parse::<u64>() else {
            return;
        };
        let answer = Answer {
            payload: packet.payload.unwrap_or_default(),
            _room: room,
        };
        line.answers += u64::from(self.place.answer(number, answer));
    }
}

/// A frame of a client. A request looks the same.
#[derive(Deserialize)]
struct Packet {
    req_id: String,
    /// Null where there is nothing, for it is written by Go.
    payload: Option<String>,
}

/// How many frames a client may send between two pings, answers included.
const MAX_FRAMES: u32 = 10_000;

/// A ping without a payload, in bytes.
const PING_LENGTH: u64 = 2;

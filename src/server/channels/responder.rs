//! The client at the other end of a channel of webhook-over-websocket, and the calls that wait for
//! its answers.
//!
//! A caller never waits for another's answer, and the client's task for no caller: an answer goes
//! to whoever waits for it, or nowhere. What both sides have under way is bounded, in number and,
//! out of the same budget as bodies, in bytes.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hookbot_protocol::encode_text;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::{info, warn};

use super::channel_id::{ChannelId, masked};
use crate::server::State;
use crate::server::limits::{Charge, OverBudget};
use crate::server::metrics::Counted;
use crate::server::roster::Seat;
use crate::server::socket::{Frame, Received, Socket, close_code};
use crate::server::transport::Peer;

/// All clients that are connected, by their channel.
#[derive(Default)]
pub(in crate::server) struct Responders(Mutex<HashMap<ChannelId, Arc<Responder>>>);

impl Responders {
    /// Takes a channel for a client; `None` when it has one.
    pub(super) fn take(self: &Arc<Self>, id: ChannelId) -> Option<Place> {
        let (requests, queue) = mpsc::channel(QUEUED);
        let responder = Arc::new(Responder {
            requests,
            calls: Mutex::default(),
        });
        let mut all = self.all();
        if all.contains_key(&id) {
            return None;
        }
        all.insert(id.clone(), responder.clone());
        Some(Place {
            responders: self.clone(),
            id,
            responder,
            queue,
        })
    }

    /// The client of a channel.
    pub(super) fn find(&self, id: &ChannelId) -> Option<Arc<Responder>> {
        self.all().get(id).cloned()
    }

    /// The channels that have a client, in order.
    pub(super) fn ids(&self) -> Vec<ChannelId> {
        let mut ids: Vec<_> = self.all().keys().cloned().collect();
        ids.sort_unstable();
        ids
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ChannelId, Arc<Responder>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client, as callers see it.
pub(super) struct Responder {
    requests: mpsc::Sender<Request>,
    calls: Mutex<Calls>,
}

/// The calls that wait for an answer.
#[derive(Default)]
struct Calls {
    next: u64,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    /// There will be no more answers.
    over: bool,
}

/// There are as many calls under way as there may be.
#[derive(Debug)]
pub(super) struct TooManyCalls;

impl Responder {
    /// Begins a call.
    pub(super) fn call(self: &Arc<Self>) -> Result<Call, TooManyCalls> {
        let (sender, answer) = oneshot::channel();
        let mut calls = self.calls();
        if calls.waiting.len() >= MAX_CALLS {
            return Err(TooManyCalls);
        }
        let number = calls.next;
        calls.next += 1;
        if !calls.over {
            calls.waiting.insert(number, sender);
        }
        Ok(Call {
            responder: self.clone(),
            number,
            answer,
        })
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client has gone.
#[derive(Debug)]
pub(super) struct Gone;

/// One call, which is forgotten when dropped.
pub(super) struct Call {
    responder: Arc<Responder>,
    number: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Call {
    /// Hands the request to the client, once it has taken those before, and waits for the answer.
    pub(super) async fn ask(&mut self, payload: String, room: Room) -> Result<Answer, Gone> {
        // Base64 is text as it is in JSON.
        let text = format!(
            "{{\"req_id\":\"{}\",\"payload\":\"{payload}\"}}",
            self.number
        );
        drop(payload);
        let request = Request {
            frame: encode_text(&text),
            _room: room,
        };
        drop(text);
        let sent = self.responder.requests.send(request).await;
        sent.map_err(|_| Gone)?;
        (&mut self.answer).await.map_err(|_| Gone)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.responder.calls().waiting.remove(&self.number);
    }
}

/// What a client answers, in base64 if it does as it should.
pub(super) struct Answer {
    pub(super) payload: String,
    /// Held while it is taken apart.
    _room: Room,
}

/// A frame of a client. A request looks the same.
#[derive(Deserialize)]
struct Packet {
    req_id: String,
    /// Null where there is nothing, for it is written by Go.
    payload: Option<String>,
}

/// A request on its way to the client.
pub(super) struct Request {
    frame: Vec<u8>,
    /// Held until it is out.
    _room: Room,
}

/// What is taken of the budgets that strangers' bodies are in.
pub(super) struct Room([Charge; 2]);

impl Room {
    pub(super) fn new(state: &State) -> Self {
        Self([0, 1].map(|number: usize| state.bodies[number].open()))
    }

    pub(super) fn add(&mut self, bytes: usize) -> Result<(), OverBudget> {
        self.0.iter_mut().try_for_each(|charge| charge.add(bytes))
    }

    pub(super) fn charges(&mut self) -> &mut [Charge] {
        &mut self.0
    }
}

impl Frame for Request {
    fn parts(&self) -> [&[u8]; 2] {
        [&self.frame, &[]]
    }
}

/// A client's hold on its channel, given back when dropped.
pub(super) struct Place {
    responders: Arc<Responders>,
    id: ChannelId,
    responder: Arc<Responder>,
    queue: mpsc::Receiver<Request>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.responders.all().remove(&self.id);
        // Whoever waits is told at once, and whoever comes is as well.
        let mut calls = self.responder.calls();
        calls.over = true;
        calls.waiting.clear();
    }
}

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
                return warn!(%peer, %error, "a client of a channel sends what is no answer");
            }
        };
        let Ok(number) = packet.req_id.parse::<u64>() else {
            return;
        };
        let waiting = self.place.responder.calls().waiting.remove(&number);
        if let Some(waiting) = waiting {
            line.answers += 1;
            let answer = Answer {
                payload: packet.payload.unwrap_or_default(),
                _room: room,
            };
            // Its caller may have left just now.
            let _ = waiting.send(answer);
        }
    }
}

/// How many calls may be under way with one client.
const MAX_CALLS: usize = 256;

/// How many requests wait for the connection to take them.
const QUEUED: usize = 4;

/// How many frames a client may send between two pings, answers included.
const MAX_FRAMES: u32 = 10_000;

/// A ping without a payload, in bytes.
const PING_LENGTH: u64 = 2;

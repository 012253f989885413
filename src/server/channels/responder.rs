//! Who answers on a channel of webhook-over-websocket, and the calls that wait for an answer.
//!
//! A caller never waits for another's answer, and the client's task for no caller: an answer goes
//! to whoever waits for it, or nowhere. What both sides have under way is bounded, in number and,
//! out of the same budget as bodies, in bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hookbot_protocol::encode_text;
use tokio::sync::{mpsc, oneshot};

use super::channel_id::ChannelId;
use crate::server::State;
use crate::server::limits::{Charge, OverBudget};
use crate::server::socket::Frame;

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
    pub(super) _room: Room,
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
    /// What the client is to be asked.
    pub(super) queue: mpsc::Receiver<Request>,
}

impl Place {
    /// Hands an answer to whoever waits for it; whether anybody does.
    pub(super) fn answer(&self, number: u64, answer: Answer) -> bool {
        let waiting = self.responder.calls().waiting.remove(&number);
        // Its caller may have left just now.
        waiting.is_some_and(|waiting| waiting.send(answer).is_ok())
    }
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

/// How many calls may be under way with one client.
const MAX_CALLS: usize = 256;

/// How many requests wait for the connection to take them.
const QUEUED: usize = 4;

//! A source that holds numbered messages, and a taker that answers as it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use hookbot_forward::message::Message;
use hookbot_forward::{
    Answer, Forwarder, Given, Place, Selection, Settings, Source, Taker, Told, Verdict,
};
use hookbot_protocol::event::Event;

/// Messages with the numbers from 1 on; the place behind one is its number.
pub(crate) struct Numbers {
    pub(crate) count: u64,
    /// Whether it ends behind the last one.
    pub(crate) ends: bool,
}

impl Source for Numbers {
    fn name(&self) -> &str {
        "numbers"
    }

    fn open(&self, after: Option<&str>) -> BoxStream<'static, Given> {
        let first = after.map_or(0, |place| place.parse().unwrap());
        let messages = (first + 1..=self.count).map(|number| {
            let place = number.to_string();
            Given::Message(Box::new(numbered(number)), Some(place))
        });
        let begin = stream::iter([Given::Place(first.to_string())]);
        let all = begin.chain(stream::iter(messages));
        if self.ends {
            all.boxed()
        } else {
            all.chain(stream::pending()).boxed()
        }
    }
}

pub(crate) fn numbered(number: u64) -> Message {
    let event = Event {
        cursor: number.to_string(),
        topic: "numbers".to_owned(),
        time: String::new(),
        method: "POST".to_owned(),
        query: String::new(),
        address: String::new(),
        headers: Vec::new(),
        attributes: BTreeMap::new(),
    };
    let payload = format!(r#"{{"number":{number},"key":{}}}"#, number % 5);
    Message {
        event,
        payload: payload.into(),
    }
}

pub(crate) fn number(message: &Message) -> u64 {
    message.event.cursor.parse().unwrap()
}

/// A taker that is a function of a message and of the attempt.
pub(crate) struct Stooge<F>(pub(crate) F);

impl<F, W> Taker for Stooge<F>
where
    F: Fn(u64, u32) -> W + Send + Sync,
    W: Future<Output = Answer> + Send + 'static,
{
    fn name(&self) -> &str {
        "stooge"
    }

    fn offer<'a>(&'a self, message: &'a Message, attempt: u32) -> BoxFuture<'a, Answer> {
        Box::pin((self.0)(number(message), attempt))
    }
}

pub(crate) fn answer(verdict: Verdict) -> Answer {
    Answer {
        verdict,
        code: None,
        text: format!("{verdict:?}"),
        retry_after: None,
        duration: Duration::ZERO,
    }
}

/// What was told, as words.
pub(crate) type Words = Arc<Mutex<Vec<String>>>;

pub(crate) fn forwarder(taker: impl Taker + 'static, settings: Settings) -> (Forwarder, Words) {
    let words = Words::default();
    let heard = words.clone();
    let tell = move |told: &Told<'_>| {
        let word = match told {
            Told::Delivered {
                message, attempt, ..
            } => format!("{} taken at {attempt}", number(message)),
            Told::Failed { message, .. } => format!("{} failed", number(message)),
            Told::Parked {
                message, letter, ..
            } => format!("{} parked {letter:?}", number(message)),
            Told::NotParked(error) => error.to_string(),
            Told::Opened => "opened".to_owned(),
            Told::Closed => "closed".to_owned(),
            Told::Gone(_) => "gone".to_owned(),
            _ => return,
        };
        heard.lock().unwrap().push(word);
    };
    let forwarder = Forwarder {
        taker: Arc::new(taker),
        selection: Selection::default(),
        settings,
        place: Place::in_memory(),
        letters: None,
        tell: Arc::new(tell),
    };
    (forwarder, words)
}

//! A subscription to a hookbot server.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use hookbot_listen::{Endpoint, Error, RetryingMessages, retrying_watch};
use tokio::time::{Instant, Interval, interval};

use super::{Given, Source, Trouble};
use crate::connector::chain;

/// A subscription, one connection for each time that it is opened.
pub struct Hookbot {
    endpoint: Endpoint,
    name: String,
}

impl Hookbot {
    /// The subscription that the endpoint means.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        // Another token leads to the same messages.
        let name = endpoint.to_string().replacen("***@", "", 1);
        Self { endpoint, name }
    }
}

impl Source for Hookbot {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self, after: Option<&str>) -> BoxStream<'static, Given> {
        let endpoint = self.endpoint.clone();
        let endpoint = match after {
            Some(place) => endpoint.after(place),
            None => endpoint,
        };
        Feed {
            messages: retrying_watch(endpoint),
            told: after.map(str::to_owned),
            heard: None,
            now_and_then: interval(HEARD_INTERVAL),
        }
        .boxed()
    }
}

/// The messages of a subscription, with the places between them.
struct Feed {
    messages: RetryingMessages,
    /// The last place that was given away.
    told: Option<String>,
    /// When it was last told that the server is alive.
    heard: Option<Instant>,
    now_and_then: Interval,
}

/// How often it is told that the server is alive, if it is.
const HEARD_INTERVAL: Duration = Duration::from_secs(1);

impl Stream for Feed {
    type Item = Given;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Given>> {
        let next = Pin::new(&mut self.messages).poll_next(context);
        match next {
            Poll::Ready(Some(Ok(message))) => {
                let place = message.cursor().map(str::to_owned);
                self.told.clone_from(&place);
                let message = Box::new(message.into());
                Poll::Ready(Some(Given::Message(message, place)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Given::Trouble(trouble(&error)))),
            Poll::Ready(None) => Poll::Ready(None),
            // The server tells its place between messages, too.
            Poll::Pending => match self.messages.place() {
                Some(place) if self.told.as_deref() != Some(place) => {
                    let place = place.to_owned();
                    self.told = Some(place.clone());
                    Poll::Ready(Some(Given::Place(place)))
                }
                _ => self.poll_heard(context),
            },
        }
    }
}

impl Feed {
    fn poll_heard(&mut self, context: &mut Context<'_>) -> Poll<Option<Given>> {
        while self.now_and_then.poll_tick(context).is_ready() {
            let heard = self.messages.heard();
            if heard > self.heard {
                self.heard = heard;
                return Poll::Ready(Some(Given::Heard));
            }
        }
        Poll::Pending
    }
}

fn trouble(error: &Error) -> Trouble {
    let text = chain(error);
    match error {
        Error::Gap { .. } | Error::Frame => Trouble::Missing(text),
        error if error.is_refusal() => Trouble::Refused(text),
        _ => Trouble::Lost(text),
    }
}

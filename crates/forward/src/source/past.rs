//! What a server's log has of a subscription, up to a moment.
//!
//! The server is asked for its place first, by a subscription that begins with what comes next.
//! Whatever is published after that is behind this place, so that messages that are sent again to
//! the same server never come back.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use hookbot_listen::{Endpoint, Error, watch};
use hookbot_protocol::Cursor;
use tokio::time::timeout;

use super::hookbot::Hookbot;
use super::{Given, Source, Trouble};

/// A subscription up to the place where its log ended.
pub struct Past {
    subscription: Hookbot,
    end: Cursor,
}

impl Past {
    /// Asks the server where its log ends now. `next` is a subscription that begins with what
    /// comes next, and `from` the same that begins where it should.
    ///
    /// # Errors
    ///
    /// When there is no connection, or the server tells no place.
    pub async fn upto_now(next: &Endpoint, from: Endpoint) -> Result<Self, PastError> {
        let mut messages = watch(next).await?;
        let told = poll_fn(|context| {
            let polled = Pin::new(&mut messages).poll_next(context);
            match (messages.place(), polled) {
                (Some(place), _) => Poll::Ready(Ok(Some(place.to_owned()))),
                (None, Poll::Ready(Some(Err(error)))) => Poll::Ready(Err(error)),
                // A message without a place is from a server that has none.
                (None, Poll::Ready(_)) => Poll::Ready(Ok(None)),
                (None, Poll::Pending) => Poll::Pending,
            }
        });
        let told = timeout(PATIENCE, told).await.unwrap_or(Ok(None))?;
        messages.finish().await;
        let end = told.and_then(|place| place.parse().ok());
        Ok(Self {
            subscription: Hookbot::new(from),
            end: end.ok_or(PastError::NoPlace)?,
        })
    }
}

impl Source for Past {
    fn name(&self) -> &str {
        self.subscription.name()
    }

    fn open(&self, after: Option<&str>) -> BoxStream<'static, Given> {
        upto(self.end, self.subscription.open(after))
    }
}

/// What is given up to a place, and the one message at it.
fn upto(end: Cursor, given: BoxStream<'static, Given>) -> BoxStream<'static, Given> {
    stream::unfold(Some(given), move |given| async move {
        let mut given = given?;
        let next = given.next().await?;
        let place = match &next {
            Given::Message(_, place) => place.as_deref(),
            Given::Place(place) => Some(&**place),
            // It would refuse for ever.
            Given::Trouble(Trouble::Refused(_)) => return Some((next, None)),
            Given::Trouble(_) | Given::Heard => return Some((next, Some(given))),
        };
        let place: Option<Cursor> = place.and_then(|place| place.parse().ok());
        match place {
            Some(place) if place.epoch == end.epoch => {
                if place.offset > end.offset {
                    // Nothing that was meant comes any more.
                    return None;
                }
                let is_last = place.offset == end.offset;
                Some((next, Some(given).filter(|_| !is_last)))
            }
            _ => {
                let text = "the server's log is another than at the beginning";
                Some((Given::Trouble(Trouble::Missing(text.to_owned())), None))
            }
        }
    })
    .boxed()
}

/// Why a server's past can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PastError {
    /// There is no connection.
    #[error(transparent)]
    Listen(#[from] Error),
    /// It does not say where its log ends.
    #[error("the server tells no place in a log; is it a hookbot server that keeps messages?")]
    NoPlace,
}

/// A server tells its place at once.
const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::test_message;

    fn message(offset: u64) -> Given {
        let place = format!("000000000000000e.{offset}");
        Given::Message(Box::new(test_message(&[], b"x")), Some(place))
    }

    fn place(text: &str) -> Given {
        Given::Place(text.to_owned())
    }

    async fn given(items: &[Given]) -> Vec<Given> {
        let end = "000000000000000e.5".parse().unwrap();
        // A subscription never ends of itself.
        let endless = stream::iter(items.to_vec()).chain(stream::pending());
        let given = upto(end, endless.boxed()).collect();
        timeout(PATIENCE, given).await.expect("it does not end")
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_last_message_that_was_there() {
        let before = place("000000000000000e.0");
        let lost = Given::Trouble(Trouble::Lost("x".to_owned()));
        for (items, expected) in [
            (vec![before.clone(), message(1), message(5)], 3),
            (vec![message(1), lost, message(5), message(6)], 3),
            (vec![message(1), message(6)], 1),
            (vec![message(1), place("000000000000000e.9")], 1),
            (vec![place("000000000000000e.5")], 1),
        ] {
            assert_eq!(given(&items).await, items[..expected], "{items:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_log_or_a_refusal_is_the_end_of_it() {
        let refused = Given::Trouble(Trouble::Refused("no".to_owned()));
        let items = [message(1), refused, message(2)];
        assert_eq!(given(&items).await, items[..2]);
        let other = given(&[message(1), place("000000000000000f.2")]).await;
        assert!(
            matches!(other[1], Given::Trouble(Trouble::Missing(_))),
            "{other:?}"
        );
    }
}

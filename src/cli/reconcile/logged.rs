//! What a server's log has: read as a subscriber does, up to its end.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::anyhow;
use hookbot_backfill::Delivery;
use hookbot_forward::Message;
use hookbot_listen::{Endpoint, Error, Messages, watch};
use hookbot_protocol::Cursor;
use jiff::Timestamp;
use tokio::time::{Instant, timeout};

use crate::cli::Failure;

/// Which deliveries the log has.
#[derive(Debug, Default)]
pub(super) struct Logged {
    found: HashSet<String>,
    /// Retention has dropped what is older than this.
    trimmed_before: Option<Timestamp>,
}

impl Logged {
    /// Looks for these ids in what was published since `beginning`.
    ///
    /// It ends where all are found, or with the message that was the last one when it began. A
    /// server tells of a place behind which nothing is for this subscriber only when it pings, so
    /// this may take as long as it lets pass between two pings.
    pub(super) async fn read(
        endpoint: &Endpoint,
        beginning: Timestamp,
        ids: HashSet<&str>,
    ) -> Result<Self, Failure> {
        let end = end(endpoint).await?;
        let mut messages = watch(&endpoint.clone().since(&beginning.to_string())).await?;
        let mut logged = Self::default();
        let mut is_gap = false;
        while logged.found.len() < ids.len()
            && place(&messages)?.is_none_or(|place| place.offset < end.offset)
        {
            match timeout(LOOK, messages.next()).await {
                // The place may have moved on without a message.
                Err(_) => {}
                Ok(None) => return Err(lost()),
                Ok(Some(Err(Error::Gap { .. }))) => is_gap = true,
                Ok(Some(Err(error))) if error.is_passing() => {}
                Ok(Some(Err(error))) => return Err(error.into()),
                Ok(Some(Ok(message))) => {
                    let message = Message::from(message);
                    if std::mem::take(&mut is_gap) {
                        logged.trimmed_before = message.event.time.parse().ok();
                    }
                    let id = message.delivery_id();
                    logged.found.extend(id.filter(|id| ids.contains(&**id)));
                }
            }
        }
        if is_gap {
            logged.trimmed_before = Some(Timestamp::MAX);
        }
        messages.finish().await;
        Ok(logged)
    }

    /// Whether the log has a delivery; `None` where it had to forget what it had at that time.
    pub(super) fn has(&self, delivery: &Delivery) -> Option<bool> {
        if self.found.contains(delivery.id()) {
            return Some(true);
        }
        let is_older = |trimmed| delivery.at().is_none_or(|at| at < trimmed);
        match self.trimmed_before {
            Some(trimmed) if is_older(trimmed) => None,
            _ => Some(false),
        }
    }
}

/// The log's end at present, which a server tells to each new subscriber.
async fn end(endpoint: &Endpoint) -> Result<Cursor, Failure> {
    let mut messages = watch(endpoint).await?;
    let began = Instant::now();
    let end = loop {
        if let Some(place) = place(&messages)? {
            break place;
        }
        if began.elapsed() > PATIENCE {
            return Err(anyhow!(
                "{endpoint} tells nothing but bodies: no hookbot server, or an old one"
            )
            .into());
        }
        match timeout(LOOK, messages.next()).await {
            Ok(None) => return Err(lost()),
            Ok(Some(Err(error))) if !error.is_passing() => return Err(error.into()),
            _ => {}
        }
    };
    messages.finish().await;
    Ok(end)
}

fn place(messages: &Messages) -> Result<Option<Cursor>, Failure> {
    let cursor = messages.place().map(str::parse).transpose();
    cursor.map_err(|error: hookbot_protocol::CursorError| Failure::Other(error.into()))
}

fn lost() -> Failure {
    Failure::Unreachable(anyhow!("the server was lost before its log was read"))
}

/// How often the place is looked at while no message comes.
const LOOK: Duration = Duration::from_millis(50);

/// A server tells its place at once.
const PATIENCE: Duration = Duration::from_secs(10);

//! What a server's log has: read as a subscriber does, up to its end.

use std::collections::HashSet;

use anyhow::anyhow;
use futures_util::StreamExt;
use hookbot_backfill::Delivery;
use hookbot_forward::source::past::{Past, PastError};
use hookbot_forward::{Given, Source, Trouble};
use hookbot_listen::Endpoint;
use jiff::Timestamp;

use crate::cli::Failure;

/// Which deliveries the log has.
#[derive(Debug, Default)]
pub(super) struct Logged {
    found: HashSet<String>,
    /// Retention has dropped what is older than this.
    trimmed_before: Option<Timestamp>,
}

impl Logged {
    /// Looks for these ids in what was published since `beginning`. It ends where all are found.
    pub(super) async fn read(
        endpoint: &Endpoint,
        beginning: Timestamp,
        ids: HashSet<&str>,
    ) -> Result<Self, Failure> {
        let from = endpoint.clone().since(&beginning.to_string());
        let past = Past::upto_now(endpoint, from).await;
        let past = past.map_err(|error| match error {
            PastError::Listen(error) => error.into(),
            error => Failure::Other(error.into()),
        })?;
        let mut given = past.open(None);
        let mut logged = Self::default();
        let mut is_gap = false;
        while logged.found.len() < ids.len()
            && let Some(next) = given.next().await
        {
            match next {
                Given::Message(message, _) => {
                    if std::mem::take(&mut is_gap) {
                        logged.trimmed_before = message.event.time.parse().ok();
                    }
                    let id = message.delivery_id();
                    logged.found.extend(id.filter(|id| ids.contains(&**id)));
                }
                Given::Trouble(Trouble::Missing(_)) => is_gap = true,
                Given::Trouble(Trouble::Refused(why)) => {
                    return Err(Failure::Refused(anyhow!(why)));
                }
                Given::Trouble(trouble) => return Err(Failure::Unreachable(trouble.into())),
                _ => {}
            }
        }
        if is_gap {
            logged.trimmed_before = Some(Timestamp::MAX);
        }
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

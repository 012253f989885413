//! What GitHub's API says of webhooks:
//! <https://docs.github.com/en/rest/repos/webhooks#list-deliveries-for-a-repository-webhook>.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::delivery::{Attempt, Content};
use crate::error::Error;
use crate::headers::HeaderMap;

/// As many as a page holds.
pub(crate) const PER_PAGE: u32 = 100;

/// An item of the list of deliveries.
#[derive(Debug, Deserialize)]
pub(crate) struct Item {
    id: u64,
    guid: String,
    delivered_at: String,
    #[serde(default)]
    redelivery: bool,
    status: String,
    #[serde(default)]
    status_code: u16,
    event: String,
    action: Option<String>,
}

impl From<Item> for Attempt {
    fn from(item: Item) -> Self {
        let Item { event, status, .. } = item;
        let succeeded = status.eq_ignore_ascii_case("ok");
        Self {
            id: item.id,
            delivery: item.guid,
            at: item.delivered_at.parse().ok(),
            event: match item.action {
                Some(action) if !action.is_empty() => format!("{event}.{action}"),
                _ => event,
            },
            status: match item.status_code {
                0 => status,
                code => format!("{code} {status}"),
            },
            succeeded,
            is_repeated: item.redelivery,
            content: None,
        }
    }
}

/// A delivery with what was sent, of which no more is read.
#[derive(Debug, Deserialize)]
pub(crate) struct Detail<'a> {
    #[serde(borrow)]
    request: Request<'a>,
}

#[derive(Debug, Deserialize)]
struct Request<'a> {
    headers: Option<HeaderMap>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

impl Detail<'_> {
    /// What was sent, out of the body that this was read from.
    pub(crate) fn content(&self, body: &Bytes) -> Result<Content, Error> {
        let payload = self.request.payload.map(RawValue::get);
        let payload = payload.filter(|text| *text != "null");
        Ok(Content {
            headers: self.request.headers.clone().unwrap_or_default().0,
            payload: payload
                .map(|text| body.slice_ref(text.as_bytes()))
                .ok_or(Error::Lost("GitHub no longer has its payload"))?,
        })
    }
}

/// A webhook of a list, or that of an app.
#[derive(Debug, Deserialize)]
pub(crate) struct Hook {
    pub(crate) id: u64,
    #[serde(default)]
    pub(crate) active: bool,
    #[serde(default)]
    pub(crate) events: Vec<String>,
    pub(crate) config: HookConfig,
}

#[derive(Debug, Deserialize)]
pub(crate) struct HookConfig {
    #[serde(default)]
    pub(crate) url: String,
}

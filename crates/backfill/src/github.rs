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
    delivered_at: Option<String>,
    #[serde(default)]
    redelivery: bool,
    status: Option<String>,
    status_code: Option<u16>,
    event: String,
    action: Option<String>,
}

impl From<Item> for Attempt {
    fn from(item: Item) -> Self {
        let Item { event, .. } = item;
        let status = item.status.unwrap_or_else(|| "pending".to_owned());
        Self {
            id: item.id,
            delivery: item.guid,
            at: item.delivered_at.and_then(|text| text.parse().ok()),
            event: match item.action {
                Some(action) if !action.is_empty() => format!("{event}.{action}"),
                _ => event,
            },
            succeeded: status.eq_ignore_ascii_case("ok"),
            status: match item.status_code {
                None | Some(0) => status,
                Some(code) => format!("{code} {status}"),
            },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_read_even_where_little_is_known_yet() {
        let read = |json: &str| -> Attempt {
            let item: Item = serde_json::from_str(json).unwrap();
            item.into()
        };
        let attempt = read(
            r#"{"id":12345678,"guid":"0b989ba4-242f-11e5-81e1-c7b6966d2516",
                "delivered_at":"2019-06-03T00:57:16Z","redelivery":false,"duration":0.27,
                "status":"OK","status_code":200,"event":"issues","action":"opened",
                "installation_id":123,"repository_id":456,"throttled_at":null}"#,
        );
        assert_eq!(attempt.at, "2019-06-03T00:57:16Z".parse().ok());
        assert_eq!(
            (&*attempt.event, &*attempt.status),
            ("issues.opened", "200 OK")
        );
        assert!(attempt.succeeded && !attempt.is_repeated);

        let attempt = read(
            r#"{"id":1,"guid":"g","delivered_at":null,"redelivery":true,"status":null,
                "status_code":null,"event":"push","action":null}"#,
        );
        assert_eq!(
            (attempt.at, &*attempt.event, &*attempt.status),
            (None, "push", "pending")
        );
        assert!(!attempt.succeeded && attempt.is_repeated);
        let failed =
            r#"{"id":1,"guid":"g","status":"failed to connect","status_code":0,"event":"push"}"#;
        assert_eq!(read(failed).status, "failed to connect");
    }
}

//! What GitLab's API says of webhooks:
//! <https://docs.gitlab.com/api/project_webhooks/#list-project-webhook-events>.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::delivery::{Attempt, Content};
use crate::headers::HeaderMap;
use crate::verdict::date;

/// As many as a page of events holds.
pub(crate) const PER_PAGE: u32 = 20;

/// What GitLab shows instead of what it does not want to: secrets, and addresses in payloads.
pub(crate) const REDACTED: &str = "[REDACTED]";

/// An item of the list of events, which has everything.
#[derive(Debug, Deserialize)]
pub(crate) struct Item<'a> {
    id: u64,
    trigger: Option<String>,
    request_headers: Option<HeaderMap>,
    #[serde(borrow)]
    request_data: Option<&'a RawValue>,
    response_headers: Option<HeaderMap>,
    #[serde(default)]
    response_status: Value,
    created_at: Option<String>,
}

impl Item<'_> {
    /// The attempt with its content, out of the body that this was read from.
    pub(crate) fn attempt(self, body: &Bytes) -> Attempt {
        let headers = self.request_headers.unwrap_or_default().0;
        let header = |name: &str| {
            let mut own = headers.iter();
            own.find(|(own, _)| own.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.clone())
        };
        let status = match self.response_status {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let answered = self.response_headers.unwrap_or_default().0;
        let mut answered = answered.iter();
        let answered = answered.find(|(name, _)| name.eq_ignore_ascii_case("date"));
        let at = self.created_at.and_then(|text| text.parse().ok());
        let payload = self.request_data.map_or("", RawValue::get);
        // Idempotency-Key is new in 17.4.
        let delivery = ["idempotency-key", "webhook-id", "x-gitlab-event-uuid"];
        Attempt {
            id: self.id,
            delivery: delivery
                .iter()
                .find_map(|name| header(name))
                .unwrap_or_else(|| format!("event {}", self.id)),
            // Before it told its own time, the receiver's is the next best.
            at: at.or_else(|| date(&answered?.1)),
            event: header("x-gitlab-event")
                .or(self.trigger)
                .unwrap_or_default(),
            succeeded: status.starts_with('2'),
            status,
            is_repeated: false,
            content: (!is_lost(payload)).then(|| Content {
                payload: body.slice_ref(payload.as_bytes()),
                headers,
            }),
        }
    }
}

/// GitLab keeps no payload that is too large for its queue, nor one that it failed to make.
fn is_lost(payload: &str) -> bool {
    if payload.len() > 64 {
        return false;
    }
    let object: Result<Map<String, Value>, _> = serde_json::from_str(payload);
    object.map_or(true, |object| {
        object.is_empty() || object.get("oversize") == Some(&Value::Bool(true))
    })
}

/// A webhook of a list.
#[derive(Debug, Deserialize)]
pub(crate) struct Hook {
    pub(crate) id: u64,
    pub(crate) url: String,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Hook {
    /// What it is sent, as its settings have it: `push_events` and the like.
    pub(crate) fn events(&self) -> Vec<String> {
        let set = self
            .rest
            .iter()
            .filter(|(_, value)| **value == Value::Bool(true));
        let names = set.filter_map(|(name, _)| name.strip_suffix("_events"));
        names.map(str::to_owned).collect()
    }

    /// Whether GitLab still sends to it: it gives up on one that fails too often.
    pub(crate) fn is_active(&self) -> bool {
        self.rest
            .get("alert_status")
            .is_none_or(|status| status == "executable")
    }
}

//! A provider's webhooks and deliveries, as they are shown.

use hookbot_backfill::{Delivery, HookEntry};
use hookbot_listen::Endpoint;
use serde_json::{Map, Value, json};

/// A delivery as people read it, with what is the matter with it. Others have written parts of it.
pub(super) fn row(delivery: &Delivery, what: &str) -> String {
    let at = delivery.at();
    let at = at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
    let (event, id) = (delivery.event(), delivery.id());
    format!("{at:<20}  {event:<24}  {id}  {what}").replace(char::is_control, "")
}

/// A delivery as scripts read it.
pub(super) fn as_json(delivery: &Delivery) -> Map<String, Value> {
    let at = delivery.at().map(|at| format!("{at:.3}"));
    let object = json!({
        "delivery": delivery.id(),
        "event": delivery.event(),
        "at": at,
        "status": delivery.last().status,
        "succeeded": delivery.succeeded(),
    });
    match object {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// A webhook in one line.
pub(super) fn entry(hook: &HookEntry) -> String {
    let id = hook.id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let url = shown(&hook.url);
    let events = hook.events.join(" ");
    let state = if hook.is_active { "" } else { "(inactive)" };
    let columns = [&*id, &*url, &*events, state];
    let columns = columns.into_iter().filter(|text| !text.is_empty());
    columns.collect::<Vec<_>>().join("  ")
}

/// Where a webhook posts to, without the token that is in there.
pub(super) fn shown(url: &str) -> String {
    let endpoint = Endpoint::new(url);
    endpoint.map_or_else(
        |_| "a URL of another kind".to_owned(),
        |url| url.to_string(),
    )
}

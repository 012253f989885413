//! Messages that a rule could not route, put where somebody may look at them.

use hookbot_protocol::{Headers, Message, Publication, Topic};

use crate::router::RouteError;

/// The message as it came, on another topic, and why it is there.
pub(crate) fn parked(
    message: &Message,
    rule: &str,
    topic: &Topic,
    error: &RouteError,
) -> Publication {
    let publication = message.publication.clone();
    let own = publication.attributes.iter();
    // It may have been parked before, and sent on its way again.
    let mut attributes: Headers = own
        .filter(|(name, _)| !name.starts_with("parked_"))
        .collect();
    attributes.push("parked_by", rule.as_bytes());
    attributes.push("parked_from", publication.topic.as_str().as_bytes());
    attributes.push("parked_because", error.to_string().as_bytes());
    Publication {
        topic: topic.clone(),
        attributes,
        delivery_id: None,
        ..publication
    }
}

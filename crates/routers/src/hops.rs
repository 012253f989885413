//! How often a message has been routed, so that one that goes in circles comes to an end.

use hookbot_protocol::{Headers, Message};

/// How many rules a message has been through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hops(u32);

impl Hops {
    /// The most rules that a message goes through.
    pub(crate) const MAX: u32 = 8;

    /// What a message says of itself. Only the broker writes attributes.
    pub(crate) fn of(message: &Message) -> Self {
        let attribute = message.publication.attributes.get(HOPS);
        let hops = attribute
            .and_then(|text| str::from_utf8(text).ok())
            .and_then(|text| text.parse().ok());
        Self(hops.unwrap_or_default())
    }

    /// One more; `None` where that would be too many.
    pub(crate) fn next(self) -> Option<Self> {
        (self.0 < Self::MAX).then(|| Self(self.0 + 1))
    }

    /// The attributes of `message` for what is made of it.
    pub(crate) fn inherit(self, message: &Message) -> Headers {
        let own = message.publication.attributes.iter();
        let mut attributes: Headers = own.filter(|(name, _)| *name != HOPS).collect();
        attributes.push(HOPS, self.0.to_string().as_bytes());
        attributes
    }
}

/// The attribute.
const HOPS: &str = "hops";

//! What every router does, and why it refuses a message.

use std::sync::Arc;

use hookbot_protocol::{Filter, Message, TopicError};

use crate::hops::Hops;
use crate::outcome::Outcome;
use crate::view::View;

/// Republishes messages to other topics.
pub trait Router: Send + Sync {
    /// What it is called on the command line and in logs.
    fn name(&self) -> &str;

    /// What it subscribes to.
    fn topics(&self) -> Vec<Filter>;

    /// What becomes of `message`. Another attempt ends the same way.
    fn route(&self, message: &Message) -> Outcome;

    /// As [`Self::route`], for one of several routers that look at `message`: what one of them has
    /// found out about it is in `view`, for all of them.
    fn route_shared(&self, message: &Message, view: &Arc<View>) -> Outcome {
        let _ = view;
        self.route(message)
    }

    /// What becomes of a message that the router panicked on.
    fn parked(&self, message: &Message, error: RouteError) -> Outcome {
        let _ = message;
        Outcome::Refused(error)
    }
}

/// Why a message was not routed. Safe to log: it names neither a secret nor what a signature
/// should have been, and quotes little.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// It has no `X-GitHub-Event` header, and its body is no envelope.
    #[error("neither an X-GitHub-Event header nor an envelope")]
    NotADelivery,
    /// This header came more than once, and not with one value.
    #[error("the {0} header has two values")]
    Repeated(&'static str),
    /// Nobody signed it.
    #[error("no signature")]
    Unsigned,
    /// Its signature is malformed, or was made over another body or with another secret.
    #[error("wrong signature")]
    BadSignature,
    /// The payload is not JSON, or lacks a field that every such event has.
    #[error("unexpected payload: {0}")]
    Payload(#[from] serde_json::Error),
    /// `repository.full_name` is not `owner/repo`.
    #[error("the repository's full name is not of two segments")]
    FullName,
    /// The event's type has a slash in it.
    #[error("the event's type is not of one segment")]
    EventType,
    /// The topic to publish to is none.
    #[error("no topic for it: {0}")]
    Topic(#[from] TopicError),
    /// The topic to publish to is one that only the broker writes to.
    #[error("the topic is one that only the broker publishes to")]
    BrokersOwn,
    /// The header to publish with is none.
    #[error("a header must not have control characters")]
    HeaderValue,
    /// A condition or a template can't be evaluated. The reason may quote the message, in part.
    #[error("{part}: {reason}")]
    Evaluation {
        /// Which part of the rule.
        part: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The message has been through too many rules.
    #[error("routed {} times already, so it goes in circles", Hops::MAX)]
    Circle,
    /// Nobody has verified it, and the rule has no secret to verify it with.
    #[error(
        "no source has verified it as GitHub's, and the secret that GitHub signs with is not known"
    )]
    NoSecret,
    /// The router has a bug.
    #[error("the router panicked")]
    Panicked,
}

impl RouteError {
    /// Whether it is for lack of a signature. Anybody can send such messages.
    pub(crate) fn is_distrust(&self) -> bool {
        matches!(
            self,
            Self::NotADelivery
                | Self::Repeated(_)
                | Self::Unsigned
                | Self::BadSignature
                | Self::NoSecret
        )
    }
}

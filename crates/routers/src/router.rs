//! What every router does, and why it refuses a message.

use hookbot_protocol::{Filter, Message, Publication, TopicError};

/// Republishes messages to other topics.
pub trait Router: Send + Sync {
    /// What it is called on the command line and in logs.
    fn name(&self) -> &str;

    /// What it subscribes to.
    fn topics(&self) -> Vec<Filter>;

    /// What to publish because of `message`, in order; often nothing.
    ///
    /// # Errors
    ///
    /// When the message can't be trusted or understood. Another attempt ends the same way.
    fn route(&self, message: &Message) -> Result<Vec<Publication>, RouteError>;
}

/// Why a message was not routed. Safe to log: it names neither a secret nor what a signature
/// should have been, and quotes only what was signed.
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
}

//! What a router makes of a message.

use std::fmt;

use hookbot_protocol::Publication;

use crate::router::RouteError;

/// What becomes of a message at one router.
#[derive(Debug)]
pub enum Outcome {
    /// These are to be published, in order.
    Published(Vec<Publication>),
    /// The message is none of this router's business.
    NotMatched(Unmatched),
    /// The message can't be trusted or understood. It is logged, and kept by nobody: whoever may
    /// publish without a token could fill a disk with such messages.
    Refused(RouteError),
    /// The message should have been routed and could not be: this is to be published, so that
    /// somebody can look at it.
    Parked(Box<Publication>, RouteError),
}

impl From<Result<Vec<Publication>, RouteError>> for Outcome {
    fn from(result: Result<Vec<Publication>, RouteError>) -> Self {
        match result {
            Ok(publications) if publications.is_empty() => Self::NotMatched(Unmatched::Nothing),
            Ok(publications) => Self::Published(publications),
            Err(error) => Self::Refused(error),
        }
    }
}

/// Why a message is none of a router's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unmatched {
    /// It is on another topic.
    From,
    /// Anybody may have sent it, nobody has verified it, and the rule wants that.
    Unverified,
    /// The rule's condition does not hold.
    When,
    /// The router has nothing to say of it.
    Nothing,
}

impl fmt::Display for Unmatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::From => "it is on another topic",
            Self::Unverified => "it is not verified",
            Self::When => "the condition does not hold",
            Self::Nothing => "there is nothing to publish",
        })
    }
}

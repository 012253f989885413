//! Why a request is not believed.

/// Why a request was not verified.
///
/// Safe to log and to send: it holds names of headers and numbers, never a secret, a value that
/// came or what a signature should have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A header that proves something is not there.
    #[error("no {0} header")]
    Missing(String),
    /// A header that proves something came more than once.
    #[error("the {0} header came more than once")]
    Repeated(String),
    /// A header that proves something can't be read.
    #[error("the {0} header is malformed")]
    Malformed(String),
    /// What proves something is in the body, and can't be read there.
    #[error("the body is not of the form that is signed")]
    MalformedBody,
    /// A hash of the body is what is signed, and this body has another.
    #[error("the signed hash is not that of the body")]
    BodyHash,
    /// Nobody who knows one of the secrets has signed this.
    #[error("no secret matches")]
    NoMatch,
    /// It is signed, but has no time, which this scheme requires.
    #[error("nothing tells when it was signed")]
    Undated,
    /// It is signed, but was so too long ago: somebody may be sending it again.
    #[error("signed {age} s ago, more than the {tolerance} s that are allowed")]
    TooOld {
        /// How long ago, in seconds.
        age: u64,
        /// How long is allowed, in seconds.
        tolerance: u64,
    },
    /// It is signed, but for a time that is yet to come.
    #[error("signed {ahead} s in the future, more than the {tolerance} s that are allowed")]
    TooNew {
        /// How far ahead, in seconds.
        ahead: u64,
        /// How far is allowed, in seconds.
        tolerance: u64,
    },
    /// The provider signs for everybody, and this is somebody else's.
    #[error("it is from a topic that is not expected")]
    Stranger,
}

//! Why a run came to nothing.

use std::io;

/// Something that ended a run before it had figures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It can't be done as it was asked for.
    #[error("{0}")]
    Usage(String),
    /// The server is not there, or hangs up.
    #[error("cannot reach the server: {0}")]
    Unreachable(#[source] io::Error),
    /// The server is there and says no.
    #[error("the server refused a subscriber with {0}")]
    Refused(u16),
    /// This machine has not enough of something, or a file can't be used.
    #[error("{0}: {1}")]
    Local(&'static str, #[source] io::Error),
}

impl Failure {
    /// The exit code that tells of it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Local(..) => 2,
            Self::Unreachable(_) | Self::Refused(_) => 3,
        }
    }
}

//! What can go wrong between here and the server.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use hookbot_protocol::event::{GapNotice, GapReason};
use http::StatusCode;

/// Why messages do not arrive, or one was not published. No message of it shows a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL leads to no server. It is not repeated here, as it may hold a token.
    #[error("not a usable URL: {0}")]
    Url(&'static str),
    /// A header that can't be sent, or that this crate sets itself.
    #[error("cannot send the header {name:?}: {reason}")]
    Header {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No address of the server, or of the proxy, could be reached.
    #[error("cannot connect to {address}")]
    Connect {
        /// Host and port, and the addresses that were tried.
        address: String,
        /// What the last of them said.
        #[source]
        source: io::Error,
    },
    /// The proxy that the environment asks for does not let us through.
    #[error("the proxy {proxy} does not help: {reason}; check HTTPS_PROXY and NO_PROXY")]
    Proxy {
        /// Host and port of the proxy.
        proxy: String,
        /// What it answered.
        reason: String,
    },
    /// The server can't be trusted, or there is nothing to trust it by.
    #[error("no secure connection to {server}")]
    Tls {
        /// Its host name or address.
        server: String,
        /// What is wrong with its certificate, or with ours.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The server answered, and the answer is no.
    #[error("the server refused with {status}{}", because(status, reason))]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The first line of the body, without control characters; may be empty.
        reason: String,
        /// How long the server wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The server ended the subscription.
    #[error(
        "the server closed the connection with code {code}{}",
        explained(reason)
    )]
    Closed {
        /// The WebSocket close code, 1005 if there was none.
        code: u16,
        /// What the server had to say about it; may be empty.
        reason: String,
    },
    /// The connection broke without a word.
    #[error("the connection was lost")]
    Lost(#[source] io::Error),
    /// Not one byte came from the server for so long that it must be gone.
    #[error("the server has been silent for {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// A message is longer than this endpoint allows; see
    /// [`Endpoint::max_message`](crate::Endpoint::max_message).
    #[error("a message is longer than {limit} bytes; allow longer ones to receive it")]
    TooLarge {
        /// The most that is allowed.
        limit: usize,
    },
    /// What answered does not speak as a hookbot server does.
    #[error("what answers there does not speak the protocol; is it a hookbot server?")]
    Protocol(#[source] Box<dyn StdError + Send + Sync>),
    /// Something took too long.
    #[error("{what} took longer than {} s", after.as_secs_f32())]
    Timeout {
        /// What was waited for, and where.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// A frame does not say what it has to, such as its topic. The connection goes on.
    #[error("a frame could not be read")]
    Frame,
    /// Messages that this subscription was to get are not to be had any more. The connection
    /// goes on with those that are.
    #[error("messages after {asked} are missing: {}", missing(*reason))]
    Gap {
        /// Where the messages were to go on.
        asked: String,
        /// The place where messages go on instead.
        oldest: String,
        /// What became of them.
        reason: GapReason,
    },
}

impl From<GapNotice> for Error {
    fn from(gap: GapNotice) -> Self {
        Self::Gap {
            asked: gap.asked,
            oldest: gap.oldest,
            reason: gap.reason,
        }
    }
}

impl Error {
    /// Whether more messages may follow on the same connection.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Frame | Self::Gap { .. })
    }

    /// Whether the server refused with a 4xx status. What it refuses now it will refuse again,
    /// unless somebody mints another token or mends the path; 408 and 429 are the exceptions.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                status.is_client_error()
                    && !matches!(
                        *status,
                        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
                    )
            }
            _ => false,
        }
    }

    /// For how long the server asked to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Wraps what breaks the rules of HTTP or WebSocket.
    pub(crate) fn protocol(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Protocol(source.into())
    }
}

/// The reason behind a status, which some begin with once more, or are nothing else.
fn because(status: &StatusCode, reason: &str) -> String {
    let rest = reason.strip_prefix(&status.to_string());
    explained(rest.map_or(reason, |rest| rest.trim_start_matches([':', '.', ' '])))
}

fn explained(reason: &str) -> String {
    match reason {
        "" => String::new(),
        reason => format!(": {reason}"),
    }
}

/// What became of the messages in a gap.
fn missing(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Trimmed => "they are no longer kept",
        GapReason::Epoch => "that place is in another log",
        GapReason::Ahead => "that place is beyond the end of the log",
        _ => "the server does not have them",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: StatusCode, reason: &str) -> Error {
        Error::Refused {
            status,
            reason: reason.to_owned(),
            retry_after: None,
        }
    }

    #[test]
    fn a_refusal_is_said_once() {
        for (status, reason, text) in [
            (401, "401 Unauthorized", "401 Unauthorized"),
            (
                405,
                "405 Method Not Allowed: use GET",
                "405 Method Not Allowed: use GET",
            ),
            (
                400,
                "400 Bad Request. Header required.",
                "400 Bad Request: Header required.",
            ),
            (400, "", "400 Bad Request"),
            (503, "disk full", "503 Service Unavailable: disk full"),
        ] {
            let error = refused(StatusCode::from_u16(status).unwrap(), reason);
            assert_eq!(error.to_string(), format!("the server refused with {text}"));
        }
    }

    #[test]
    fn a_gap_says_what_became_of_the_messages() {
        let gap = GapNotice {
            asked: "e.1".to_owned(),
            oldest: "e.5".to_owned(),
            reason: GapReason::Trimmed,
        };
        let text = "messages after e.1 are missing: they are no longer kept";
        assert_eq!(Error::from(gap).to_string(), text);
    }

    #[test]
    fn only_what_does_not_heal_is_a_refusal() {
        for (status, refusal) in [
            (401, true),
            (410, true),
            (408, false),
            (429, false),
            (503, false),
        ] {
            let error = refused(StatusCode::from_u16(status).unwrap(), "");
            assert_eq!(error.is_refusal(), refusal, "{status}");
        }
        assert!(!Error::Frame.is_refusal());
    }
}

//! What can go wrong between here and a provider's API.

use std::time::Duration;

use hookbot_forward::tls::TlsError;
use http::StatusCode;

use crate::account::Provider;

/// Why a provider did not say what was asked. No message of it shows a token or a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL is not one of an API. It is not repeated here, as it may hold a token.
    #[error("not a usable API URL: {0}")]
    Url(String),
    /// The token has characters that no header can hold.
    #[error("the token has characters that no token has; is there a line break in it?")]
    Token,
    /// The private key of a GitHub App can't be used.
    #[error("the app's key is of no use: {0}")]
    Key(&'static str),
    /// The certificates that are to be trusted can't be.
    #[error("the CA file can't be used: {0}")]
    Ca(#[from] TlsError),
    /// The provider answered, and the answer is no.
    #[error("{provider} refused {target} with {status}{}{}", because(message), hint(*provider, *status))]
    Refused {
        /// Whose API it is.
        provider: Provider,
        /// The path that was asked for.
        target: String,
        /// The HTTP status.
        status: StatusCode,
        /// What the body gives as the reason; may be empty.
        message: String,
    },
    /// It can't be reached, or goes on failing.
    #[error("{provider} can't be asked for {target}: {reason}")]
    Unavailable {
        /// Whose API it is.
        provider: Provider,
        /// The path that was asked for.
        target: String,
        /// What the last attempt came to.
        reason: String,
    },
    /// The provider wants to be left alone for longer than anybody waits.
    #[error("{provider} wants no more requests for {} s; try again then", wait.as_secs())]
    Limited {
        /// Whose API it is.
        provider: Provider,
        /// For how long.
        wait: Duration,
    },
    /// The answer is not of the form that the provider documents.
    #[error("{provider} answered {target} with something else than documented: {reason}")]
    Malformed {
        /// Whose API it is.
        provider: Provider,
        /// The path that was asked for.
        target: String,
        /// What does not fit.
        reason: String,
    },
    /// The provider still lists a delivery, but does not have what it sent.
    #[error("{0}")]
    Lost(&'static str),
}

impl Error {
    /// Whether this may be about one delivery alone, so that asking for the next one makes sense.
    #[must_use]
    pub fn is_of_one_delivery(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Malformed { .. } | Self::Unavailable { .. } => true,
            Self::Refused { status, .. } => [
                StatusCode::NOT_FOUND,
                StatusCode::GONE,
                StatusCode::UNPROCESSABLE_ENTITY,
            ]
            .contains(status),
            _ => false,
        }
    }
}

fn because(message: &str) -> String {
    match message {
        "" => String::new(),
        message => format!(": {message}"),
    }
}

/// What a refusal usually comes from.
fn hint(provider: Provider, status: StatusCode) -> &'static str {
    match (provider, status) {
        (_, StatusCode::UNAUTHORIZED) => "; is the token right, and still good?",
        (Provider::Github, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {
            "; is the name right, and may the token read webhooks (admin:repo_hook, admin:org_hook)?"
        }
        (Provider::Gitlab, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {
            "; is the name right, and has the token the scope api and its owner the role maintainer?"
        }
        _ => "",
    }
}

//! How requests are verified and signed: a provider's rules, with what is particular to one
//! receiver.

use std::fmt;
use std::time::Duration;

use crate::algorithm::Algorithm;
use crate::client_state;
use crate::handshake;
use crate::provider::Provider;
use crate::refusal::Refusal;
use crate::request::Request;
use crate::secret::Secret;
use crate::signature::{CannotSign, Signature, Signed};
use crate::sns;
use crate::template::Piece;

/// A provider's rules, or rules of one's own made with [`crate::Generic`].
#[derive(Debug, Clone)]
pub struct Scheme {
    pub(crate) provider: Option<Provider>,
    pub(crate) signatures: Vec<Signature>,
    /// In seconds, both ways.
    pub(crate) tolerance: Option<u64>,
    pub(crate) verify_token: Option<Secret>,
    pub(crate) topics: Vec<String>,
}

/// Who signed a request, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Match {
    /// Which of the secrets it was, counted from 0. Several may fit; this is the first.
    pub secret: usize,
    /// When it was signed, in seconds since 1970, where that is part of what is signed.
    pub signed_at: Option<u64>,
}

impl From<Provider> for Scheme {
    fn from(provider: Provider) -> Self {
        Self {
            provider: Some(provider),
            signatures: provider.signatures(),
            tolerance: provider.tolerance(),
            verify_token: None,
            topics: Vec::new(),
        }
    }
}

impl Scheme {
    /// Whose rules these are, if they are a provider's.
    #[must_use]
    pub fn provider(&self) -> Option<Provider> {
        self.provider
    }

    /// How far the signed time may be from now, in either direction; `None` for any time.
    ///
    /// # Errors
    ///
    /// When nothing tells the time by these rules, so that nothing would be checked.
    pub fn with_tolerance(mut self, tolerance: Option<Duration>) -> Result<Self, NoTimestamp> {
        let is_timed = self.provider == Some(Provider::AwsSns)
            || self
                .signatures
                .iter()
                .any(|signature| signature.timestamp.is_some());
        if tolerance.is_some() && !is_timed {
            return Err(NoTimestamp);
        }
        self.tolerance = tolerance.map(|tolerance| tolerance.as_secs());
        Ok(self)
    }

    /// What a request must know to have Meta's handshake answered. It is in a URL there, and so
    /// in logs, and therefore no secret that verifies messages.
    #[must_use]
    pub fn with_verify_token(mut self, token: Secret) -> Self {
        self.verify_token = Some(token);
        self
    }

    /// The Amazon SNS topics, by ARN, whose messages are believed; with none, those of every
    /// Amazon account are.
    #[must_use]
    pub fn with_topics(mut self, topics: Vec<String>) -> Self {
        self.topics = topics;
        self
    }

    /// Whether `secret` can be one by these rules: a wrong one would never match, silently.
    ///
    /// # Errors
    ///
    /// When it is not of the form that the provider gives out.
    pub fn accepts(&self, secret: &Secret) -> Result<(), UnusableSecret> {
        let fits = |signature: &Signature| {
            let key = signature.key.of_verifier(secret.expose());
            key.is_some_and(|key| signature.algorithm.accepts(&key))
        };
        let is_usable = match self.provider {
            Some(Provider::MicrosoftGraph) => true,
            Some(Provider::AwsSns) => sns::rsa_key(secret).is_some(),
            _ => self.signatures.iter().any(fits),
        };
        is_usable.then_some(()).ok_or(UnusableSecret)
    }

    /// Tells which of `secrets` a request was signed with. `now` is in seconds since 1970.
    ///
    /// Nothing in a body is believed before its signature is right; it is read before that only
    /// where fields of it are what is signed.
    ///
    /// # Errors
    ///
    /// When it is not signed, not with one of the secrets, or too long ago.
    pub fn verify(
        &self,
        secrets: &[Secret],
        request: &Request,
        now: u64,
    ) -> Result<Match, Refusal> {
        let (signed, is_timed) = match self.provider {
            Some(Provider::AwsSns) => {
                let message = sns::Message::parse(request.body)?;
                (message.verify(secrets, &self.topics)?, true)
            }
            Some(Provider::MicrosoftGraph) => (client_state::verify(secrets, request.body)?, false),
            _ if self.signs_for_anybody(request.body) => return Err(Refusal::MalformedBody),
            _ => self.verify_header(secrets, request)?,
        };
        if let (Some(tolerance), true) = (self.tolerance, is_timed) {
            let at = signed.at.ok_or(Refusal::Undated)?;
            let (age, ahead) = (now.saturating_sub(at), at.saturating_sub(now));
            if age > tolerance {
                return Err(Refusal::TooOld { age, tolerance });
            }
            if ahead > tolerance {
                return Err(Refusal::TooNew { ahead, tolerance });
            }
        }
        Ok(Match {
            secret: signed.secret,
            signed_at: signed.at,
        })
    }

    /// Verifies by the first header that is there, and tells whether it is one with a time.
    fn verify_header(
        &self,
        secrets: &[Secret],
        request: &Request,
    ) -> Result<(Signed, bool), Refusal> {
        let is_there = |signature: &&Signature| request.headers.get(&signature.header).is_some();
        let first = self.signatures.iter().find(is_there);
        let first = first.ok_or_else(|| Refusal::Missing(self.alternatives()))?;
        // One header may hold signatures of several kinds.
        let same = self
            .signatures
            .iter()
            .filter(|own| own.header == first.header);
        let mut refusal = None;
        for signature in same {
            match signature.verify(secrets, request) {
                Ok(signed) => return Ok((signed, signature.timestamp.is_some())),
                Err(Refusal::NoMatch) => refusal = Some(Refusal::NoMatch),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        Err(refusal.unwrap_or(Refusal::NoMatch))
    }

    /// The headers of which one has to be there.
    fn alternatives(&self) -> String {
        let mut names: Vec<_> = self.signatures.iter().map(|own| &*own.header).collect();
        names.dedup();
        names.join(" or ")
    }

    /// The headers, by name and value, that make `request` verify with `secret`.
    ///
    /// An id that is signed is taken from the request's own headers. Where keys are public ones,
    /// the secret is the private key: 32 bytes in hex for Discord, `whsk_` and base64 for Standard
    /// Webhooks, PKCS #8 for SendGrid, whose signatures are random in part.
    ///
    /// # Errors
    ///
    /// When the secret is not one that signs, only the provider itself can, or no signature would
    /// make the request verify.
    pub fn sign(
        &self,
        secret: &Secret,
        request: &Request,
        now: u64,
    ) -> Result<Vec<(String, String)>, CannotSign> {
        if self.signs_for_anybody(request.body) {
            return Err(Refusal::MalformedBody.into());
        }
        let mut error = self
            .provider
            .map_or(CannotSign::Secret, CannotSign::Provider);
        for signature in &self.signatures {
            match signature.sign(secret, request, now) {
                Ok(headers) => return Ok(headers),
                // That the secret fits and something else is missing says more.
                Err(_) if matches!(error, CannotSign::Request(_)) => {}
                Err(other) => error = other,
            }
        }
        Err(error)
    }

    /// Whether anybody can have this signed, by asking as X does whether anybody is there.
    fn signs_for_anybody(&self, text: &[u8]) -> bool {
        self.provider == Some(Provider::X) && handshake::is_token(text)
    }

    /// Whether the URL is part of what is signed, so that it has to be known as the provider does.
    #[must_use]
    pub fn signs_url(&self) -> bool {
        let has_url = |signature: &Signature| signature.template.has(&Piece::Url);
        self.signatures.iter().any(has_url)
    }

    /// The names of headers whose value is the secret itself: whoever sees one can forge requests.
    pub fn secret_headers(&self) -> impl Iterator<Item = &str> {
        let is_secret = |own: &&Signature| own.algorithm == Algorithm::Token;
        let signatures = self.signatures.iter().filter(is_secret);
        signatures.map(|own| &*own.header)
    }

    /// The names of all headers that prove something by these rules: those that go before a
    /// request is signed again.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        self.signatures.iter().flat_map(Signature::headers)
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.provider {
            Some(provider) => provider.fmt(f),
            None => f.write_str("generic"),
        }
    }
}

/// By these rules nothing tells when a request was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing tells when a request was signed, so there is no tolerance to set")]
pub struct NoTimestamp;

/// The secret can't be one of this provider's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret is not of the form that this provider gives out")]
pub struct UnusableSecret;

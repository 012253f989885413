//! Rules for a provider that is not known here.

use std::time::Duration;

use crate::algorithm::{Algorithm, Encoding};
use crate::scheme::{NoTimestamp, Scheme};
use crate::signature::{KeyForm, Signature, Syntax, Timestamp};
use crate::template::{Piece, Template, TemplateError};

/// What there is to say about how a provider signs. Begin with [`Generic::new`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generic {
    /// The header with the signature.
    pub header: String,
    /// How it is made.
    pub algorithm: Algorithm,
    /// What it is written in.
    pub encoding: Encoding,
    /// What is before it in the header, such as `sha256=`.
    pub prefix: String,
    /// What the secret is written in.
    pub key_encoding: Encoding,
    /// What is signed, for example `{timestamp}.{body}`, of `{id}`, `{timestamp}`, `{method}`,
    /// `{url}`, `{body}` and `{form}`.
    pub template: String,
    /// The header with the time of the signature, in seconds since 1970.
    pub timestamp_header: Option<String>,
    /// The header with the delivery's id, where that is signed.
    pub id_header: Option<String>,
    /// How far the time may be from now.
    pub tolerance: Option<Duration>,
}

impl Generic {
    /// HMAC-SHA256 of the body, in hexadecimal digits: the most usual rule.
    #[must_use]
    pub fn new(header: impl Into<String>) -> Self {
        Self {
            header: header.into(),
            algorithm: Algorithm::HmacSha256,
            encoding: Encoding::Hex,
            prefix: String::new(),
            key_encoding: Encoding::Text,
            template: "{body}".to_owned(),
            timestamp_header: None,
            id_header: None,
            tolerance: None,
        }
    }
}

impl TryFrom<Generic> for Scheme {
    type Error = GenericError;

    fn try_from(generic: Generic) -> Result<Self, GenericError> {
        let header = header(&generic.header)?;
        let timestamp_header = generic
            .timestamp_header
            .as_deref()
            .map(self::header)
            .transpose()?;
        let id_header = generic.id_header.as_deref().map(self::header).transpose()?;
        let template = Template::parse(&generic.template)?;
        let is_token = generic.algorithm == Algorithm::Token;
        let covers = |piece| template.has(&piece) && !is_token;
        if !is_token && !covers(Piece::Body) && !covers(Piece::Form) {
            return Err(GenericError::NoBody);
        }
        if covers(Piece::Timestamp) != timestamp_header.is_some() {
            return Err(GenericError::Timestamp);
        }
        if covers(Piece::Id) != id_header.is_some() {
            return Err(GenericError::Id);
        }
        let key = match (generic.algorithm, generic.key_encoding) {
            (Algorithm::EcdsaP256, _) => KeyForm::PublicKey,
            (_, Encoding::Text) => KeyForm::Plain,
            (_, encoding) => KeyForm::Encoded(encoding),
        };
        let scheme = Self {
            provider: None,
            signatures: vec![Signature {
                header,
                syntax: Syntax::Prefix(generic.prefix),
                encoding: generic.encoding,
                algorithm: generic.algorithm,
                key,
                id: id_header,
                timestamp: timestamp_header.map(Timestamp::Header),
                template,
            }],
            tolerance: None,
            verify_token: None,
            topics: Vec::new(),
        };
        Ok(scheme.with_tolerance(generic.tolerance)?)
    }
}

/// A header's name as those of requests are given here, in lower case.
fn header(name: &str) -> Result<String, GenericError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_plain) {
        return Err(GenericError::Header(name.to_owned()));
    }
    Ok(name.to_ascii_lowercase())
}

/// Why rules can't be followed, or would promise what they do not keep.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GenericError {
    /// A header has no such name.
    #[error("{0:?} is not the name of a header")]
    Header(String),
    /// The template is malformed, or has a hole that nothing fills.
    #[error("the template: {0}")]
    Template(String),
    /// Anybody could change the body.
    #[error("the template leaves the body out, so it would not be signed")]
    NoBody,
    /// A timestamp that is not signed proves nothing, and one that is has to come from somewhere.
    #[error("a timestamp takes both a header and {{timestamp}} in the template")]
    Timestamp,
    /// The same for the id.
    #[error("an id takes both a header and {{id}} in the template")]
    Id,
    /// There is a tolerance, and nothing to apply it to.
    #[error(transparent)]
    Tolerance(#[from] NoTimestamp),
}

impl From<TemplateError> for GenericError {
    fn from(error: TemplateError) -> Self {
        Self::Template(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Generic)) -> GenericError {
        let mut generic = Generic::new("X-Signature");
        change(&mut generic);
        Scheme::try_from(generic).unwrap_err()
    }

    #[test]
    fn rules_that_would_not_hold_are_refused() {
        assert!(Scheme::try_from(Generic::new("X-Signature")).is_ok());
        for name in ["", "a b", "a:", "ü"] {
            let error = refused(|own| own.header = name.to_owned());
            assert_eq!(error, GenericError::Header(name.to_owned()));
        }
        let error = refused(|own| own.template = "{bdy}".to_owned());
        assert!(error.to_string().contains("{bdy}"), "{error}");
        let error = refused(|own| own.template = "{url}".to_owned());
        assert_eq!(error, GenericError::NoBody);
        let error = refused(|own| own.template = "{timestamp}{body}".to_owned());
        assert_eq!(error, GenericError::Timestamp);
        let error = refused(|own| own.timestamp_header = Some("X-Time".to_owned()));
        assert_eq!(error, GenericError::Timestamp);
        let error = refused(|own| own.template = "{id}{body}".to_owned());
        assert_eq!(error, GenericError::Id);
        let error = refused(|own| own.tolerance = Some(Duration::from_secs(1)));
        assert_eq!(error, GenericError::Tolerance(NoTimestamp));
        let error = refused(|own| {
            own.algorithm = Algorithm::Token;
            own.id_header = Some("X-Id".to_owned());
        });
        assert_eq!(error, GenericError::Id);
    }
}

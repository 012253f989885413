//! How one header proves who sent a request.

use std::borrow::Cow;

use crate::algorithm::{Algorithm, Encoding};
use crate::form;
use crate::json;
use crate::provider::Provider;
use crate::public_key;
use crate::refusal::Refusal;
use crate::request::Request;
use crate::secret::Secret;
use crate::template::{Piece, Template};
use crate::twilio;

/// One header and what it has to hold.
#[derive(Debug, Clone)]
pub(crate) struct Signature {
    /// The header, in lower case.
    pub(crate) header: String,
    pub(crate) syntax: Syntax,
    pub(crate) encoding: Encoding,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: KeyForm,
    /// The header with the delivery's id, where that is signed as well.
    pub(crate) id: Option<String>,
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) template: Template,
}

/// Where in the header the signatures are.
#[derive(Debug, Clone)]
pub(crate) enum Syntax {
    /// One, behind a prefix that may be empty.
    Prefix(String),
    /// `t=1,v1=aa,v1=bb,v0=cc`: those with this name.
    Pairs(&'static str),
    /// `v1,aa v1,bb v2,cc`: those of this version.
    Versions(&'static str),
}

/// Where the time of the signature is. It is signed, too.
#[derive(Debug, Clone)]
pub(crate) enum Timestamp {
    /// A header of its own, in seconds.
    Header(String),
    /// The pair of this name among the signatures, in seconds.
    Pair(&'static str),
    /// A field of the body, in milliseconds.
    Body(&'static str),
}

/// How a secret becomes the bytes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyForm {
    /// It is them.
    Plain,
    Encoded(Encoding),
    /// Base64 behind `whsec_`, which may be missing.
    Whsec,
    /// The same, or else the text itself.
    WhsecOrPlain,
    /// Base64 behind `whpk_`, or behind `whsk_` where it signs.
    Whpk,
    /// A public key or a certificate in any usual shape, or a private one where it signs.
    PublicKey,
}

/// A signature that was right.
pub(crate) struct Signed {
    pub(crate) secret: usize,
    /// When it was made, in seconds since 1970, if that is signed.
    pub(crate) at: Option<u64>,
}

impl Signature {
    /// Whose of `secrets` the signature is. Whether it is too old is not looked at.
    pub(crate) fn verify(&self, secrets: &[Secret], request: &Request) -> Result<Signed, Refusal> {
        let malformed = || Refusal::Malformed(self.header.clone());
        let value = request.header(&self.header)?;
        let texts = self.syntax.read(value).ok_or_else(malformed)?;
        let signatures = texts.iter().filter_map(|text| self.encoding.decode(text));
        let signatures: Vec<_> = signatures.collect();
        if signatures.is_empty() || signatures.len() > MAX_SIGNATURES {
            return Err(malformed());
        }
        let id = self
            .id
            .as_deref()
            .map_or(Ok(""), |name| request.header(name))?;
        let written = self.written_timestamp(request, value)?;
        let at = written.map(|(text, source)| seconds(text).ok_or(source));
        let at = at
            .transpose()
            .map_err(|source| Refusal::Malformed(source.to_owned()))?;
        let timestamp = written.map_or("", |(text, _)| text);

        let messages = self.messages(request, id, timestamp)?;
        let signs = |secret: &Secret| {
            self.key.of_verifier(secret.expose()).is_some_and(|key| {
                self.algorithm.accepts(&key)
                    && messages.iter().any(|message| {
                        let pieces: Vec<_> = message.iter().map(|piece| &**piece).collect();
                        self.algorithm.verifies(&key, &pieces, &signatures)
                    })
            })
        };
        let secret = secrets.iter().position(signs).ok_or(Refusal::NoMatch)?;
        let at = match &self.timestamp {
            // Only now is it known to be the sender's.
            Some(Timestamp::Body(field)) => {
                let millis = json::find(request.body, field).and_then(|text| seconds(&text));
                millis.map(|millis| millis / 1_000)
            }
            _ => at,
        };
        Ok(Signed { secret, at })
    }

    /// The headers that prove to whoever shares `secret` that this request is from here.
    pub(crate) fn sign(
        &self,
        secret: &Secret,
        request: &Request,
        now: u64,
    ) -> Result<Vec<(String, String)>, CannotSign> {
        let key = self
            .key
            .of_signer(secret.expose())
            .ok_or(CannotSign::Secret)?;
        if self.algorithm.is_symmetric() && !self.algorithm.accepts(&key) {
            return Err(CannotSign::Secret);
        }
        let id = self
            .id
            .as_deref()
            .map_or(Ok(""), |name| request.header(name))?;
        let now = now.to_string();
        let messages = self.messages(request, id, &now)?;
        let pieces: Vec<_> = messages[0].iter().map(|piece| &**piece).collect();
        let signature = self.algorithm.sign(&key, &pieces);
        let signature = signature.and_then(|bytes| self.encoding.encode(bytes));
        let signature = signature.ok_or(CannotSign::Secret)?;
        let value = match (&self.syntax, &self.timestamp) {
            (Syntax::Prefix(prefix), _) => format!("{prefix}{signature}"),
            (Syntax::Pairs(name), Some(Timestamp::Pair(time))) => {
                format!("{time}={now},{name}={signature}")
            }
            (Syntax::Pairs(name), _) => format!("{name}={signature}"),
            (Syntax::Versions(version), _) => format!("{version},{signature}"),
        };
        let mut headers = Vec::new();
        if let Some(name) = &self.id {
            headers.push((name.clone(), id.to_owned()));
        }
        if let Some(Timestamp::Header(name)) = &self.timestamp {
            headers.push((name.clone(), now));
        }
        headers.push((self.header.clone(), value));
        Ok(headers)
    }

    /// Every header that is looked at.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &str> {
        let timestamp = match &self.timestamp {
            Some(Timestamp::Header(name)) => Some(&**name),
            _ => None,
        };
        [Some(&*self.header), self.id.as_deref(), timestamp]
            .into_iter()
            .flatten()
    }

    /// The timestamp as it was written outside of the body, and the header it is in.
    fn written_timestamp<'a>(
        &'a self,
        request: &Request<'a>,
        value: &'a str,
    ) -> Result<Option<(&'a str, &'a str)>, Refusal> {
        match &self.timestamp {
            None | Some(Timestamp::Body(_)) => Ok(None),
            Some(Timestamp::Header(name)) => Ok(Some((request.header(name)?, name))),
            Some(Timestamp::Pair(name)) => match &*pairs(value, name) {
                [time] => Ok(Some((time, &self.header))),
                _ => Err(Refusal::Malformed(self.header.clone())),
            },
        }
    }

    /// What may have been signed; for all but Twilio that is one thing.
    fn messages<'a>(
        &'a self,
        request: &Request<'a>,
        id: &'a str,
        timestamp: &'a str,
    ) -> Result<Vec<Vec<Cow<'a, [u8]>>>, Refusal> {
        let is_twilios = self.template.has(&Piece::UniqueForm);
        let body = if is_twilios {
            twilio::signed_body(request)?
        } else {
            request.body
        };
        let signs_form = is_twilios || self.template.has(&Piece::Form);
        if signs_form && form::pairs(body).nth(MAX_PAIRS).is_some() {
            return Err(Refusal::MalformedBody);
        }
        if !is_twilios {
            return Ok(vec![self.template.fill(request, id, timestamp)]);
        }
        let fill = |url: &String| {
            let request = Request {
                url,
                body,
                ..*request
            };
            let filled = self.template.fill(&request, "", "");
            vec![Cow::Owned(filled.concat())]
        };
        Ok(twilio::urls(request.url).iter().map(fill).collect())
    }
}

impl Syntax {
    /// The signatures in a header; `None` when it has another form.
    fn read<'a>(&self, value: &'a str) -> Option<Vec<&'a str>> {
        match self {
            Self::Prefix(prefix) => Some(vec![value.strip_prefix(&**prefix)?]),
            Self::Pairs(name) => Some(pairs(value, name)),
            Self::Versions(version) => {
                let all = value.split(' ').filter_map(|one| one.split_once(','));
                Some(
                    all.filter(|(own, _)| own == version)
                        .map(|(_, text)| text)
                        .collect(),
                )
            }
        }
    }
}

impl KeyForm {
    /// The key that verifies.
    pub(crate) fn of_verifier(self, secret: &[u8]) -> Option<Cow<'_, [u8]>> {
        let base64 = |text: &[u8]| Encoding::Base64.decode(str::from_utf8(text).ok()?);
        match self {
            Self::Plain => Some(secret.into()),
            Self::Encoded(encoding) => Some(encoding.decode(str::from_utf8(secret).ok()?)?.into()),
            Self::Whsec => base64(secret.strip_prefix(b"whsec_").unwrap_or(secret)).map(Cow::from),
            Self::WhsecOrPlain => {
                let decoded = Self::Whsec.of_verifier(secret);
                Some(decoded.unwrap_or(Cow::Borrowed(secret)))
            }
            Self::Whpk => base64(secret.strip_prefix(b"whpk_")?).map(Cow::from),
            Self::PublicKey => public_key::spki(secret).map(Cow::from),
        }
    }

    /// The key that signs.
    fn of_signer(self, secret: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self {
            // Any other text is a plain token, which is not signed with.
            Self::WhsecOrPlain if !secret.starts_with(b"whsec_") => None,
            Self::Whpk => {
                let text = str::from_utf8(secret.strip_prefix(b"whsk_")?).ok()?;
                let mut key = Encoding::Base64.decode(text)?;
                // Some write the public key behind the private one.
                key.truncate(32);
                Some(key.into())
            }
            Self::PublicKey => public_key::pkcs8(secret).map(Cow::from),
            form => form.of_verifier(secret),
        }
    }
}

fn pairs<'a>(value: &'a str, name: &str) -> Vec<&'a str> {
    let all = value
        .split(',')
        .filter_map(|pair| pair.trim().split_once('='));
    all.filter(|(own, _)| *own == name)
        .map(|(_, text)| text)
        .collect()
}

/// Why there is no signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CannotSign {
    /// The secret is not one that signs: it is malformed, or a public key.
    #[error("the secret is not one to sign this with")]
    Secret,
    /// What is to be signed lacks something, such as the header with its id.
    #[error("it cannot be signed: {0}")]
    Request(Refusal),
    /// Only the provider itself can: its signatures are checked with a key that it publishes.
    #[error("only {0} itself can sign for {0}")]
    Provider(Provider),
}

impl From<Refusal> for CannotSign {
    fn from(refusal: Refusal) -> Self {
        Self::Request(refusal)
    }
}

/// Digits and nothing else: what reads it behind us may read signs and spaces in its own way.
fn seconds(text: &str) -> Option<u64> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_digits)
}

/// More than any rotation needs; each may cost a verification with a public key.
const MAX_SIGNATURES: usize = 16;

/// More than any provider sends. They are sorted before they are known to be its own, and take
/// many times the memory of a body that is full of empty ones.
const MAX_PAIRS: usize = 4_096;

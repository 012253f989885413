//! `[[source]]`: where messages come from, and how each proves itself.

use bytesize::ByteSize;
use hookbot_protocol::Filter;
use hookbot_signatures::{Algorithm, Encoding, Generic, GenericError, Provider, Scheme, Secret};
use http::StatusCode;
use serde::Deserialize;

use super::problem::Flaw;
use super::secret_text::{self, Found, NotFound, is_literal};
use super::table::meant;
use super::text::{parsed, size};
use super::{Span, Texts};
use crate::server::{
    Fallback, FixedReply, Networks, NetworksError, OnFail, Promotion, Rate, Source, SourceError,
    SourceSecret,
};

/// A source as a file says it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct SourceTable {
    /// What the source is called in logs, metrics and events; by default its topic.
    pub name: Option<String>,

    /// The topic it is for, or a prefix ending in `/` for everything below it; those that anybody
    /// may publish to begin with `/unsafe/`. Of several sources the longest prefix decides. Needed.
    pub topic: String,

    /// Who signs the messages: `"github"`, `"stripe"` and so on, as `hookbot verify --help` lists
    /// them, or `"generic"`, with `signature`. Without it nothing is verified.
    pub provider: Option<String>,

    /// The provider's secrets, any of which is good: `"env:NAME"`, `"file:PATH"`, or the secret
    /// itself, which is better kept elsewhere.
    #[cfg_attr(test, schemars(with = "super::route_table::OneOrMore"))]
    pub secrets: Texts,

    /// How a provider signs that is called `"generic"`.
    pub signature: Option<SignatureTable>,

    /// How far the time of a signature may be from now, instead of what the provider says.
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub tolerance: Option<Span>,

    /// What Meta repeats when it asks whether anybody is there, written like a secret.
    pub verify_token: Option<String>,

    /// The Amazon SNS topics, by ARN, that are believed; by default those of every account are.
    #[cfg_attr(test, schemars(with = "super::route_table::OneOrMore"))]
    pub sns_topics: Texts,

    /// What becomes of a message that does not verify. `"reject"`: it is refused with `401`, which
    /// is the default. `"quarantine"`: it is kept below `/unsafe/quarantine/`, with the reason.
    pub on_fail: Option<OnFailName>,

    /// Where what verified is published instead: a topic, or a prefix ending in `/`, behind which
    /// the rest of its own topic follows.
    pub promote: Option<String>,

    /// Publish a delivery that verified only once in this time.
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub deduplicate: Option<Span>,

    /// From where messages are taken: addresses, networks such as `10.0.0.0/8`, `"file:PATH"` for
    /// a list of them, or `"file:PATH#KEY"` for one in the JSON that a provider publishes.
    #[cfg_attr(test, schemars(with = "super::route_table::OneOrMore"))]
    pub addresses: Texts,

    /// How many messages are taken, for example `100/s`, `600/m` or `1000/h`.
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub rate: Option<Rate>,

    /// The largest body, where that is to be less than the server's.
    #[serde(deserialize_with = "size")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub max_body: Option<ByteSize>,

    /// The content types that are taken, such as `application/json` or `text/*`; by default all.
    #[cfg_attr(test, schemars(with = "super::route_table::OneOrMore"))]
    pub content_types: Texts,

    /// What the sender of a message is told that was taken: `{ status = 200, body = "OK" }`.
    pub reply: Option<ReplyTable>,

    /// What becomes of a call to the topic that nobody is there to answer. `"fail"`: it is answered
    /// with `502`, which is the default. `"publish"`: it is published as if it had been posted to
    /// the topic, whatever its token, and answered with `202`, or with `reply`.
    pub fallback: Option<FallbackName>,
}

/// How a provider signs that is not known here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct SignatureTable {
    /// The header that holds the signature. Needed.
    pub header: String,
    /// `"hmac-sha256"` by default.
    pub algorithm: Option<String>,
    /// What the signature is written in, `"hex"` by default.
    pub encoding: Option<String>,
    /// What is before it in the header, such as `sha256=`.
    pub prefix: String,
    /// What the secret is written in, `"text"` by default.
    pub key_encoding: Option<String>,
    /// What is signed, of `{id}`, `{timestamp}`, `{method}`, `{url}`, `{body}` and `{form}`;
    /// `"{body}"` by default.
    pub template: Option<String>,
    /// The header that holds the time, in seconds since 1970.
    pub timestamp_header: Option<String>,
    /// The header that holds the delivery's id.
    pub id_header: Option<String>,
}

/// What becomes of a message that does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnFailName {
    /// It is refused.
    Reject,
    /// It is kept for somebody to look at.
    Quarantine,
}

/// What becomes of a call that nobody is there to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FallbackName {
    /// It fails.
    Fail,
    /// It is published.
    Publish,
}

/// An answer that is always the same.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ReplyTable {
    /// The status, from 200 to 299.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Default for ReplyTable {
    fn default() -> Self {
        Self {
            status: 200,
            body: "OK\n".to_owned(),
        }
    }
}

impl SourceTable {
    /// What the source is called.
    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.topic)
    }

    /// Whether there may be messages on these topics that it has verified as GitHub's.
    pub(super) fn verifies_github(&self, topics: &Filter) -> bool {
        self.provider.as_deref() == Some(Provider::Github.name())
            && self
                .shape()
                .is_ok_and(|source| source.publishes().meets(topics))
    }

    /// The source without its secrets, and without the addresses that are in files: what can be
    /// checked anywhere.
    pub(super) fn shape(&self) -> Result<Source, Flaw> {
        let flaw = |key| move |message: String| Flaw { key, message };
        let filter = match &*self.topic {
            "" => {
                return Err(flaw("topic")(
                    "a source is for a topic or a prefix".to_owned(),
                ));
            }
            topic => Filter::parse(topic).map_err(|error| flaw("topic")(error.to_string()))?,
        };
        let name = self.name();
        if name.len() > 128 || name.chars().any(char::is_control) {
            let message = "a name has at most 128 bytes, and no control characters";
            return Err(flaw("name")(message.to_owned()));
        }
        let scheme = self.scheme()?;
        let needs_provider = [
            ("secrets", !self.secrets.0.is_empty()),
            ("promote", self.promote.is_some()),
            ("on_fail", self.on_fail.is_some()),
            ("tolerance", self.tolerance.is_some()),
            ("verify_token", self.verify_token.is_some()),
            ("sns_topics", !self.sns_topics.0.is_empty()),
            ("signature", self.signature.is_some()),
        ];
        if scheme.is_none()
            && let Some((key, _)) = needs_provider.into_iter().find(|(_, is_said)| *is_said)
        {
            let message = format!("`{key}` says nothing without a provider");
            return Err(flaw(key)(message));
        }
        if scheme.is_some() && self.secrets.0.is_empty() {
            let message = "a provider takes secrets, or nothing would ever verify";
            return Err(flaw("provider")(message.to_owned()));
        }
        // Those that are elsewhere are looked at when they are read.
        let own = self
            .secrets
            .0
            .iter()
            .zip(1..)
            .filter(|(text, _)| is_literal(text));
        for (text, number) in own {
            let is_usable = |scheme: &Scheme| {
                let secret = Secret::new(text.as_bytes());
                secret.is_ok_and(|secret| scheme.accepts(&secret).is_ok())
            };
            if let Some(scheme) = scheme.as_ref().filter(|scheme| !is_usable(scheme)) {
                let message =
                    format!("literal {number} is not of the form that {scheme} gives out");
                return Err(flaw("secrets")(message));
            }
        }
        let promote = self.promote.as_deref().map(|to| {
            let to = Filter::parse(to).map_err(|error| error.to_string())?;
            Promotion::new(to).map_err(|error| error.to_string())
        });
        let in_place = |entry: &&String| !entry.starts_with("file:");
        let addresses = self.addresses.0.iter().filter(in_place);
        let addresses =
            Networks::parse(addresses).map_err(|error| flaw("addresses")(error.to_string()))?;
        if let Some(wrong) = self
            .content_types
            .0
            .iter()
            .find(|own| !is_content_type(own))
        {
            let message = format!("`{wrong}` is no type such as application/json or text/*");
            return Err(flaw("content_types")(message));
        }
        let reply = self.reply.clone().map(|own| {
            let status = StatusCode::from_u16(own.status).ok();
            let status = status.filter(StatusCode::is_success);
            status.map(|status| FixedReply {
                status,
                body: own.body.into(),
            })
        });
        let max_body = self.max_body.map(|size| size.as_u64());
        Ok(Source {
            name: name.to_owned(),
            scheme,
            on_fail: match self.on_fail {
                Some(OnFailName::Quarantine) => OnFail::Quarantine,
                Some(OnFailName::Reject) | None => OnFail::Reject,
            },
            deduplicate: self.deduplicate.map(|Span(window)| window),
            addresses: (!self.addresses.0.is_empty()).then_some(addresses),
            rate: self.rate,
            max_body: max_body.map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
            content_types: self.content_types.0.clone(),
            reply: match reply {
                Some(None) => {
                    return Err(flaw("reply")(
                        "a status from 200 to 299 is expected".to_owned(),
                    ));
                }
                Some(reply) => reply,
                None => None,
            },
            promote: promote.transpose().map_err(flaw("promote"))?,
            fallback: match self.fallback {
                Some(FallbackName::Publish) => Fallback::Publish,
                Some(FallbackName::Fail) | None => Fallback::Fail,
            },
            ..Source::new(filter)
        })
    }

    fn scheme(&self) -> Result<Option<Scheme>, Flaw> {
        let flaw = |key| move |message: String| Flaw { key, message };
        let Some(provider) = &self.provider else {
            return Ok(None);
        };
        for (key, is_said, owner) in [
            ("verify_token", self.verify_token.is_some(), Provider::Meta),
            (
                "sns_topics",
                !self.sns_topics.0.is_empty(),
                Provider::AwsSns,
            ),
        ] {
            if is_said && *provider != owner.name() {
                let message = format!("only the provider `{owner}` has a `{key}`");
                return Err(flaw(key)(message));
            }
        }
        let mut scheme = match (&**provider, &self.signature) {
            ("generic", Some(table)) => Scheme::try_from(table.generic()?)
                .map_err(|error| flaw(table.key_of(&error))(error.to_string()))?,
            ("generic", None) => {
                let message = "a generic provider takes a `signature`, at least its header";
                return Err(flaw("provider")(message.to_owned()));
            }
            (_, Some(_)) => {
                let message = "only a generic provider takes a `signature`";
                return Err(flaw("signature")(message.to_owned()));
            }
            (name, None) => {
                let provider: Result<Provider, _> = name.parse();
                let unknown = |_| {
                    let names: Vec<_> = Provider::all().map(Provider::name).collect();
                    let names = [&names[..], &["generic"]].concat();
                    let message = format!("unknown provider `{name}`: {}", meant(name, &names));
                    flaw("provider")(message)
                };
                Scheme::from(provider.map_err(unknown)?)
            }
        };
        if let Some(Span(tolerance)) = self.tolerance {
            let timed = scheme.with_tolerance(Some(tolerance));
            scheme = timed.map_err(|error| flaw("tolerance")(error.to_string()))?;
        }
        if !self.sns_topics.0.is_empty() {
            scheme = scheme.with_topics(self.sns_topics.0.clone());
        }
        Ok(Some(scheme))
    }

    /// The source, with its secrets and the addresses in files.
    ///
    /// # Errors
    ///
    /// Names what can't be read, and no secret.
    pub fn source(&self) -> Result<Source, SourceTableError> {
        let mut source = self.shape().map_err(|flaw| SourceTableError::Flaw {
            name: self.name().to_owned(),
            message: flaw.message,
        })?;
        if !self.addresses.0.is_empty() {
            let addresses = Networks::parse(&self.addresses.0);
            source.addresses = Some(addresses.map_err(|reason| SourceTableError::Addresses {
                name: self.name().to_owned(),
                reason,
            })?);
        }
        for (number, text) in self.secrets.0.iter().enumerate() {
            let Found { label, bytes } = self.secret(text, number + 1)?;
            let secret = SourceSecret::new(&*label, bytes);
            let empty = |_| self.unreadable(&label, "it is empty".to_owned());
            source.secrets.push(secret.map_err(empty)?);
        }
        if let Some(token) = &self.verify_token {
            let Found { label, bytes } = self.secret(token, 0)?;
            let empty = |_| self.unreadable(&label, "it is empty".to_owned());
            let token = Secret::new(bytes).map_err(empty)?;
            source.scheme = source.scheme.map(|own| own.with_verify_token(token));
        }
        Ok(source)
    }

    fn secret(&self, text: &str, number: usize) -> Result<Found, SourceTableError> {
        let found = secret_text::find(text, number, self.name());
        found.map_err(|NotFound { label, reason }| self.unreadable(&label, reason))
    }

    fn unreadable(&self, label: &str, reason: String) -> SourceTableError {
        SourceTableError::Secret {
            name: self.name().to_owned(),
            label: label.to_owned(),
            reason,
        }
    }
}

impl SignatureTable {
    fn generic(&self) -> Result<Generic, Flaw> {
        let usual = Generic::new(&*self.header);
        let encoding = |text: &Option<String>, key| named(text, key, Encoding::all());
        Ok(Generic {
            algorithm: named(&self.algorithm, "signature.algorithm", Algorithm::all())?
                .unwrap_or(usual.algorithm),
            encoding: encoding(&self.encoding, "signature.encoding")?.unwrap_or(usual.encoding),
            prefix: self.prefix.clone(),
            key_encoding: encoding(&self.key_encoding, "signature.key_encoding")?
                .unwrap_or(usual.key_encoding),
            template: self.template.clone().unwrap_or(usual.template),
            timestamp_header: self.timestamp_header.clone(),
            id_header: self.id_header.clone(),
            tolerance: None,
            header: usual.header,
        })
    }

    /// Which key says what is wrong.
    fn key_of(&self, error: &GenericError) -> &'static str {
        let is = |own: &Option<String>, name: &str| own.as_deref() == Some(name);
        match error {
            GenericError::Template(_) => "signature.template",
            GenericError::Header(name) if is(&self.timestamp_header, name) => {
                "signature.timestamp_header"
            }
            GenericError::Header(name) if is(&self.id_header, name) => "signature.id_header",
            GenericError::Header(_) => "signature.header",
            _ => "signature",
        }
    }
}

/// Whether a body could be of this type: what none is of is refused for ever.
fn is_content_type(text: &str) -> bool {
    let is_token = |text: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte);
        !text.is_empty() && text.bytes().all(is_plain)
    };
    let halves = text.split_once('/');
    halves.is_some_and(|(kind, sub)| is_token(kind) && (sub == "*" || is_token(sub)))
}

/// The one of these that has this name.
fn named<T: ToString>(
    text: &Option<String>,
    key: &'static str,
    all: impl Iterator<Item = T>,
) -> Result<Option<T>, Flaw> {
    let Some(text) = text else {
        return Ok(None);
    };
    let mut names = Vec::new();
    for one in all {
        let name = one.to_string();
        if name == *text {
            return Ok(Some(one));
        }
        names.push(name);
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let message = format!("unknown `{text}`: {}", meant(text, &names));
    Err(Flaw { key, message })
}

/// Why a source that is said in a file can't be had. Names no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceTableError {
    /// What the file says makes no source.
    #[error("the source {name:?}: {message}")]
    Flaw {
        /// Which one.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// A secret can't be read.
    #[error("the source {name:?}: cannot use {label}: {reason}")]
    Secret {
        /// Which source.
        name: String,
        /// Where the secret should be.
        label: String,
        /// What is wrong.
        reason: String,
    },
    /// A list of addresses can't be read.
    #[error("the source {name:?}: {reason}")]
    Addresses {
        /// Which source.
        name: String,
        /// What is wrong.
        reason: NetworksError,
    },
    /// The sources don't go together.
    #[error(transparent)]
    Sources(#[from] SourceError),
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn table(text: &str) -> SourceTable {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_secret_is_read_from_where_it_is_said_to_be_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "from a file\n").unwrap();
        let text = format!(
            "topic = 'a'\nprovider = 'github'\nsecrets = ['env:PATH', 'file:{}', 'hush']",
            file.display()
        );
        let source = table(&text).source().unwrap();
        let labels: Vec<_> = source.secrets.iter().map(|own| &*own.label).collect();
        let file = format!("file:{}", file.display());
        assert_eq!(labels, ["env:PATH", &file, "literal 3"]);
        assert!(!format!("{source:?}").contains("hush"));
        for (secret, label) in [
            ("env:HOOKBOT_NO_SUCH_SECRET", "env:HOOKBOT_NO_SUCH_SECRET"),
            ("file:/no/such/secret", "file:/no/such/secret"),
            ("", "literal 1"),
        ] {
            let text = format!("topic = 'a'\nprovider = 'github'\nsecrets = ['{secret}']");
            let error = table(&text).source().unwrap_err().to_string();
            assert!(error.contains(label), "{error}");
        }
    }

    #[test]
    fn each_flaw_names_the_key_that_has_it() {
        let github = "topic = 'a'\nprovider = 'github'\nsecrets = 's'\n";
        for (text, key) in [
            ("", "topic"),
            ("topic = 'a//b'", "topic"),
            ("topic = 'a'\nprovider = 'git'", "provider"),
            ("topic = 'a'\nprovider = 'github'", "provider"),
            (
                "topic = 'a'\nprovider = 'generic'\nsecrets = 's'",
                "provider",
            ),
            ("topic = 'a'\nsecrets = 's'", "secrets"),
            ("topic = 'a'\npromote = 'b'", "promote"),
            ("topic = 'a'\non_fail = 'reject'", "on_fail"),
            ("topic = 'a'\naddresses = 'x'", "addresses"),
            ("topic = 'a'\nreply = { status = 404 }", "reply"),
            (&format!("{github}promote = '/unsafe/b'"), "promote"),
            (&format!("{github}tolerance = '5m'"), "tolerance"),
            (
                &format!("{github}signature = {{ header = 'x' }}"),
                "signature",
            ),
            (
                "topic = 'a'\nprovider = 'generic'\nsecrets = 's'\nsignature = { header = '' }",
                "signature.header",
            ),
        ] {
            assert_eq!(table(text).shape().unwrap_err().key, key, "{text}");
        }
    }

    #[test]
    fn a_provider_of_one_s_own_is_described_in_full() {
        let text = r#"
            topic = "/unsafe/own/"
            provider = "generic"
            secrets = ["s"]
            tolerance = "5m"
            reply = { status = 202, body = "taken" }
            [signature]
            header = "X-Signature"
            encoding = "base64"
            prefix = "v1="
            template = "{timestamp}.{body}"
            timestamp_header = "X-Time"
        "#;
        let source = table(text).source().unwrap();
        let headers: Vec<_> = source.scheme.as_ref().unwrap().headers().collect();
        assert_eq!(headers, ["x-signature", "x-time"]);
        assert_eq!(source.reply.unwrap().status, 202);
    }
}

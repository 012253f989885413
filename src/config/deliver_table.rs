//! `[[deliver]]`: which messages are delivered to an HTTP service, and how.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use hookbot_forward::Selection;
use hookbot_forward::target::{HostHeader, PathMode};
use hookbot_protocol::Filter;
use hookbot_signatures::Provider;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::deliver_url;
use super::problem::Flaw;
use super::secret_text::{self, Found, NotFound};
use super::text::parsed;
use super::{Span, Texts};
use crate::server::{Delivery, DeliveryError, Networks};

/// A delivery as a file says it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct DeliverTable {
    /// What the delivery is called: in logs and metrics, and in the data folder, where its place
    /// is kept. Letters, digits, `-`, `_` and `.`; by default made from `topic` and `url`.
    pub name: Option<String>,

    /// The topic whose messages are delivered, or a prefix ending in `/` for everything below it.
    /// Needed.
    pub topic: String,

    /// The service's URL, `http` or `https`; a name and a password before the `@` are sent as
    /// `Authorization`. Needed.
    pub url: String,

    /// Whether what anybody has published below `/unsafe/` and nobody has verified is delivered,
    /// too.
    pub unverified: bool,

    /// Where it begins the first time: `"now"`, which is the default, or `"start"`, with the oldest
    /// message that is kept.
    pub from: Option<FromName>,

    /// An expression; only messages that make it true are delivered.
    pub when: Option<String>,

    /// What to send, a template. Without it, the message's own body, byte for byte.
    pub transform: Option<String>,

    /// Headers to send besides the message's own, in their place where they have the same name. A
    /// value may be `"env:NAME"` or `"file:PATH"`.
    pub headers: BTreeMap<String, String>,

    /// The secrets that deliveries are signed with: `"env:NAME"`, `"file:PATH"`, or the secret
    /// itself, which is better kept elsewhere. With several, each signs, so that the service can
    /// change from one to the next.
    #[cfg_attr(test, schemars(with = "super::route_table::OneOrMore"))]
    pub secrets: Texts,

    /// How deliveries are signed: `"standard-webhooks"`, which is the default where there are
    /// secrets, or as another provider does, of those that `hookbot sign --help` lists.
    pub sign: Option<String>,

    /// How long the service may take to answer; 30s by default.
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub timeout: Option<Span>,

    /// How often a message is tried again before it is put aside; by default until the service
    /// takes it.
    pub retries: Option<u32>,

    /// How long it is waited, at most, before a message is tried again the first time; it doubles
    /// with each. 100ms by default.
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub pause: Option<Span>,

    /// How long it is waited, at most, however often that was; 30s by default.
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub max_pause: Option<Span>,

    /// How many messages may be on their way at once; 1 by default, which keeps their order.
    pub concurrency: Option<NonZeroUsize>,

    /// An expression, for a `concurrency` of more than 1: messages that give it the same value are
    /// delivered one after the other; by default those of one topic are.
    pub key: Option<String>,

    /// What becomes of the topic in the URL. `"drop"`: nothing, which is the default. `"keep"`:
    /// what of it is behind a prefix is appended to `url`'s path.
    pub path_mode: Option<PathModeName>,

    /// The `Host` to send; by default that of `url`.
    pub host_header: Option<String>,

    /// A file with the certificates, PEM, of which one has to be behind the service's own, besides
    /// those that the system trusts.
    pub ca: Option<String>,

    /// Whether any certificate is good, so that anybody on the way can be the service.
    pub insecure: bool,

    /// Addresses and networks, such as `10.0.0.0/8`, that it may reach though they are not public.
    #[cfg_attr(test, schemars(with = "super::route_table::OneOrMore"))]
    pub allow: Texts,
}

/// Where a delivery begins that has no place yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FromName {
    /// With what is published then.
    #[default]
    Now,
    /// With the oldest message that is kept.
    Start,
}

/// What becomes of the topic in the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PathModeName {
    /// Nothing.
    #[default]
    Drop,
    /// What is behind the prefix is appended.
    Keep,
}

impl DeliverTable {
    /// What the delivery is called.
    pub(super) fn name(&self) -> String {
        let made = || deliver_url::name(&self.topic, &self.url, MAX_NAME);
        self.name.clone().unwrap_or_else(made)
    }

    /// The delivery without its secrets and certificates: what can be checked anywhere.
    pub(super) fn shape(&self) -> Result<Delivery, Flaw> {
        let flaw = |key| move |message: String| Flaw { key, message };
        if self.topic.is_empty() {
            let missing = "a delivery reads a topic or a prefix";
            return Err(flaw("topic")(missing.to_owned()));
        }
        if self.url.is_empty() {
            return Err(flaw("url")("a delivery goes to a URL".to_owned()));
        }
        let filter = Filter::parse(&self.topic);
        let filter = filter.map_err(|error| flaw("topic")(error.to_string()))?;
        let name = self.name();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_plain) {
            let expected = "a name is 1 to 64 letters, digits, `-`, `_` or `.`";
            return Err(flaw("name")(expected.to_owned()));
        }
        if name.bytes().all(|byte| byte == b'.') {
            return Err(flaw("name")("a name is not only dots".to_owned()));
        }
        let sign = match &self.sign {
            None => Provider::StandardWebhooks,
            Some(_) if self.secrets.0.is_empty() => {
                let message = "`sign` says nothing without `secrets`";
                return Err(flaw("sign")(message.to_owned()));
            }
            Some(name) => name.parse().map_err(|_| {
                let names: Vec<_> = Provider::all().map(Provider::name).collect();
                flaw("sign")(format!("there are {}", names.join(", ")))
            })?,
        };
        let own_socket = self.allow.0.iter().any(|entry| entry == UNIX);
        let allowed = self.allow.0.iter().filter(|entry| *entry != UNIX);
        let allowed = Networks::parse(allowed).map_err(|error| flaw("allow")(error.to_string()))?;
        if self.url.starts_with("unix:") && !own_socket {
            let message = "it is this machine's: write allow = [\"unix\"] if it is meant";
            return Err(flaw("url")(message.to_owned()));
        }
        let checked = deliver_url::check(&self.url, &allowed);
        checked.map_err(|error| flaw("url")(error.to_string()))?;
        let path = match (self.path_mode.unwrap_or_default(), &filter) {
            (PathModeName::Drop, _) => PathMode::Drop,
            (PathModeName::Keep, Filter::Prefix(_)) => PathMode::Keep {
                // Topics do not begin with the slash that stands for all of them.
                below: match filter.as_str() {
                    "/" => String::new(),
                    prefix => prefix.to_owned(),
                },
            },
            (PathModeName::Keep, Filter::Topic(_)) => {
                let message = "there is nothing to keep of a single topic";
                return Err(flaw("path_mode")(message.to_owned()));
            }
        };
        let host = match &self.host_header {
            None => HostHeader::Target,
            Some(host) => HostHeader::Fixed(
                HeaderValue::try_from(host)
                    .map_err(|_| flaw("host_header")("no header can hold this".to_owned()))?,
            ),
        };
        for (name, value) in &self.headers {
            header(name, value.as_bytes()).map_err(flaw("headers"))?;
        }
        let delivery = Delivery {
            name,
            filter,
            unverified: self.unverified,
            from_start: self.from == Some(FromName::Start),
            when: self.when.clone(),
            transform: self.transform.clone(),
            url: self.url.clone(),
            path,
            host,
            headers: Vec::new(),
            sign,
            secrets: Vec::new(),
            allowed,
            ca: None,
            insecure: self.insecure,
            timeout: self.timeout.map_or(TIMEOUT, |Span(timeout)| timeout),
            retries: self.retries,
            pause: self.pause.map_or(PAUSE, |Span(pause)| pause),
            max_pause: self.max_pause.map_or(MAX_PAUSE, |Span(pause)| pause),
            concurrency: self.concurrency.map_or(1, NonZeroUsize::get),
            key: self.key.clone(),
        };
        self.check_selection()?;
        // Whom to trust is nothing that a URL says.
        let url = Delivery {
            insecure: true,
            ..delivery.clone()
        };
        let anywhere = Arc::new(|_| Ok(()));
        let target = url.target(anywhere);
        target.map_err(|error| flaw("url")(error.to_string()))?;
        Ok(delivery)
    }

    /// Whether the expressions and the template are such.
    fn check_selection(&self) -> Result<(), Flaw> {
        let alone = Selection::default;
        let checked = [
            (
                "when",
                self.when.as_deref().map(|text| alone().filter(text)),
            ),
            (
                "transform",
                self.transform
                    .as_deref()
                    .map(|text| alone().transform(text)),
            ),
            ("key", self.key.as_deref().map(|text| alone().key(text))),
        ];
        for (key, checked) in checked {
            checked.transpose().map_err(|error| Flaw {
                key,
                message: error.to_string(),
            })?;
        }
        if self.key.is_some() && self.concurrency.is_none_or(|most| most.get() == 1) {
            let message = "one message at a time is in order without a key";
            return Err(Flaw {
                key: "key",
                message: message.to_owned(),
            });
        }
        Ok(())
    }

    /// The delivery, with its secrets and certificates.
    ///
    /// # Errors
    ///
    /// Names what can't be read or used, and no secret.
    pub fn delivery(&self) -> Result<Delivery, DeliverTableError> {
        let name = self.name();
        let mut delivery = self.shape().map_err(|flaw| DeliverTableError::Flaw {
            name: name.clone(),
            message: format!("{}: {}", flaw.key, flaw.message),
        })?;
        let unreadable = |what: String, reason: String| DeliverTableError::Unreadable {
            name: name.clone(),
            what,
            reason,
        };
        let find = |text: &str, number| {
            let found = secret_text::find(text, number, &name);
            found.map_err(|NotFound { label, reason }| unreadable(label, reason))
        };
        for (number, text) in self.secrets.0.iter().enumerate() {
            let Found { label, bytes } = find(text, number + 1)?;
            if bytes.is_empty() {
                return Err(unreadable(label, "it is empty".to_owned()));
            }
            delivery.secrets.push(bytes);
        }
        for (header_name, text) in &self.headers {
            let bytes = match text.split_once(':') {
                Some(("env" | "file", _)) => find(text, 0)?.bytes,
                _ => text.clone().into_bytes(),
            };
            let header = header(header_name, &bytes);
            let header = header.map_err(|reason| unreadable("headers".to_owned(), reason))?;
            delivery.headers.push(header);
        }
        if let Some(file) = &self.ca {
            let pem = fs::read(file);
            let pem = pem.map_err(|error| unreadable(file.clone(), error.to_string()))?;
            delivery.ca = Some(pem);
        }
        let unusable = |reason| DeliverTableError::Unusable {
            name: name.clone(),
            reason,
        };
        delivery.signer().map_err(unusable)?;
        delivery.target(Arc::new(|_| Ok(()))).map_err(unusable)?;
        Ok(delivery)
    }
}

/// A header that is sent along.
fn header(name: &str, value: &[u8]) -> Result<(HeaderName, HeaderValue), String> {
    let parsed = HeaderName::try_from(name);
    let parsed = parsed.map_err(|_| format!("{name:?} is not the name of a header"))?;
    let is_ours = ["host", "content-length", "transfer-encoding", "connection"];
    if is_ours.contains(&parsed.as_str()) {
        let hint = match parsed.as_str() {
            "host" => "; there is `host_header`",
            _ => "",
        };
        return Err(format!("{name:?} belongs to the connection{hint}"));
    }
    let mut value = HeaderValue::from_bytes(value);
    if let Ok(value) = &mut value {
        value.set_sensitive(true);
    }
    let value = value.map_err(|_| format!("{name}: its value has a control character"));
    Ok((parsed, value?))
}

/// Why a delivery that is said in a file can't be had. Names no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeliverTableError {
    /// What the file says makes no delivery.
    #[error("the delivery {name:?}: {message}")]
    Flaw {
        /// Which one.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// A secret, a header or a certificate can't be read.
    #[error("the delivery {name:?}: cannot use {what}: {reason}")]
    Unreadable {
        /// Which delivery.
        name: String,
        /// What it is.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What was read can't be used.
    #[error("the delivery {name:?}: {reason}")]
    Unusable {
        /// Which delivery.
        name: String,
        /// What is wrong.
        reason: DeliveryError,
    },
}

/// What lets a delivery go to a socket in the file system, as an entry of `allow`.
const UNIX: &str = "unix";

/// How long a service may take, by default.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long it is waited before another attempt, by default.
const PAUSE: Duration = Duration::from_millis(100);

/// … and at most.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The longest name, in bytes.
const MAX_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> DeliverTable {
        toml::from_str(text).unwrap()
    }

    const ONE: &str = "topic = 'a/'\nurl = 'https://example.com/hook'\n";

    #[test]
    fn each_flaw_names_the_key_that_has_it() {
        for (text, key) in [
            ("url = 'https://example.com/'", "topic"),
            ("topic = 'a//b'\nurl = 'https://example.com/'", "topic"),
            ("topic = 'a'", "url"),
            ("topic = 'a'\nurl = 'ftp://example.com/'", "url"),
            ("topic = 'a'\nurl = 'https:///x'", "url"),
            ("topic = 'a'\nurl = 'http://127.0.0.1/'", "url"),
            ("topic = 'a'\nurl = 'http://[::ffff:10.0.0.1]:80/'", "url"),
            ("topic = 'a'\nurl = 'http://u:p@localhost/'", "url"),
            ("topic = 'a'\nurl = 'unix:/run/x.sock'", "url"),
            (&format!("{ONE}name = 'a/b'"), "name"),
            (&format!("{ONE}name = '..'"), "name"),
            (&format!("{ONE}name = ''"), "name"),
            (&format!("{ONE}sign = 'github'"), "sign"),
            (&format!("{ONE}secrets = 's'\nsign = 'git'"), "sign"),
            (&format!("{ONE}when = 'body.'"), "when"),
            (&format!("{ONE}transform = '{{{{ bdy }}}}'"), "transform"),
            (&format!("{ONE}key = 'topic'"), "key"),
            (&format!("{ONE}key = 'topi'\nconcurrency = 2"), "key"),
            (&format!("{ONE}allow = '10.0.0.0/33'"), "allow"),
            (&format!("{ONE}host_header = \"a\\nb\""), "host_header"),
            (&format!("{ONE}headers = {{ 'a b' = 'c' }}"), "headers"),
            (&format!("{ONE}headers = {{ Host = 'c' }}"), "headers"),
            (
                "topic = 'a'\nurl = 'https://example.com/'\npath_mode = 'keep'",
                "path_mode",
            ),
        ] {
            assert_eq!(table(text).shape().unwrap_err().key, key, "{text}");
        }
    }

    #[test]
    fn what_is_allowed_may_stand_in_the_url() {
        for (url, allow) in [
            ("http://127.0.0.1:9000/hook", "127.0.0.1"),
            ("http://[fd00::1]/", "fd00::/8"),
            ("unix:/run/x.sock", "unix"),
        ] {
            let text = format!("topic = 'a'\nurl = '{url}'\nallow = '{allow}'");
            table(&text).shape().unwrap();
        }
    }

    #[test]
    fn secrets_and_headers_are_read_from_where_they_are_said_to_be_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "whsec_aHVzaA==\n").unwrap();
        let file = file.display();
        let text = format!(
            "{ONE}secrets = ['file:{file}', 'whsec_aHVzaGh1c2g=']\n\
             headers = {{ Authorization = 'file:{file}', X-Team = 'infra' }}"
        );
        let delivery = table(&text).delivery().unwrap();
        assert_eq!(
            delivery.secrets,
            ["whsec_aHVzaA==", "whsec_aHVzaGh1c2g="].map(Vec::from)
        );
        let headers = delivery.headers.iter();
        let headers: Vec<_> = headers
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        assert_eq!(
            headers,
            [
                ("authorization", &b"whsec_aHVzaA=="[..]),
                ("x-team", b"infra")
            ]
        );
        assert!(!format!("{delivery:?} {headers:?}").contains("hush"));

        for (more, expected) in [
            (
                "secrets = 'env:HOOKBOT_NO_SUCH_SECRET'",
                "env:HOOKBOT_NO_SUCH_SECRET",
            ),
            ("secrets = ''", "literal 1: it is empty"),
            ("secrets = 'no base64!'", "not one to sign"),
            (
                "secrets = ['a', 'b']\nsign = 'github'",
                "room for one signature",
            ),
            ("headers = { X = 'file:/no/such' }", "file:/no/such"),
            ("ca = '/no/such.pem'", "/no/such.pem"),
            (&format!("ca = '{file}'"), "no certificate"),
        ] {
            let error = table(&format!("{ONE}{more}")).delivery().unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

//! Sources: where messages come from, and how each proves itself.
//!
//! A source is for a topic or a prefix; where several are, the longest one decides alone. Nothing
//! of a message is believed before its signature is right.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hookbot_protocol::{Filter, Topic, TopicError};
use hookbot_signatures::{Scheme, Secret};
use http::StatusCode;
use sha2::{Digest, Sha256};

use super::networks::Networks;
use super::rate::Rate;

/// What may be published on a topic or below a prefix.
#[derive(Debug, Clone)]
pub struct Source {
    /// What it is called in logs, counters and attributes.
    pub name: String,
    /// The topics it is for.
    pub filter: Filter,
    /// How messages are signed; without it nothing is verified, and the rest still holds.
    pub scheme: Option<Scheme>,
    /// With which secrets. Several are good at a time, so that one can follow the other.
    pub secrets: Vec<SourceSecret>,
    /// What becomes of a message that does not verify.
    pub on_fail: OnFail,
    /// Within this time, a delivery that verified is not published again.
    pub deduplicate: Option<Duration>,
    /// From where messages are taken; without it, from everywhere.
    pub addresses: Option<Networks>,
    /// How often.
    pub rate: Option<Rate>,
    /// The largest body, in bytes, where it is to be less than the server's.
    pub max_body: Option<usize>,
    /// Content types that are taken, such as `application/json` or `text/*`; none for all.
    pub content_types: Vec<String>,
    /// What a sender is told when its message was taken, instead of `OK`.
    pub reply: Option<FixedReply>,
    /// Where what verified is published instead.
    pub promote: Option<Promotion>,
    /// What becomes of a call that nobody is there to answer.
    pub fallback: Fallback,
}

/// What becomes of a call that nobody is there to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fallback {
    /// It fails, unless it says itself what is to be done.
    #[default]
    Fail,
    /// It is published.
    Publish,
}

/// What becomes of a message that does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFail {
    /// It is refused with `401`.
    #[default]
    Reject,
    /// It is kept below `/unsafe/quarantine/`, with the reason.
    Quarantine,
}

/// A secret, and where it is from.
#[derive(Clone)]
pub struct SourceSecret {
    /// What it is called where its use is reported, such as `env:GITHUB_SECRET`.
    pub label: String,
    pub(super) secret: Secret,
    /// To know it again by; it is not shown.
    hash: [u8; 32],
}

impl SourceSecret {
    /// Takes a secret's bytes as they are.
    ///
    /// # Errors
    ///
    /// When there are none.
    pub fn new(
        label: impl Into<String>,
        bytes: Vec<u8>,
    ) -> Result<Self, hookbot_signatures::EmptySecret> {
        let hash = Sha256::digest(&bytes).into();
        Ok(Self {
            label: label.into(),
            secret: Secret::new(bytes)?,
            hash,
        })
    }

    /// Whether both are the same secret, called the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.label == other.label && self.hash == other.hash
    }
}

impl fmt::Debug for SourceSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceSecret({:?}, ..)", self.label)
    }
}

/// An answer that is always the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedReply {
    /// The status, one that says that the message was taken.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

/// Where a source's messages go once they have verified: one safe topic, or below a prefix what
/// is left of their own topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion(Filter);

impl Promotion {
    /// Takes a safe topic, or a safe prefix that ends in `/`.
    ///
    /// # Errors
    ///
    /// When it is an unsafe one: whoever listens there expects to be lied to.
    pub fn new(to: Filter) -> Result<Self, SourceError> {
        if to.as_str().starts_with('/') {
            return Err(SourceError::Promotion);
        }
        Ok(Self(to))
    }

    /// Where a message goes that came on `topic` by a source for `from`.
    pub(super) fn target(&self, from: &Filter, topic: &Topic) -> Result<Topic, TopicError> {
        let Filter::Prefix(_) = &self.0 else {
            return Topic::parse(self.0.as_str());
        };
        let text = topic.as_str();
        let rest = match from {
            Filter::Prefix(_) => &text[from.as_str().len()..],
            Filter::Topic(_) => text.rsplit_once('/').map_or(text, |(_, last)| last),
        };
        Topic::parse(&[self.0.as_str(), rest].concat())
    }
}

/// Sources that go together: no two are for the same topics or have the same name.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    all: Vec<Arc<Source>>,
}

impl Sources {
    /// Checks sources, each for itself and together.
    ///
    /// # Errors
    ///
    /// When one could never do what it says, or two contradict each other.
    pub fn new(sources: Vec<Source>) -> Result<Self, SourceError> {
        let (mut names, mut filters) = (HashSet::new(), HashSet::new());
        for source in &sources {
            source.check()?;
            if !filters.insert(&source.filter) {
                return Err(SourceError::SameTopics(source.filter.to_string()));
            }
            if !names.insert(&source.name) {
                return Err(SourceError::SameName(source.name.clone()));
            }
        }
        let all = sources.into_iter().map(Arc::new).collect();
        Ok(Self { all })
    }

    /// All of them, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.all.iter()
    }
}

impl Source {
    /// A source that takes everything.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self {
            name: filter.to_string(),
            filter,
            scheme: None,
            secrets: Vec::new(),
            on_fail: OnFail::default(),
            deduplicate: None,
            addresses: None,
            rate: None,
            max_body: None,
            content_types: Vec::new(),
            reply: None,
            promote: None,
            fallback: Fallback::default(),
        }
    }

    /// Where messages are published once they have verified.
    pub(crate) fn publishes(&self) -> &Filter {
        let promoted = self.promote.as_ref();
        promoted.map_or(&self.filter, |Promotion(to)| to)
    }

    fn check(&self) -> Result<(), SourceError> {
        let name = || self.name.clone();
        match (&self.scheme, self.secrets.is_empty()) {
            (Some(_), true) => return Err(SourceError::NoSecret(name())),
            (None, false) => return Err(SourceError::NoScheme(name(), "secrets")),
            (None, true) if self.promote.is_some() => {
                return Err(SourceError::NoScheme(name(), "promote"));
            }
            (None, true) if self.on_fail == OnFail::Quarantine => {
                return Err(SourceError::NoScheme(name(), "on_fail"));
            }
            _ => {}
        }
        if let Some(scheme) = &self.scheme {
            for secret in &self.secrets {
                if scheme.accepts(&secret.secret).is_err() {
                    let label = secret.label.clone();
                    return Err(SourceError::Secret(name(), label));
                }
            }
        }
        let is_success = |reply: &FixedReply| reply.status.is_success();
        if !self.reply.as_ref().is_none_or(is_success) {
            return Err(SourceError::Reply(name()));
        }
        Ok(())
    }

    /// Whether bodies of this type are taken. Parameters do not count.
    pub(super) fn takes(&self, content_type: Option<&str>) -> bool {
        if self.content_types.is_empty() {
            return true;
        }
        let essence = content_type.unwrap_or_default().split(';').next();
        let essence = essence.unwrap_or_default().trim().to_ascii_lowercase();
        self.content_types
            .iter()
            .any(|own| match own.strip_suffix('*') {
                Some(kind) => {
                    kind.ends_with('/') && essence.starts_with(&kind.to_ascii_lowercase())
                }
                None => own.eq_ignore_ascii_case(&essence),
            })
    }
}

/// Why sources can't be used. Names no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Nothing could ever verify.
    #[error("the source {0:?} has a provider and no secret")]
    NoSecret(String),
    /// Something is said of signatures, and nothing says how they are made.
    #[error("the source {0:?} has {1} and no provider")]
    NoScheme(String, &'static str),
    /// The provider gives out no such secret.
    #[error("the source {0:?}: {1} is not of the form that its provider gives out")]
    Secret(String, String),
    /// A sender would try again what was taken.
    #[error("the source {0:?} has a reply whose status is not from 200 to 299")]
    Reply(String),
    /// It would not be a promotion.
    #[error("only to a topic or prefix that is not below /unsafe/ can anything be promoted")]
    Promotion,
    /// Which one is to decide?
    #[error("two sources are for {0:?}")]
    SameTopics(String),
    /// Nobody could tell them apart.
    #[error("two sources are called {0:?}")]
    SameName(String),
}

/// Finds what is filed under a topic or under one of its prefixes.
#[derive(Debug)]
pub(super) struct ByTopic<T>(HashMap<Box<str>, T>);

impl<T> ByTopic<T> {
    pub(super) fn new(all: impl IntoIterator<Item = (Filter, T)>) -> Self {
        let filed = all.into_iter();
        Self(
            filed
                .map(|(filter, own)| (filter.as_str().into(), own))
                .collect(),
        )
    }

    /// What is filed under the longest prefix of the topic, or under the topic itself.
    pub(super) fn find(&self, topic: &Topic) -> Option<&T> {
        if self.0.is_empty() {
            return None;
        }
        let texts = std::iter::once(topic.as_str()).chain(topic.ancestors());
        texts.filter_map(|text| self.0.get(text)).next()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookbot_signatures::Provider;

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    fn github(on: &str) -> Source {
        Source {
            scheme: Some(Provider::Github.into()),
            secrets: vec![SourceSecret::new("literal 1", b"s".to_vec()).unwrap()],
            ..Source::new(filter(on))
        }
    }

    #[test]
    fn of_overlapping_sources_the_longest_prefix_decides() {
        let all = ["/unsafe/", "/unsafe/a/", "/unsafe/a/b", "a/", "/"];
        let sources = ByTopic::new(all.map(|text| (filter(text), text)));
        for (topic, found) in [
            ("/unsafe/x", "/unsafe/"),
            ("/unsafe/a/x", "/unsafe/a/"),
            ("/unsafe/a/b", "/unsafe/a/b"),
            ("/unsafe/a/b/c", "/unsafe/a/"),
            ("/unsafe/ab", "/unsafe/"),
            ("a/b", "a/"),
            ("b", "/"),
        ] {
            let topic = Topic::parse(topic).unwrap();
            assert_eq!(sources.find(&topic), Some(&found), "{topic}");
        }
        let none = ByTopic::<()>::new([(filter("/unsafe/"), ())]);
        assert_eq!(none.find(&Topic::parse("a").unwrap()), None);
    }

    #[test]
    fn what_verified_keeps_the_rest_of_its_topic() {
        for (from, to, topic, target) in [
            (
                "/unsafe/github.com/",
                "github.com/",
                "/unsafe/github.com/org/a",
                "github.com/org/a",
            ),
            ("/unsafe/", "/", "/unsafe/a/b", "a/b"),
            (
                "/unsafe/hooks/stripe",
                "money/",
                "/unsafe/hooks/stripe",
                "money/stripe",
            ),
            ("/unsafe/a/", "all", "/unsafe/a/b", "all"),
            ("in/", "out/", "in/a", "out/a"),
        ] {
            let promotion = Promotion::new(filter(to)).unwrap();
            let topic = Topic::parse(topic).unwrap();
            let found = promotion.target(&filter(from), &topic).unwrap();
            assert_eq!(found.as_str(), target);
        }
        assert!(Promotion::new(filter("/unsafe/a/")).is_err());
        let promotion = Promotion::new(filter("/")).unwrap();
        let reserved = Topic::parse("/unsafe/a/pub").unwrap();
        assert!(promotion.target(&filter("/unsafe/a/"), &reserved).is_err());
    }

    #[test]
    fn sources_that_could_not_do_what_they_say_are_refused() {
        let no_secret = Source {
            secrets: Vec::new(),
            ..github("a")
        };
        let no_scheme = Source {
            scheme: None,
            ..github("a")
        };
        let promoted = Source {
            promote: Some(Promotion::new(filter("b")).unwrap()),
            ..Source::new(filter("a"))
        };
        let quarantined = Source {
            on_fail: OnFail::Quarantine,
            ..Source::new(filter("a"))
        };
        let error_reply = Source {
            reply: Some(FixedReply {
                status: StatusCode::FOUND,
                body: Bytes::new(),
            }),
            ..Source::new(filter("a"))
        };
        let unusable = Source {
            scheme: Some(Provider::Discord.into()),
            ..github("a")
        };
        let twin = Source {
            name: "a".to_owned(),
            ..github("b")
        };
        for sources in [
            vec![no_secret],
            vec![no_scheme],
            vec![promoted],
            vec![quarantined],
            vec![error_reply],
            vec![unusable],
            vec![github("a"), github("a")],
            vec![github("a"), twin],
        ] {
            let shown = format!("{sources:?}");
            assert!(Sources::new(sources).is_err(), "{shown}");
        }
        assert!(Sources::new(vec![github("a"), github("a/"), github("/unsafe/a")]).is_ok());
    }

    #[test]
    fn a_content_type_counts_without_its_parameters() {
        let source = Source {
            content_types: vec!["application/json".to_owned(), "text/*".to_owned()],
            ..Source::new(filter("a"))
        };
        for (given, taken) in [
            (Some("application/json"), true),
            (Some("Application/JSON; charset=utf-8"), true),
            (Some("text/plain"), true),
            (Some("textual"), false),
            (Some("application/jsonp"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(source.takes(given), taken, "{given:?}");
        }
        assert!(Source::new(filter("a")).takes(None));
    }
}

//! What a subscription matches.

use std::fmt;

use crate::frame::Form;
use crate::topic::{Topic, TopicError, UNSAFE};

/// One topic, or everything below a prefix that ends in `/`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Exactly this topic.
    Topic(Topic),
    /// Every topic below this prefix.
    Prefix(Prefix),
}

/// A prefix that ends in `/`, or the empty root of the safe topics.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Prefix(Box<str>);

impl Filter {
    /// Parses a filter written as text: a topic, or a prefix ending in `/`. The root of the safe
    /// topics is written `/`.
    ///
    /// # Errors
    ///
    /// When what is before the last slash is not a topic.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let Some(parent) = text.strip_suffix('/') else {
            return Ok(Self::Topic(Topic::parse(text)?));
        };
        if !parent.is_empty() && text != UNSAFE {
            Topic::parse(parent)?;
        }
        Ok(Self::prefix(if text == "/" { "" } else { text }))
    }

    /// Whether a message on `topic` is for this subscription.
    ///
    /// No safe filter ever matches an unsafe topic, not even the root.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        match self {
            Self::Topic(own) => own == topic,
            Self::Prefix(Prefix(prefix)) => {
                topic.as_str().starts_with(&**prefix)
                    && topic.is_unsafe() == prefix.starts_with('/')
            }
        }
    }

    /// Whether there can be a message for both.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (filter, Self::Topic(topic)) | (Self::Topic(topic), filter) => filter.matches(topic),
            (Self::Prefix(Prefix(one)), Self::Prefix(Prefix(other))) => {
                let are_nested = one.starts_with(&**other) || other.starts_with(&**one);
                are_nested && one.starts_with('/') == other.starts_with('/')
            }
        }
    }

    /// The text under which a hub files this filter: what [`Topic::as_str`] or
    /// [`Topic::ancestors`] gives for a topic that it matches.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Topic(topic) => topic.as_str(),
            Self::Prefix(Prefix(prefix)) => prefix,
        }
    }

    /// Everything in the same space of topics, the safe ones or the unsafe ones.
    #[must_use]
    pub fn space(&self) -> Self {
        let root = if self.as_str().starts_with('/') {
            UNSAFE
        } else {
            ""
        };
        Self::prefix(root)
    }

    /// The form a plain frame takes for this subscription.
    #[must_use]
    pub fn form(&self) -> Form {
        match self {
            Self::Topic(_) => Form::Plain,
            Self::Prefix(_) => Form::Prefixed,
        }
    }

    /// Wraps a prefix whose every rule was checked on the way here.
    pub(crate) fn prefix(text: &str) -> Self {
        Self::Prefix(Prefix(text.into()))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_str() {
            "" => f.write_str("/"),
            text => f.write_str(text),
        }
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// Why a text is not a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct FilterError(#[from] TopicError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_meet_where_one_holds_the_other() {
        for (one, other, meet) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a/", "a/b", true),
            ("a/", "ab", false),
            ("a/", "a/b/", true),
            ("a/b/", "a/c/", false),
            ("/", "a/", true),
            ("/", "/unsafe/", false),
            ("/unsafe/", "/unsafe/a/", true),
            ("/unsafe/a", "a", false),
        ] {
            let [one, other] = [one, other].map(|text| Filter::parse(text).unwrap());
            assert_eq!(one.meets(&other), meet, "{one} {other}");
            assert_eq!(other.meets(&one), meet, "{other} {one}");
        }
    }

    #[test]
    fn a_filter_matches_its_topic_or_what_is_below_its_prefix() {
        for (filter, topic, matches) in [
            ("a/b", "a/b", true),
            ("a/b", "a/bc", false),
            ("a/b", "a/b/c", false),
            ("a/", "a/b", true),
            ("a/", "a/b/c", true),
            ("a/", "a", false),
            ("a/", "ab/c", false),
            ("/", "a", true),
            ("/", "/unsafe/a", false),
            ("/unsafe/", "/unsafe/a", true),
            ("/unsafe/", "a", false),
            ("/unsafe/a/", "/unsafe/a/b", true),
        ] {
            let topic = Topic::parse(topic).unwrap();
            let filter = Filter::parse(filter).unwrap();
            assert_eq!(filter.matches(&topic), matches, "{filter} {topic}");
            let found = std::iter::once(topic.as_str())
                .chain(topic.ancestors())
                .any(|text| text == filter.as_str());
            assert_eq!(found, matches, "by look-up: {filter:?} {topic}");
        }
    }

    #[test]
    fn a_filter_is_written_as_it_was_read() {
        for text in ["a", "a/", "/", "/unsafe/", "/unsafe/a"] {
            assert_eq!(Filter::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "//", "a//", "pub/", "/a/"] {
            assert!(Filter::parse(text).is_err(), "{text:?}");
        }
    }
}

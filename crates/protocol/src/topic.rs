//! The name a message is published to.

use std::fmt;
use std::sync::Arc;

use crate::path::Path;

/// A valid topic: `deploys/site`, or `/unsafe/github.com/org/acme` for one that anybody may
/// publish to.
///
/// The leading slash is what keeps the two spaces apart: a safe topic never has one. Cloning is
/// cheap, the text is shared.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Parses a topic written as text, as routers and logs write it.
    ///
    /// # Errors
    ///
    /// Says which rule the text breaks; see [`TopicError`].
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        let (path, name, is_unsafe) = match text.strip_prefix(UNSAFE) {
            Some(name) => ("/unsafe/pub/", name, true),
            None => ("/pub/", text, false),
        };
        check_size(path, name)?;
        name.split('/').try_for_each(check_segment)?;
        check_first(name, is_unsafe)?;
        Ok(Self(text.into()))
    }

    /// The topic as subscribers see it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether anybody may publish here, without a token.
    #[must_use]
    pub fn is_unsafe(&self) -> bool {
        self.0.starts_with('/')
    }

    /// Whether only the broker itself publishes here, below `/unsafe/`.
    #[must_use]
    pub fn is_brokers_own(&self) -> bool {
        let name = self.0.strip_prefix(UNSAFE);
        name.is_some_and(|name| BROKERS_OWN.contains(&first_segment(name)))
    }

    /// The prefixes that cover this topic, longest first: `a/b/`, `a/` and the root for `a/b/c`.
    ///
    /// The root of the safe topics is the empty string, that of the unsafe ones `/unsafe/`.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        let root = if self.is_unsafe() { UNSAFE.len() } else { 0 };
        let ends = self.0.bytes().enumerate().skip(root).rev();
        ends.filter(|(_, byte)| *byte == b'/')
            .map(|(at, _)| &self.0[..=at])
            .chain(std::iter::once(&self.0[..root]))
    }

    /// Wraps text whose every rule was checked on the way here.
    pub(crate) fn from_checked(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Why a text does not name a topic. Safe to send to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// Two slashes in a row, a leading or trailing slash, or nothing at all.
    #[error("a topic must not have an empty segment")]
    EmptySegment,
    /// A `.` or `..` segment.
    #[error("a topic must not have a \".\" or \"..\" segment")]
    DotSegment,
    /// NUL, a line break or another control character.
    #[error("a topic must not have control characters")]
    Control,
    /// A segment ends as a path does that old clients ask for everything below with.
    #[error("a segment must not end in \"{RECURSIVE}\"")]
    Recursive,
    /// The first segment is one of the server's own.
    #[error("a topic must not begin with a segment that the server keeps for itself")]
    Reserved,
    /// Longer than a path may be.
    #[error("a topic must not be longer than {} bytes", Path::MAX_BYTES)]
    TooLong,
    /// Deeper than a path may be.
    #[error("a topic must not have more than {} segments", Path::MAX_SEGMENTS)]
    TooManySegments,
}

/// Checks that the path to `name`, a topic or a prefix below `path`, is one a request may have.
pub(crate) fn check_size(path: &str, name: &str) -> Result<(), TopicError> {
    if path.len() + name.len() > Path::MAX_BYTES {
        return Err(TopicError::TooLong);
    }
    let name = name.strip_suffix('/').unwrap_or(name);
    if path.matches('/').count() + name.matches('/').count() > Path::MAX_SEGMENTS {
        return Err(TopicError::TooManySegments);
    }
    Ok(())
}

/// Checks one segment of a topic or of a path, already decoded.
pub(crate) fn check_segment(segment: &str) -> Result<(), TopicError> {
    match segment {
        "" => Err(TopicError::EmptySegment),
        "." | ".." => Err(TopicError::DotSegment),
        _ if segment.chars().any(char::is_control) => Err(TopicError::Control),
        _ if segment.ends_with(RECURSIVE) => Err(TopicError::Recursive),
        _ => Ok(()),
    }
}

/// Checks that `name`, a topic without its `/unsafe/`, does not begin with a reserved segment.
///
/// A token for `/pub/x` also opens what a token for the bare path `/pub/x` opens; were `pub/x` a
/// topic, that would be `/sub/pub/x`. Below `/unsafe/`, what the broker itself publishes is a topic
/// like any.
pub(crate) fn check_first(name: &str, is_unsafe: bool) -> Result<(), TopicError> {
    let first = first_segment(name);
    let is_brokers_own = is_unsafe && BROKERS_OWN.contains(&first);
    if RESERVED.contains(&first) && !is_brokers_own {
        return Err(TopicError::Reserved);
    }
    Ok(())
}

/// What is before the first slash.
pub(crate) fn first_segment(name: &str) -> &str {
    name.split_once('/').map_or(name, |(first, _)| first)
}

/// How old clients, in the path itself, ask for everything below it.
pub(crate) const RECURSIVE: &str = "?recursive";

/// What every unsafe topic begins with.
pub(crate) const UNSAFE: &str = "/unsafe/";

/// First segments that lead to something other than a topic, now or in a planned version.
pub(crate) const RESERVED: [&str; 17] = [
    "pub",
    "sub",
    "unsafe",
    "call",
    "answer",
    "smee",
    "new",
    "ws",
    "webhook",
    "internal",
    "traefik-config",
    "ui",
    "status",
    "healthz",
    "readyz",
    "version",
    "metrics",
];

/// First segments below `/unsafe/` that only the broker itself publishes to.
pub(crate) const BROKERS_OWN: [&str; 3] = ["smee", "quarantine", "parked"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_run_from_the_parent_to_the_root_of_the_space() {
        let ancestors = |text: &str| -> Vec<String> {
            let topic = Topic::parse(text).unwrap();
            topic.ancestors().map(str::to_owned).collect()
        };
        assert_eq!(ancestors("a"), [""]);
        assert_eq!(ancestors("a/b/c"), ["a/b/", "a/", ""]);
        assert_eq!(ancestors("/unsafe/a"), ["/unsafe/"]);
        assert_eq!(ancestors("/unsafe/a/b"), ["/unsafe/a/", "/unsafe/"]);
    }

    #[test]
    fn text_that_breaks_a_rule_is_refused_by_that_rule() {
        let long = "x".repeat(Path::MAX_BYTES);
        let deep = ["x"; Path::MAX_SEGMENTS].join("/");
        for (text, error) in [
            ("", TopicError::EmptySegment),
            ("/a", TopicError::EmptySegment),
            ("a/", TopicError::EmptySegment),
            ("a//b", TopicError::EmptySegment),
            ("/unsafe/", TopicError::EmptySegment),
            ("a/./b", TopicError::DotSegment),
            ("..", TopicError::DotSegment),
            ("a\0b", TopicError::Control),
            ("a\nb", TopicError::Control),
            ("a\u{85}b", TopicError::Control),
            ("a?recursive/b", TopicError::Recursive),
            ("pub/a", TopicError::Reserved),
            ("unsafe/a", TopicError::Reserved),
            ("metrics", TopicError::Reserved),
            ("/unsafe/sub/a", TopicError::Reserved),
            ("smee/a", TopicError::Reserved),
            (&long, TopicError::TooLong),
            (&deep, TopicError::TooManySegments),
        ] {
            assert_eq!(Topic::parse(text), Err(error), "{text:?}");
        }
        for text in [
            "a",
            "a/b",
            "smeed",
            "parked/a",
            "ü/日本",
            "a b",
            "%2F",
            "/unsafe/a",
            "/unsafe/parked/a",
            "/unsafe/smee/a",
        ] {
            assert_eq!(Topic::parse(text).unwrap().as_str(), text);
        }
    }
}

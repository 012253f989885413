//! A request's path, parsed once, and the path a token is made for.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::call::Call;
use crate::filter::Filter;
use crate::topic::{
    BROKERS_OWN, RECURSIVE, RESERVED, Topic, TopicError, UNSAFE, check_first, check_segment,
    check_size, first_segment,
};

/// A request's path: decoded, checked, and sorted by what it leads to.
///
/// Every accepted spelling of a path gives the same value, and everything that looks at a path
/// (endpoint, token, log) looks at this value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    text: String,
    endpoint: Endpoint,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `/pub/…` and `/unsafe/pub/…`.
    Publish(Topic),
    /// `/sub/…` and `/unsafe/sub/…`.
    Subscribe(Filter),
    /// A path with neither, which is both: published to by `POST`, subscribed to by `GET`.
    Combined(Filter),
    /// `/call/…` and `/unsafe/call/…`.
    Call(Call),
    /// `/answer/…` and `/unsafe/answer/…`: a topic, or a prefix that means the same.
    Answer(Filter),
    /// One of the server's own paths, such as `/status`; whether it exists, the server knows.
    Other,
}

impl Path {
    /// The longest path, decoded, in bytes.
    pub const MAX_BYTES: usize = 1_024;

    /// The deepest path.
    pub const MAX_SEGMENTS: usize = 32;

    /// Parses the path of a request line, percent-encoded, without query and fragment.
    ///
    /// # Errors
    ///
    /// Says which rule the path breaks. The message is safe to send to the client.
    pub fn parse(raw: &str) -> Result<Self, PathError> {
        if let Some((start, is_unsafe)) = call_at(raw) {
            let (text, call) = Call::parse(raw, start, is_unsafe)?;
            let endpoint = Endpoint::Call(call);
            return Ok(Self { text, endpoint });
        }
        let text = decode(raw)?;
        let endpoint = classify(&text)?;
        Ok(Self { text, endpoint })
    }

    /// The decoded path: what a token for exactly this path is made for. Of a call, what is behind
    /// the topic is as it was sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What the path leads to.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether the path is below `/unsafe/`.
    #[must_use]
    pub fn is_unsafe(&self) -> bool {
        self.text.starts_with(UNSAFE)
    }

    /// The paths whose tokens open this one: itself, each ancestor that ends in `/`, and the same
    /// without `/pub` or `/sub`.
    pub fn granting(&self) -> impl Iterator<Item = &str> {
        let bare = match self.endpoint {
            Endpoint::Publish(_) | Endpoint::Subscribe(_) if !self.is_unsafe() => {
                Some(&self.text["/pub".len()..])
            }
            _ => None,
        };
        // The root would come twice.
        let bare = bare
            .into_iter()
            .flat_map(and_ancestors)
            .filter(|text| *text != "/");
        and_ancestors(&self.text).chain(bare)
    }
}

/// The path a token is made for: any that a request may have, or a prefix of it ending in `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope(String);

impl Scope {
    /// Parses the path of a URL, percent-encoded, without query and fragment.
    ///
    /// # Errors
    ///
    /// As [`Path::parse`], but for a prefix of topics to publish to or to call, which is a fine
    /// scope.
    pub fn parse(raw: &str) -> Result<Self, PathError> {
        match Path::parse(raw) {
            Ok(path) => Ok(Self(path.text)),
            Err(PathError::PublishToPrefix | PathError::CallWithoutTopic) => Ok(Self(decode(raw)?)),
            Err(error) => Err(error),
        }
    }

    /// The path that a topic is published to.
    #[must_use]
    pub fn publishing(topic: &Topic) -> Self {
        Self(match topic.as_str().strip_prefix(UNSAFE) {
            Some(name) => format!("{UNSAFE}pub/{name}"),
            None => format!("/pub/{topic}"),
        })
    }

    /// The decoded path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path as it is written in a URL.
    #[must_use]
    pub fn encoded(&self) -> String {
        // What a call has behind its topic is written as it is, behind one slash of the two.
        let (own, rest) = match self.0.find("//") {
            Some(at) => (&self.0[..=at], &self.0[at + 2..]),
            None => (self.as_str(), ""),
        };
        let own = percent_encode(own.as_bytes(), NOT_IN_A_PATH);
        format!("{own}{rest}")
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a path leads nowhere. Safe to send to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Something like `*` or `example.com:443`.
    #[error("a path must begin with a slash")]
    NotAbsolute,
    /// A percent sign without two hexadecimal digits.
    #[error("a percent sign must be followed by two hexadecimal digits")]
    BadEncoding,
    /// `%2F`, which would be a slash to one reader and not to another.
    #[error("a path must not have an encoded slash")]
    EncodedSlash,
    /// Decoded, it is not UTF-8.
    #[error("a path must be UTF-8")]
    NotUtf8,
    /// More than [`Path::MAX_BYTES`].
    #[error("a path must not be longer than {} bytes", Path::MAX_BYTES)]
    TooLong,
    /// More than [`Path::MAX_SEGMENTS`].
    #[error("a path must not have more than {} segments", Path::MAX_SEGMENTS)]
    TooManySegments,
    /// The part of it that names a topic breaks a rule.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// Publishing to a path that ends in a slash.
    #[error("a message is published to one topic, so the path must not end in a slash")]
    PublishToPrefix,
    /// Calling nobody.
    #[error("a call is to a topic, which has to follow /call/")]
    CallWithoutTopic,
}

/// What is written as it is in the path of a URL: the unreserved characters and a few of the
/// reserved ones (RFC 3986, section 3.3), the same that the Go program leaves alone.
const NOT_IN_A_PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// Decodes a raw path, exactly once, and checks what holds for every path.
fn decode(raw: &str) -> Result<String, PathError> {
    if !raw.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    let slashes = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'/').count();
    let bytes = unescape(raw)?;
    if slashes(&bytes) > slashes(raw.as_bytes()) {
        return Err(PathError::EncodedSlash);
    }
    let mut text = String::from_utf8(bytes).map_err(|_| PathError::NotUtf8)?;
    if let Some(path) = text.strip_suffix(RECURSIVE) {
        text.truncate(path.len());
        if !text.ends_with('/') {
            text.push('/');
        }
    }
    if text.len() > Path::MAX_BYTES {
        return Err(PathError::TooLong);
    }
    let inner = &text[1..];
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if inner.split('/').count() > Path::MAX_SEGMENTS {
        return Err(PathError::TooManySegments);
    }
    if text != "/" {
        inner.split('/').try_for_each(check_segment)?;
    }
    Ok(text)
}

/// Percent-decodes, once.
pub(crate) fn unescape(raw: &str) -> Result<Vec<u8>, PathError> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => match (rest.next().and_then(nibble), rest.next().and_then(nibble)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(PathError::BadEncoding),
            },
            byte => byte,
        });
    }
    Ok(bytes)
}

/// Whether a raw path is a call's; where what is called begins, and whether anybody may call it.
fn call_at(raw: &str) -> Option<(usize, bool)> {
    let is = |segment: &str, word: &str| {
        segment == word || unescape(segment).is_ok_and(|own| own == word.as_bytes())
    };
    let (first, behind) = raw.strip_prefix('/')?.split_once('/')?;
    if is(first, "call") {
        return Some((1 + first.len(), false));
    }
    let (second, _) = behind.split_once('/').filter(|_| is(first, "unsafe"))?;
    is(second, "call").then_some((2 + first.len() + second.len(), true))
}

/// Finds out where a decoded path leads.
fn classify(text: &str) -> Result<Endpoint, PathError> {
    let (is_unsafe, rest) = match text.strip_prefix(UNSAFE) {
        Some(rest) => (true, rest),
        None => (false, &text[1..]),
    };
    match rest.split_once('/') {
        Some(("pub", name)) => {
            check_first(name, is_unsafe)?;
            if is_unsafe && BROKERS_OWN.contains(&first_segment(name)) {
                return Err(TopicError::Reserved.into());
            }
            match filter(name, is_unsafe) {
                Filter::Topic(topic) => Ok(Endpoint::Publish(topic)),
                Filter::Prefix(_) => Err(PathError::PublishToPrefix),
            }
        }
        Some(("sub", name)) => {
            check_first(name, is_unsafe)?;
            Ok(Endpoint::Subscribe(filter(name, is_unsafe)))
        }
        Some(("answer", name)) => {
            check_first(name, false)?;
            Ok(Endpoint::Answer(filter(name, is_unsafe)))
        }
        _ if is_unsafe || RESERVED.contains(&first_segment(rest)) => Ok(Endpoint::Other),
        _ => {
            // Whatever can be published to can also be named with its verb.
            check_size("/pub/", rest)?;
            Ok(Endpoint::Combined(filter(rest, false)))
        }
    }
}

/// The filter for a name whose segments are checked; one that ends in a slash is a prefix.
fn filter(name: &str, is_unsafe: bool) -> Filter {
    let space = if is_unsafe { UNSAFE } else { "" };
    let text = [space, name].concat();
    if name.is_empty() || name.ends_with('/') {
        Filter::prefix(&text)
    } else {
        Filter::Topic(Topic::from_checked(&text))
    }
}

/// `path`, then each of its proper prefixes that end in `/`, longest first.
fn and_ancestors(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.bytes().enumerate().rev().skip(1);
    let ancestors = ends.filter(|(_, byte)| *byte == b'/');
    std::iter::once(path).chain(ancestors.map(|(at, _)| &path[..=at]))
}

/// The value of a hexadecimal digit.
fn nibble(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| value.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn granting(raw: &str) -> Vec<String> {
        let path = Path::parse(raw).unwrap();
        path.granting().map(str::to_owned).collect()
    }

    #[test]
    fn a_path_that_breaks_a_rule_is_refused_by_that_rule() {
        let long = format!("/pub/{}", "x".repeat(Path::MAX_BYTES));
        let deep = format!("/sub{}", "/x".repeat(Path::MAX_SEGMENTS));
        let deep_bare = "/x".repeat(Path::MAX_SEGMENTS);
        let topic = |error| Err(PathError::Topic(error));
        for (raw, error) in [
            ("", Err(PathError::NotAbsolute)),
            ("*", Err(PathError::NotAbsolute)),
            ("pub/a", Err(PathError::NotAbsolute)),
            ("/pub/%", Err(PathError::BadEncoding)),
            ("/pub/%4", Err(PathError::BadEncoding)),
            ("/pub/%zz", Err(PathError::BadEncoding)),
            ("/pub/%+1", Err(PathError::BadEncoding)),
            ("/pub/a%2Fb", Err(PathError::EncodedSlash)),
            ("/pub/a%2fb", Err(PathError::EncodedSlash)),
            ("/pub%2Fa", Err(PathError::EncodedSlash)),
            ("/pub/%ff", Err(PathError::NotUtf8)),
            ("/pub/%c0%af", Err(PathError::NotUtf8)),
            ("/pub/%ed%a0%80", Err(PathError::NotUtf8)),
            (&long, Err(PathError::TooLong)),
            (&deep, Err(PathError::TooManySegments)),
            (&deep_bare, topic(TopicError::TooManySegments)),
            ("//", topic(TopicError::EmptySegment)),
            ("//pub/a", topic(TopicError::EmptySegment)),
            ("/pub//a", topic(TopicError::EmptySegment)),
            ("/sub/a//", topic(TopicError::EmptySegment)),
            ("/pub/../a", topic(TopicError::DotSegment)),
            ("/pub/a/.", topic(TopicError::DotSegment)),
            ("/pub/%2e%2E/a", topic(TopicError::DotSegment)),
            ("/pub/a%00", topic(TopicError::Control)),
            ("/pub/a%0d%0ab", topic(TopicError::Control)),
            ("/pub/%7f", topic(TopicError::Control)),
            ("/pub/%c2%85", topic(TopicError::Control)),
            ("/pub/pub/a", topic(TopicError::Reserved)),
            ("/sub/pub/a", topic(TopicError::Reserved)),
            ("/sub/metrics", topic(TopicError::Reserved)),
            ("/answer/pub/a", topic(TopicError::Reserved)),
            ("/unsafe/pub/smee/a", topic(TopicError::Reserved)),
            ("/unsafe/pub/parked", topic(TopicError::Reserved)),
            ("/pub/", Err(PathError::PublishToPrefix)),
            ("/pub/a/", Err(PathError::PublishToPrefix)),
            ("/pub/a%3Frecursive", Err(PathError::PublishToPrefix)),
        ] {
            assert_eq!(Path::parse(raw), error, "{raw:?}");
        }
    }

    #[test]
    fn a_path_leads_where_its_first_segments_say() {
        let publish = |topic| Endpoint::Publish(Topic::parse(topic).unwrap());
        let subscribe = |filter| Endpoint::Subscribe(Filter::parse(filter).unwrap());
        let combined = |filter| Endpoint::Combined(Filter::parse(filter).unwrap());
        for (raw, endpoint) in [
            ("/pub/a", publish("a")),
            ("/pub/a/b", publish("a/b")),
            ("/%70ub/%61", publish("a")),
            ("/pub/%252F", publish("%2F")),
            ("/pub/a;x=1", publish("a;x=1")),
            ("/pub/ü", publish("ü")),
            ("/pub/%c3%bc", publish("ü")),
            ("/unsafe/pub/a", publish("/unsafe/a")),
            ("/sub/a", subscribe("a")),
            ("/sub/a/", subscribe("a/")),
            ("/sub/", subscribe("/")),
            ("/sub/a%3Frecursive", subscribe("a/")),
            ("/sub/a/%3Frecursive", subscribe("a/")),
            ("/unsafe/sub/", subscribe("/unsafe/")),
            ("/unsafe/sub/parked/", subscribe("/unsafe/parked/")),
            ("/unsafe/sub/smee/a", subscribe("/unsafe/smee/a")),
            ("/unsafe/sub/smee/", subscribe("/unsafe/smee/")),
            ("/a/b", combined("a/b")),
            ("/a/", combined("a/")),
            ("/", combined("/")),
            ("/status", Endpoint::Other),
            ("/pub", Endpoint::Other),
            ("/unsafe", Endpoint::Other),
            ("/unsafe/a", Endpoint::Other),
            ("/unsafe/", Endpoint::Other),
            ("/call", Endpoint::Other),
            ("/answer", Endpoint::Other),
            ("/answer/a", Endpoint::Answer(Filter::parse("a").unwrap())),
            ("/answer/a/", Endpoint::Answer(Filter::parse("a/").unwrap())),
            ("/answer/", Endpoint::Answer(Filter::parse("/").unwrap())),
            (
                "/unsafe/answer/a",
                Endpoint::Answer(Filter::parse("/unsafe/a").unwrap()),
            ),
        ] {
            let path = Path::parse(raw).unwrap();
            assert_eq!(path.endpoint(), &endpoint, "{raw:?}");
        }
    }

    #[test]
    fn a_path_is_opened_from_above_and_without_its_verb() {
        assert_eq!(
            granting("/sub/a/b"),
            ["/sub/a/b", "/sub/a/", "/sub/", "/", "/a/b", "/a/"]
        );
        assert_eq!(granting("/sub/a/"), ["/sub/a/", "/sub/", "/", "/a/"]);
        assert_eq!(granting("/sub/"), ["/sub/", "/"]);
        assert_eq!(granting("/a/b"), ["/a/b", "/a/", "/"]);
        assert_eq!(granting("/"), ["/"]);
        assert_eq!(
            granting("/unsafe/sub/a"),
            ["/unsafe/sub/a", "/unsafe/sub/", "/unsafe/", "/"]
        );
        assert_eq!(granting("/metrics"), ["/metrics", "/"]);
        assert_eq!(
            granting("/call/a//b%2Fc"),
            [
                "/call/a///b%2Fc",
                "/call/a///",
                "/call/a//",
                "/call/a/",
                "/call/",
                "/"
            ]
        );
        assert_eq!(granting("/answer/a"), ["/answer/a", "/answer/", "/"]);
        assert_eq!(granting("/pub/ü"), ["/pub/ü", "/pub/", "/", "/ü"]);
    }

    #[test]
    fn a_scope_is_written_so_that_it_reads_back() {
        for text in [
            "/",
            "/pub/ü(1)+2",
            "/sub/100%/a b/",
            "/pub/a?b#c",
            "/call/",
            "/call/a b/",
            "/call/a b//c%2Fd%20",
            "/call/a///",
        ] {
            let scope = Scope(text.to_owned());
            assert_eq!(Scope::parse(&scope.encoded()), Ok(scope));
        }
        let publishing = |topic| Scope::publishing(&Topic::parse(topic).unwrap()).0;
        assert_eq!(publishing("a/b"), "/pub/a/b");
        assert_eq!(publishing("/unsafe/a"), "/unsafe/pub/a");
    }

    #[test]
    fn a_scope_may_be_a_prefix_to_publish_below() {
        assert_eq!(Scope::parse("/pub/a/").unwrap().as_str(), "/pub/a/");
        assert_eq!(Scope::parse("/").unwrap().as_str(), "/");
        assert!(Scope::parse("/pub/sub/").is_err());
        assert!(Scope::parse("a").is_err());
    }

    /// Any spelling of `text`: each byte as it is, or in one of the two percent-encoded cases.
    fn spelling(text: &str, choices: &[u8]) -> String {
        let mut bytes = Vec::new();
        for (at, byte) in text.bytes().enumerate() {
            match choices[at % choices.len()] % 3 {
                _ if byte == b'/' => bytes.push(byte),
                0 if byte != b'%' && byte != b'?' => bytes.push(byte),
                1 => bytes.extend(format!("%{byte:02x}").bytes()),
                _ => bytes.extend(format!("%{byte:02X}").bytes()),
            }
        }
        // A character of several bytes may be half encoded; such a text can't be a `str`.
        String::from_utf8(bytes).unwrap_or_else(|_| text.replace('%', "%25").replace('?', "%3F"))
    }

    proptest! {
        #[test]
        fn every_accepted_spelling_gives_one_value(
            text in "(/unsafe)?/(pub|sub|answer)?/?[a-b%?ü./ ]{0,8}",
            choices in prop::collection::vec(0u8..3, 1..9),
        ) {
            let plain = text.replace('%', "%25").replace('?', "%3F");
            prop_assert_eq!(Path::parse(&plain), Path::parse(&spelling(&text, &choices)));
        }

        #[test]
        fn an_accepted_path_is_its_own_decoded_form(raw in "/[a-b%2F5.ü?/]{0,12}") {
            if let Ok(path) = Path::parse(&raw) {
                let again = path.as_str().replace('%', "%25").replace('?', "%3F");
                prop_assert_eq!(Path::parse(&again), Ok(path));
            }
        }

        #[test]
        fn no_input_panics(raw in "/(pub/|sub/|call/|unsafe/call/)?.{0,20}") {
            let _ = Scope::parse(&raw);
            if let Ok(path) = Path::parse(&raw) {
                path.granting().for_each(drop);
            }
        }
    }
}

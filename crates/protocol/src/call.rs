//! The path of a call: in front what names the topic, behind it what only the target understands.

use crate::path::{PathError, unescape};
use crate::topic::first_segment;
use crate::topic::{
    BROKERS_OWN, Topic, TopicError, UNSAFE, check_first, check_segment, check_size,
};

/// Where a call goes: `/call/<topic>`, and perhaps more behind it.
///
/// How much of it is the topic depends on who is connected to answer: the responder at the longest
/// prefix does. So segments count as the topic's as long as a topic can have them. From the first
/// one on that no topic has, such as an empty one or one with an encoded slash, the path is the
/// target's own and stays as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    topic: Topic,
    /// The path as it was sent.
    raw: Box<str>,
    /// Where segments end, in the topic and in the path; first of all where none has begun.
    ends: Vec<(usize, usize)>,
}

impl Call {
    /// Parses a path that begins, up to `start`, with `/call` or `/unsafe/call` in some spelling,
    /// and gives the text that its token is made for as well.
    ///
    /// In that text the topic is decoded, and what is the target's own follows behind two slashes,
    /// which no topic has: so no two calls to different places have the same text.
    pub(crate) fn parse(
        raw: &str,
        start: usize,
        is_unsafe: bool,
    ) -> Result<(String, Self), PathError> {
        let space = if is_unsafe { UNSAFE } else { "" };
        let root = if is_unsafe { "/unsafe/call/" } else { "/call/" };
        let rest = &raw[start..];
        rest.split('/').try_for_each(check_passing)?;

        let mut topic = space.to_owned();
        let mut ends = vec![(space.trim_end_matches('/').len(), start)];
        let mut flaw = PathError::CallWithoutTopic;
        for segment in rest.split('/').skip(1) {
            let before = &topic[space.len()..];
            match topic_segment(segment, root, before) {
                Ok(segment) => {
                    if !before.is_empty() {
                        topic.push('/');
                    }
                    topic.push_str(&segment);
                }
                Err(error) => {
                    flaw = error;
                    break;
                }
            }
            let (_, end) = ends[ends.len() - 1];
            ends.push((topic.len(), end + 1 + segment.len()));
        }
        let name = &topic[space.len()..];
        if name.is_empty() {
            let is_bare = rest == "/";
            return Err(if is_bare {
                PathError::CallWithoutTopic
            } else {
                flaw
            });
        }
        check_first(name, false)?;
        if is_unsafe && BROKERS_OWN.contains(&first_segment(name)) {
            return Err(TopicError::Reserved.into());
        }
        let (_, end) = ends[ends.len() - 1];
        let text = match &raw[end..] {
            own @ ("" | "/") => format!("{root}{name}{own}"),
            own => format!("{root}{name}/{own}"),
        };
        let call = Self {
            topic: Topic::from_checked(&topic),
            raw: raw.into(),
            ends,
        };
        Ok((text, call))
    }

    /// The topic, if the path is one and nothing else.
    #[must_use]
    pub fn topic(&self) -> Option<&Topic> {
        let (_, end) = self.ends[self.ends.len() - 1];
        (end == self.raw.len()).then_some(&self.topic)
    }

    /// What a responder may be connected for to answer this, longest first, each with the rest of
    /// the path as it was sent: for `/call/a/b%20c//d` it is `a/b c` with `//d`, then `a` with
    /// `/b%20c//d`, and last nothing at all (or `/unsafe`) with `/a/b%20c//d`.
    pub fn candidates(&self) -> impl Iterator<Item = (&str, &str)> {
        let ends = self.ends.iter().rev();
        ends.map(|(topic, path)| (&self.topic.as_str()[..*topic], &self.raw[*path..]))
    }
}

/// A segment decoded, if a topic can have it behind what is `before`.
fn topic_segment(raw: &str, root: &str, before: &str) -> Result<String, PathError> {
    let bytes = unescape(raw)?;
    if bytes.contains(&b'/') {
        return Err(PathError::EncodedSlash);
    }
    let text = String::from_utf8(bytes).map_err(|_| PathError::NotUtf8)?;
    check_segment(&text)?;
    check_size(root, &[before, &text].join("/"))?;
    Ok(text)
}

/// Checks that a segment is no step up or to nowhere, however that is written, also where it is
/// the target's own: targets differ in what they make of it, and a token is for one place.
fn check_passing(raw: &str) -> Result<(), PathError> {
    let bytes = unescape(raw)?;
    let mut pieces = bytes.split(|byte| matches!(byte, b'/' | b'\\'));
    if pieces.any(|piece| matches!(piece, b"." | b"..")) {
        return Err(TopicError::DotSegment.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::{Endpoint, Path};
    use proptest::prelude::*;

    fn call(raw: &str) -> (Path, Call) {
        let path = Path::parse(raw).unwrap();
        let Endpoint::Call(call) = path.endpoint().clone() else {
            panic!("{raw} is no call");
        };
        (path, call)
    }

    fn candidates(raw: &str) -> Vec<(String, String)> {
        let (_, call) = call(raw);
        let owned = |(topic, rest): (&str, &str)| (topic.to_owned(), rest.to_owned());
        call.candidates().map(owned).collect()
    }

    #[test]
    fn a_call_may_be_answered_at_every_prefix_of_its_topic() {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            let owned = |(topic, rest): &(&str, &str)| ((*topic).to_owned(), (*rest).to_owned());
            pairs.iter().map(owned).collect()
        };
        for (raw, expected) in [
            ("/call/a", &[("a", ""), ("", "/a")][..]),
            ("/%63all/%61", &[("a", ""), ("", "/%61")]),
            ("/call/a/", &[("a", "/"), ("", "/a/")]),
            (
                "/call/a/b%20c//d",
                &[("a/b c", "//d"), ("a", "/b%20c//d"), ("", "/a/b%20c//d")],
            ),
            ("/call/a/b%2Fc", &[("a", "/b%2Fc"), ("", "/a/b%2Fc")]),
            ("/call/a/%ff/b", &[("a", "/%ff/b"), ("", "/a/%ff/b")]),
            (
                "/unsafe/call/a/b",
                &[
                    ("/unsafe/a/b", ""),
                    ("/unsafe/a", "/b"),
                    ("/unsafe", "/a/b"),
                ],
            ),
        ] {
            assert_eq!(candidates(raw), pairs(expected), "{raw}");
        }
    }

    #[test]
    fn a_token_is_for_the_decoded_topic_and_for_the_rest_as_it_was_sent() {
        for (raw, text) in [
            ("/call/a", "/call/a"),
            ("/call/%61/", "/call/a/"),
            ("/call/a/b%2Fc", "/call/a//b%2Fc"),
            ("/call/a/b%252Fc", "/call/a/b%2Fc"),
            ("/call/a//b", "/call/a///b"),
            ("/call/a//b%2Fc", "/call/a///b%2Fc"),
            ("/call/a//", "/call/a///"),
            ("/unsafe/call/a/%00", "/unsafe/call/a//%00"),
        ] {
            assert_eq!(call(raw).0.as_str(), text, "{raw}");
        }
    }

    #[test]
    fn only_a_path_that_is_a_topic_has_one() {
        let topic = |raw| call(raw).1.topic().map(ToString::to_string);
        assert_eq!(topic("/call/a/b").as_deref(), Some("a/b"));
        assert_eq!(topic("/unsafe/call/%61").as_deref(), Some("/unsafe/a"));
        for raw in ["/call/a/", "/call/a//b", "/call/a/b%2Fc"] {
            assert_eq!(topic(raw), None, "{raw}");
        }
    }

    #[test]
    fn a_call_to_no_topic_or_with_a_dot_segment_is_refused() {
        let topic = PathError::Topic;
        for (raw, error) in [
            ("/call/", PathError::CallWithoutTopic),
            ("/call//a", topic(TopicError::EmptySegment)),
            ("/call/a%2Fb", PathError::EncodedSlash),
            ("/call/%ff", PathError::NotUtf8),
            ("/call/a/%zz", PathError::BadEncoding),
            ("/call/a//%z", PathError::BadEncoding),
            ("/call/pub/a", topic(TopicError::Reserved)),
            ("/call/unsafe/a", topic(TopicError::Reserved)),
            ("/unsafe/call/parked/a", topic(TopicError::Reserved)),
            ("/call/a/..", topic(TopicError::DotSegment)),
            ("/call/a/./b", topic(TopicError::DotSegment)),
            ("/call/a//%2e%2E/b", topic(TopicError::DotSegment)),
            ("/call/a/x%2F..%2Fb", topic(TopicError::DotSegment)),
            ("/call/a/..%5cb", topic(TopicError::DotSegment)),
            ("/call/../a", topic(TopicError::DotSegment)),
        ] {
            assert_eq!(Path::parse(raw), Err(error), "{raw}");
        }
        assert_eq!(*Path::parse("/call").unwrap().endpoint(), Endpoint::Other);
    }

    #[test]
    fn a_long_or_deep_path_is_the_targets_own_where_no_topic_goes_so_far() {
        let deep = format!("/call/a{}", "/x".repeat(100));
        let (path, call) = call(&deep);
        assert_eq!(call.topic(), None);
        let (topic, rest) = call.candidates().next().unwrap();
        assert_eq!(topic.split('/').count(), Path::MAX_SEGMENTS - 1);
        assert_eq!(format!("/call/{topic}{rest}"), deep);
        assert!(path.as_str().contains("//x/"));
    }

    proptest! {
        /// What would let a token for one place open another.
        #[test]
        fn no_two_places_have_the_same_text(
            a in "/call/[ab%2F5/.~]{1,10}",
            b in "/call/[ab%2F5/.~]{1,10}",
        ) {
            if let (Ok(one), Ok(other)) = (Path::parse(&a), Path::parse(&b))
                && one.as_str() == other.as_str()
            {
                prop_assert_eq!(place(&a), place(&b));
            }
        }

        #[test]
        fn topic_and_rest_are_the_path(raw in "/(unsafe/)?call/[ab%2F5/.~ü]{1,12}") {
            if let Ok(path) = Path::parse(&raw)
                && let Endpoint::Call(call) = path.endpoint()
            {
                for (topic, rest) in call.candidates() {
                    let own = raw.strip_suffix(rest).map(unescape);
                    let own = String::from_utf8(own.unwrap().unwrap()).unwrap();
                    let name = topic.strip_prefix("/unsafe").unwrap_or(topic);
                    let name = name.trim_start_matches('/');
                    let behind = own.split_once("/call").map(|(_, behind)| behind);
                    prop_assert_eq!(behind.map(|own| own.trim_start_matches('/')), Some(name));
                }
            }
        }
    }

    /// A path with everything decoded that no reader could take for a separator.
    fn place(raw: &str) -> String {
        let mut place = String::new();
        let mut is_own = false;
        for segment in raw.split('/').skip(2) {
            let decoded = unescape(segment).unwrap();
            is_own |= decoded.is_empty() || decoded.contains(&b'/');
            place.push('/');
            place += &if is_own {
                segment.to_owned()
            } else {
                String::from_utf8(decoded).unwrap().replace('%', "%25")
            };
        }
        place
    }
}

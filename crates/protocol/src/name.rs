//! What a token is called.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of a token, by which logs and counters tell who uses it. It is no secret.
///
/// It is part of what is signed, has nothing that would have to be escaped in a URL, a log or a
/// label, and is shorter than any token, so that neither is taken for the other.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 32;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if text.is_empty() || text.len() > Self::MAX_BYTES || !text.bytes().all(is_plain) {
            return Err(NameError);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// The text can't be a token's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to {} letters, digits, \"-\" and \"_\"", Name::MAX_BYTES)]
pub struct NameError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_needs_no_escaping_anywhere() {
        for text in ["a", "ci-2026_b", &"x".repeat(Name::MAX_BYTES)] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
        let long = "x".repeat(Name::MAX_BYTES + 1);
        for text in [
            "", "a.b", "a b", "a\n", "ü", "a:b", "a/b", "a@b", "\"", &long,
        ] {
            assert_eq!(text.parse::<Name>(), Err(NameError), "{text:?}");
        }
    }
}

//! Tokens that are no longer good, though their key is.

use std::collections::HashSet;
use std::str::FromStr;

use crate::fingerprint::Fingerprint;
use crate::name::Name;
use crate::token::Token;

/// The tokens that are revoked. It holds no token, only names and fingerprints.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DenyList {
    names: HashSet<Name>,
    tokens: HashSet<Fingerprint>,
}

/// One entry of a deny list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// Every token of this name, whatever its path.
    Name(Name),
    /// One token.
    Token(Fingerprint),
}

impl DenyList {
    /// Reads a list that has one entry a line. Empty lines and what follows a `#` do not count.
    ///
    /// # Errors
    ///
    /// Names the first line that is no entry.
    pub fn parse(text: &str) -> Result<Self, DenyListError> {
        let mut list = Self::default();
        for (number, line) in text.lines().enumerate() {
            let entry = line.split_once('#').map_or(line, |(entry, _)| entry).trim();
            if entry.is_empty() {
                continue;
            }
            let line = number + 1;
            list.insert(entry.parse().map_err(|_| DenyListError { line })?);
        }
        Ok(list)
    }

    /// Adds an entry.
    pub fn insert(&mut self, denied: Denied) {
        match denied {
            Denied::Name(name) => self.names.insert(name),
            Denied::Token(fingerprint) => self.tokens.insert(fingerprint),
        };
    }

    /// Whether this token is revoked.
    ///
    /// Looking a token up takes no constant time, and needs none: it is for tokens that have been
    /// verified, and what is compared is a hash.
    #[must_use]
    pub fn denies(&self, token: &Token) -> bool {
        let by_name = || token.name().is_some_and(|name| self.names.contains(name));
        let by_itself = || !self.tokens.is_empty() && self.tokens.contains(&token.fingerprint());
        by_name() || by_itself()
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len() + self.tokens.len()
    }

    /// Whether nothing is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Extend<Denied> for DenyList {
    fn extend<T: IntoIterator<Item = Denied>>(&mut self, entries: T) {
        entries.into_iter().for_each(|entry| self.insert(entry));
    }
}

impl FromStr for Denied {
    type Err = DeniedError;

    /// Reads a name, `sha256:` and a fingerprint, or a token, of which only the fingerprint is
    /// kept.
    fn from_str(text: &str) -> Result<Self, DeniedError> {
        if let Some(hash) = text.strip_prefix("sha256:") {
            return hash.parse().map(Self::Token).map_err(|_| DeniedError);
        }
        if let Ok(token) = text.parse::<Token>() {
            return Ok(Self::Token(token.fingerprint()));
        }
        text.parse().map(Self::Name).map_err(|_| DeniedError)
    }
}

/// The text revokes nothing. It is not shown, for it may be a token with a slip in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a token's name, a token, or sha256: and a token's SHA-256")]
pub struct DeniedError;

/// A line of a deny list revokes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {DeniedError}")]
pub struct DenyListError {
    /// Which one, counted from 1.
    pub line: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, Scope};

    #[test]
    fn a_token_is_denied_by_its_name_its_text_or_its_hash_and_others_are_not() {
        let key = Key::new(b"k").unwrap();
        let scope = Scope::parse("/sub/a").unwrap();
        let name = |text: &str| text.parse::<Name>().unwrap();
        let plain = key.mint(&scope);
        let (ada, bob) = (
            key.mint_named(&scope, &name("ada"), None),
            key.mint_named(&scope, &name("bob"), Some(9)),
        );
        for (list, denied) in [
            ("", [false, false, false]),
            ("# nobody\n\n", [false, false, false]),
            ("ada # left in May", [false, true, false]),
            ("bob\r\nada", [false, true, true]),
            (&plain.expose(), [true, false, false]),
            (&bob.expose(), [false, false, true]),
            (
                &format!("sha256:{}", plain.fingerprint()),
                [true, false, false],
            ),
        ] {
            let list = DenyList::parse(list).unwrap();
            assert_eq!([&plain, &ada, &bob].map(|token| list.denies(token)), denied);
        }
    }

    #[test]
    fn a_line_that_revokes_nothing_is_named_and_not_shown() {
        let slip = format!("ada\n\n{}!", "ab".repeat(32));
        let error = DenyList::parse(&slip).unwrap_err();
        assert_eq!(error.line, 3);
        assert!(!error.to_string().contains("abab"), "{error}");
        for line in ["sha256:ab", "two words", "a.b"] {
            assert!(DenyList::parse(line).is_err(), "{line}");
        }
    }
}

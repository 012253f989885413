//! Tokens and ids of channels that are no longer good, though their key is.

use std::collections::HashSet;
use std::str::FromStr;

use crate::fingerprint::Fingerprint;
use crate::name::Name;
use crate::token::Token;

/// The tokens and channels that are revoked. It holds none of them, only names and fingerprints.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DenyList {
    names: HashSet<Name>,
    fingerprints: HashSet<Fingerprint>,
}

/// One entry of a deny list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// Every token of this name, whatever its path.
    Name(Name),
    /// One token, or one channel.
    Fingerprint(Fingerprint),
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
            Denied::Fingerprint(fingerprint) => self.fingerprints.insert(fingerprint),
        };
    }

    /// Whether this token is revoked.
    ///
    /// Looking a token up takes no constant time, and needs none: it is for tokens that have been
    /// verified, and what is compared is a hash.
    #[must_use]
    pub fn denies(&self, token: &Token) -> bool {
        let by_name = || token.name().is_some_and(|name| self.names.contains(name));
        let by_itself =
            || !self.fingerprints.is_empty() && self.denies_fingerprint(&token.fingerprint());
        by_name() || by_itself()
    }

    /// Whether what has this fingerprint is revoked: a token by itself, or a channel.
    #[must_use]
    pub fn denies_fingerprint(&self, fingerprint: &Fingerprint) -> bool {
        self.fingerprints.contains(fingerprint)
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len() + self.fingerprints.len()
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

    /// Reads a name, `sha256:` and a fingerprint, or a token or the id of a channel, of which only
    /// the fingerprint is kept.
    fn from_str(text: &str) -> Result<Self, DeniedError> {
        if let Some(hash) = text.strip_prefix("sha256:") {
            return hash.parse().map(Self::Fingerprint).map_err(|_| DeniedError);
        }
        if let Ok(token) = text.parse::<Token>() {
            return Ok(Self::Fingerprint(token.fingerprint()));
        }
        if is_channel(text) {
            return Ok(Self::Fingerprint(Fingerprint::of(text)));
        }
        text.parse().map(Self::Name).map_err(|_| DeniedError)
    }
}

/// Whether a text looks like the id of a channel. By which key it was made is not looked at.
fn is_channel(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let encoded = text.strip_prefix(CHANNEL);
    encoded.is_some_and(|own| own.len() == CHANNEL_DIGITS && own.bytes().all(is_plain))
}

/// What the id of a channel begins with; a name is shorter than one.
const CHANNEL: &str = "hbc_";

/// How much base64 follows.
const CHANNEL_DIGITS: usize = 40;

/// The text revokes nothing. It is not shown, for it may be a token with a slip in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a token's name, a token, a channel's id, or sha256: and the SHA-256 of either")]
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
    fn a_channel_is_denied_by_its_id_or_its_hash_and_others_are_not() {
        let (id, other) = ("a-_9".repeat(10), "b".repeat(40));
        let [id, other] = [id, other].map(|text| format!("hbc_{text}"));
        let hash = format!("sha256:{}", Fingerprint::of(&id));
        for list in [&id, &hash] {
            let list = DenyList::parse(list).unwrap();
            assert!(list.denies_fingerprint(&Fingerprint::of(&id)));
            assert!(!list.denies_fingerprint(&Fingerprint::of(&other)));
        }
        for slip in [
            &id[1..],
            &id[..43],
            &format!("{id}a"),
            &format!("{}.", &id[..43]),
        ] {
            assert!(DenyList::parse(slip).is_err(), "{slip}");
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

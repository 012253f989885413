//! The server's secret, which mints tokens and verifies them.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::name::Name;
use crate::path::{Path, Scope};
use crate::token::{Kind, Token};

/// One secret, ready to sign with. It does not print.
#[derive(Clone)]
pub struct Key {
    sha256: Hmac<Sha256>,
    sha1: Hmac<Sha1>,
}

impl Key {
    /// Takes the secret's bytes as they are.
    ///
    /// # Errors
    ///
    /// When there are none: everybody knows that key.
    pub fn new(secret: &[u8]) -> Result<Self, EmptyKey> {
        if secret.is_empty() {
            return Err(EmptyKey);
        }
        Ok(Self {
            sha256: Hmac::new_from_slice(secret).map_err(|_| EmptyKey)?,
            sha1: Hmac::new_from_slice(secret).map_err(|_| EmptyKey)?,
        })
    }

    /// A token for `scope` that never expires.
    #[must_use]
    pub fn mint(&self, scope: &Scope) -> Token {
        Token(Kind::Plain(self.sha256(&[scope.as_str()])))
    }

    /// A token for `scope` that is good until `at`, in seconds since 1970.
    #[must_use]
    pub fn mint_expiring(&self, scope: &Scope, at: u64) -> Token {
        let mac = self.expiring(at, scope.as_str());
        Token(Kind::Expiring { at, mac })
    }

    /// A token for `scope` that tells in logs and counters who uses it, good until `at` if it is
    /// to end.
    #[must_use]
    pub fn mint_named(&self, scope: &Scope, name: &Name, at: Option<u64>) -> Token {
        let mac = self.named(name, at, scope.as_str());
        let name = name.clone();
        Token(Kind::Named { name, at, mac })
    }

    /// A token for `scope` as the Go program made them, for servers that still accept those.
    #[must_use]
    pub fn mint_sha1(&self, scope: &Scope) -> Token {
        Token(Kind::Sha1(self.sha1(scope.as_str())))
    }

    /// A key for one purpose other than tokens: what is made with it is of no use for another.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> DerivedKey {
        // A path begins with a slash and other kinds of tokens with other letters, so this is no
        // token. HMAC fills a key up with zeros (RFC 2104).
        let mut block = [0; 64];
        block[..32].copy_from_slice(&self.sha256(&["d1\n", purpose]));
        DerivedKey(Hmac::new(&block.into()))
    }

    /// Whether `token` is this key's for `path`, whose time has not been looked at yet.
    fn matches(&self, token: &Token, path: &str) -> Choice {
        match &token.0 {
            Kind::Plain(mac) => self.sha256(&[path]).ct_eq(mac),
            Kind::Expiring { at, mac } => self.expiring(*at, path).ct_eq(mac),
            Kind::Named { name, at, mac } => self.named(name, *at, path).ct_eq(mac),
            Kind::Sha1(mac) => self.sha1(path).ct_eq(mac),
        }
    }

    fn expiring(&self, at: u64, path: &str) -> [u8; 32] {
        // A path begins with a slash, so no plain token is ever also one of these.
        self.sha256(&["x1\n", &at.to_string(), "\n", path])
    }

    fn named(&self, name: &Name, at: Option<u64>, path: &str) -> [u8; 32] {
        // A name has no line feed and a path begins with a slash, so no two of these are alike.
        let at = at.map(|at| format!("{at}\n")).unwrap_or_default();
        self.sha256(&["n1\n", name.as_str(), "\n", &at, path])
    }

    fn sha256(&self, parts: &[&str]) -> [u8; 32] {
        let mut mac = self.sha256.clone();
        parts.iter().for_each(|part| mac.update(part.as_bytes()));
        mac.finalize().into_bytes().into()
    }

    fn sha1(&self, path: &str) -> [u8; 20] {
        let mut mac = self.sha1.clone();
        mac.update(path.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// A key that was derived from a [`Key`]. It does not print.
pub struct DerivedKey(Hmac<Sha256>);

impl DerivedKey {
    /// The HMAC-SHA256 of these bytes.
    #[must_use]
    pub fn mac(&self, bytes: &[u8]) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for DerivedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DerivedKey(..)")
    }
}

/// The keys a server verifies with: the current one, and those it is moving away from.
#[derive(Debug, Clone)]
pub struct Keys {
    current: Key,
    previous: Vec<Key>,
    accepts_sha1: bool,
}

impl Keys {
    /// Verifies with `current` alone, and refuses the Go program's tokens.
    #[must_use]
    pub fn new(current: Key) -> Self {
        Self {
            current,
            previous: Vec::new(),
            accepts_sha1: false,
        }
    }

    /// Verifies with these too.
    #[must_use]
    pub fn with_previous(mut self, previous: Vec<Key>) -> Self {
        self.previous = previous;
        self
    }

    /// Whether the Go program's HMAC-SHA1 tokens are good as well.
    #[must_use]
    pub fn accepting_sha1(mut self, accepts: bool) -> Self {
        self.accepts_sha1 = accepts;
        self
    }

    /// Whether both verify the same tokens, and in the same order of keys.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        // What each key makes of a text that is no path, and so no token.
        let prints = |keys: &Self| -> Vec<_> {
            keys.iter()
                .map(|key| key.sha256(&["which key is this"]))
                .collect()
        };
        self.accepts_sha1 == other.accepts_sha1 && prints(self) == prints(other)
    }

    /// The current key, then the previous ones in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.previous)
    }

    /// The key that mints.
    #[must_use]
    pub fn current(&self) -> &Key {
        &self.current
    }

    /// What `token` allows for `path` at `now`, in seconds since 1970; `None` when it opens
    /// something else, or nothing.
    ///
    /// Takes the same time whichever key or ancestor it was made with.
    #[must_use]
    pub fn grants(&self, path: &Path, token: &Token, now: u64) -> Option<Grant> {
        if matches!(token.0, Kind::Sha1(_)) && !self.accepts_sha1 {
            return None;
        }
        let (mut granted, mut which) = (Choice::from(0), 0);
        for (key, number) in self.iter().zip(0_u64..) {
            for scope in path.granting() {
                let matches = key.matches(token, scope);
                which.conditional_assign(&number, matches & !granted);
                granted |= matches;
            }
        }
        let expires = token.expires();
        let in_time = expires.is_none_or(|at| now < at);
        (bool::from(granted) && in_time).then_some(Grant {
            expires,
            key: usize::try_from(which).unwrap_or(usize::MAX),
        })
    }
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// When it ends, in seconds since 1970.
    pub expires: Option<u64>,
    /// Which key it was made with: 0 is the current one, the previous ones follow in their order.
    pub key: usize,
}

/// The key has no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key is empty, and everybody knows that one")]
pub struct EmptyKey;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: &str) -> Key {
        Key::new(secret.as_bytes()).unwrap()
    }

    fn scope(path: &str) -> Scope {
        Scope::parse(path).unwrap()
    }

    fn grants(keys: &Keys, path: &str, token: &Token) -> bool {
        keys.grants(&Path::parse(path).unwrap(), token, 0).is_some()
    }

    #[test]
    fn tokens_are_the_ones_the_go_program_prints() {
        let key = key("foo");
        let scope = scope("/pub/foo/bar");
        assert_eq!(
            key.mint_sha1(&scope).expose(),
            "2e1150434ba1d8c33bce7c82ee08b5d9850342c7"
        );
        // printf /pub/foo/bar | openssl dgst -sha256 -hmac foo
        assert_eq!(
            key.mint(&scope).expose(),
            "98e583afa70b218777fe2137a5dbb0f44c7cf35aa2e8b8d0b418253c35e6ef6e"
        );
    }

    #[test]
    fn a_derived_key_is_for_its_purpose_alone() {
        let key = key("foo");
        let mac = |key: &Key, purpose| key.derive(purpose).mac(b"bytes");
        // secret=$(printf 'd1\nchannels' | openssl dgst -sha256 -hmac foo -r | cut -c-64)
        // printf bytes | openssl dgst -sha256 -mac HMAC -macopt hexkey:$secret
        let known = "b59b31309c22c2c2f0ae53644ab338c22cdc8e00e98ddfe706aa74f40eb68c86";
        assert_eq!(hex::encode(mac(&key, "channels")), known);
        assert_ne!(mac(&key, "channels"), mac(&key, "others"));
        assert_ne!(mac(&key, "channels"), mac(&self::key("bar"), "channels"));
        let printed = format!("{:?}", key.derive("channels"));
        assert_eq!(printed, "DerivedKey(..)");
    }

    /// The rule as PROTOCOL says it, in as few lines as it takes, over lists of segments.
    fn model(token: &str, path: &str) -> bool {
        let covers =
            |path: &str| path == token || (token.ends_with('/') && path.starts_with(token));
        let bare = ["/pub/", "/sub/"].iter().find_map(|verb| {
            path.strip_prefix(&verb[..4])
                .filter(|_| path.starts_with(verb))
        });
        covers(path) || bare.is_some_and(covers)
    }

    #[test]
    fn a_token_opens_its_path_or_its_prefix_and_nothing_else() {
        let mut names = vec![String::new()];
        for _ in 0..3 {
            let deeper = names
                .iter()
                .flat_map(|name| ["a", "ab", "b"].map(|segment| format!("{name}/{segment}")));
            names = names.iter().cloned().chain(deeper).collect();
        }
        names.sort();
        names.dedup();
        let mut paths = Vec::new();
        for root in [
            "",
            "/pub",
            "/sub",
            "/unsafe/pub",
            "/unsafe/sub",
            "/unsafe",
            "/call",
        ] {
            for name in &names {
                paths.push(format!("{root}{name}"));
                paths.push(format!("{root}{name}/"));
            }
        }
        let key = key("secret");
        let keys = Keys::new(key.clone());
        let (mut granted, mut refused) = (0, 0);
        for token_path in paths.iter().filter(|path| Scope::parse(path).is_ok()) {
            let token = key.mint(&scope(token_path));
            for path in paths.iter().filter(|path| Path::parse(path).is_ok()) {
                let expected = model(token_path, path);
                assert_eq!(
                    grants(&keys, path, &token),
                    expected,
                    "{token_path} on {path}"
                );
                *(if expected { &mut granted } else { &mut refused }) += 1;
            }
        }
        assert!(
            granted > 1_000 && refused > 100_000,
            "{granted} and {refused}"
        );
    }

    #[test]
    fn a_token_of_another_key_opens_nothing_until_that_key_is_a_previous_one() {
        let token = key("old").mint(&scope("/sub/a"));
        let keys = Keys::new(key("new"));
        assert!(!grants(&keys, "/sub/a", &token));
        assert!(grants(
            &keys.with_previous(vec![key("older"), key("old")]),
            "/sub/a",
            &token
        ));
    }

    #[test]
    fn a_token_of_the_go_program_opens_only_where_that_is_wanted() {
        let token = key("k").mint_sha1(&scope("/a/"));
        let keys = Keys::new(key("k"));
        assert!(!grants(&keys, "/sub/a/b", &token));
        let keys = keys.accepting_sha1(true);
        assert!(grants(&keys, "/sub/a/b", &token));
        assert!(!grants(&keys, "/unsafe/sub/a/b", &token));
    }

    #[test]
    fn a_token_is_good_until_its_second_has_come() {
        let key = key("k");
        let token = key.mint_expiring(&scope("/sub/"), 1_000);
        let keys = Keys::new(key);
        let path = Path::parse("/sub/a").unwrap();
        assert_eq!(
            keys.grants(&path, &token, 999),
            Some(Grant {
                expires: Some(1_000),
                key: 0
            })
        );
        assert_eq!(keys.grants(&path, &token, 1_000), None);

        let text = token.expose().replace("x1.1000.", "x1.9000.");
        assert_eq!(keys.grants(&path, &text.parse().unwrap(), 999), None);
        let plain: Token = token.expose()["x1.1000.".len()..].parse().unwrap();
        assert_eq!(keys.grants(&path, &plain, 999), None);
    }

    #[test]
    fn a_grant_says_which_key_the_token_was_made_with() {
        let path = Path::parse("/sub/a/b").unwrap();
        let keys = Keys::new(key("new")).with_previous(vec![key("old"), key("older")]);
        for (secret, number) in [("new", 0), ("old", 1), ("older", 2)] {
            for prefix in ["/sub/a/b", "/sub/", "/", "/a/"] {
                let token = key(secret).mint(&scope(prefix));
                let grant = keys.grants(&path, &token, 0);
                assert_eq!(
                    grant.map(|grant| grant.key),
                    Some(number),
                    "{secret} {prefix}"
                );
            }
        }
    }

    #[test]
    fn a_name_and_a_time_are_part_of_what_is_signed() {
        let key = key("foo");
        let keys = Keys::new(key.clone());
        let path = Path::parse("/pub/foo/bar").unwrap();
        let name: Name = "ci".parse().unwrap();
        let named = key.mint_named(&scope("/pub/foo/bar"), &name, None);
        // printf 'n1\nci\n/pub/foo/bar' | openssl dgst -sha256 -hmac foo
        assert_eq!(
            named.expose(),
            "n1.ci.c5a220a163ea14e337d4714032388c16e54e10f47acf19ad6c5a6d16f316fddc"
        );
        let both = key.mint_named(&scope("/pub/foo/bar"), &name, Some(1_000));
        assert!(keys.grants(&path, &named, u64::MAX).is_some());
        assert!(keys.grants(&path, &both, 999).is_some());
        assert_eq!(keys.grants(&path, &both, 1_000), None);
        for (token, from, to) in [
            (&named, "n1.ci.", "n1.cd."),
            (&named, "n1.ci.", "n1.ci.9000."),
            (&named, "n1.ci.", ""),
            (&both, ".1000.", ".9000."),
            (&both, ".1000.", "."),
            (&both, "n1.ci.", "x1."),
        ] {
            let forged: Token = token.expose().replacen(from, to, 1).parse().unwrap();
            assert_eq!(keys.grants(&path, &forged, 999), None, "{from} to {to}");
        }
    }

    #[test]
    fn an_empty_key_is_refused_and_a_key_does_not_print() {
        assert_eq!(Key::new(b"").unwrap_err(), EmptyKey);
        assert_eq!(format!("{:?}", key("secret")), "Key(..)");
    }
}

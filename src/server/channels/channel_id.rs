//! The id of a channel: what its URL has that nobody can guess.
//!
//! It is random bytes and their MAC, so the server knows its own ids without keeping any of them,
//! and one that is made up costs no more than that MAC. Whoever has an id may send and listen, so
//! it is a secret: [`masked`] goes over whatever is logged.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hookbot_protocol::{Fingerprint, Key, Keys};
use percent_encoding::percent_decode_str;
use subtle::ConstantTimeEq;

/// What a channel is for. An id of the one kind is none of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Kind {
    /// Messages, for the clients of smee and gosmee.
    Smee,
    /// Calls, for the client of webhook-over-websocket.
    Websocket,
}

impl Kind {
    /// What the key for these ids is derived for. Another text makes all ids invalid.
    fn purpose(self) -> &'static str {
        match self {
            Self::Smee => "channels of smee",
            Self::Websocket => "channels of webhook-over-websocket",
        }
    }
}

/// An id that this server has given out. It does not print.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::server) struct ChannelId(Box<str>);

impl ChannelId {
    /// A new one, by the current key.
    pub(in crate::server) fn mint(keys: &Keys, kind: Kind) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; NONCE + TAG];
        getrandom::fill(&mut bytes[..NONCE])?;
        let tag = tag(keys.current(), kind, &bytes[..NONCE]);
        bytes[NONCE..].copy_from_slice(&tag);
        let text = URL_SAFE_NO_PAD.encode(bytes);
        Ok(Self(format!("{MARK}{text}").into()))
    }

    /// Reads an id; `None` if none of these keys has made it for this.
    pub(super) fn parse(text: &str, keys: &Keys, kind: Kind) -> Option<Self> {
        let mut bytes = [0; NONCE + TAG];
        let encoded = text.strip_prefix(MARK)?;
        let length = URL_SAFE_NO_PAD.decode_slice(encoded, &mut bytes).ok()?;
        let (nonce, sent) = bytes.split_at(NONCE);
        // Every key is tried, so that the time tells nothing about which one it was.
        let tags = keys.iter().map(|key| tag(key, kind, nonce).ct_eq(sent));
        let is_ours = tags.fold(0.into(), |one: subtle::Choice, other| one | other);
        (length == bytes.len() && is_ours.into()).then(|| Self(text.into()))
    }

    /// Whether these keys still stand for it.
    pub(in crate::server) fn is_good(&self, keys: &Keys) -> bool {
        let mut kinds = [Kind::Smee, Kind::Websocket].into_iter();
        kinds.any(|kind| Self::parse(&self.0, keys, kind).is_some())
    }

    /// The id as it is in a URL.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// What tells it apart and opens nothing.
    pub(in crate::server) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.0)
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelId(..)")
    }
}

/// A path or a topic as it may be logged: with `***` for the ids in it, and for what looks like
/// one or like the signature of a token, percent-encoded or not.
pub(in crate::server) fn masked(text: &str) -> Cow<'_, str> {
    let decoded = percent_decode_str(text).decode_utf8_lossy();
    // Each request is logged, and most paths are too short to hold a token.
    let holds_token = decoded.len() >= TOKEN_DIGITS
        && runs(&decoded).any(|(digits, _)| digits.len() >= TOKEN_DIGITS);
    if !decoded.contains(MARK) && !holds_token {
        return text.into();
    }
    let mut parts = decoded.split(MARK);
    let mut shown = without_tokens(parts.next().unwrap_or_default());
    for part in parts {
        let is_id = |byte: char| byte.is_ascii_alphanumeric() || matches!(byte, '-' | '_');
        shown += MARK;
        shown += "***";
        shown += &without_tokens(part.trim_start_matches(is_id));
    }
    shown.into()
}

/// A token gets into a path where the `?` before it is escaped, or where it is taken for a segment.
fn without_tokens(text: &str) -> String {
    let shown = runs(text).map(|(digits, rest)| {
        let is_token = digits.len() >= TOKEN_DIGITS;
        [if is_token { "***" } else { digits }, rest].concat()
    });
    shown.collect()
}

/// Runs of hexadecimal digits, each with the character behind it.
fn runs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_digit = |char: char| char.is_ascii_hexdigit();
    text.split_inclusive(move |char| !is_digit(char))
        .map(move |run| run.split_at(run.trim_end_matches(|char| !is_digit(char)).len()))
}

/// What the bytes in front of it must be followed by.
fn tag(key: &Key, kind: Kind, nonce: &[u8]) -> [u8; TAG] {
    let mac = key.derive(kind.purpose()).mac(nonce);
    std::array::from_fn(|at| mac[at])
}

/// What every id begins with, so that one is known wherever it turns up.
const MARK: &str = "hbc_";

/// Hexadecimal digits in the signature of a token. Those of the Go program are shorter, and look
/// like a commit.
const TOKEN_DIGITS: usize = 64;

/// Random bytes in an id; with [`TAG`], a multiple of three, so that base64 has one spelling.
const NONCE: usize = 15;

/// Bytes of the MAC in an id: 120 bits.
const TAG: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(secret: &str) -> Key {
        Key::new(secret.as_bytes()).unwrap()
    }

    fn mint(keys: &Keys) -> String {
        ChannelId::mint(keys, Kind::Smee)
            .unwrap()
            .expose()
            .to_owned()
    }

    fn is_good(text: &str, keys: &Keys) -> bool {
        ChannelId::parse(text, keys, Kind::Smee).is_some()
    }

    #[test]
    fn an_id_is_one_that_every_client_takes() {
        let id = mint(&Keys::new(key("k")));
        assert_eq!(id.len(), 44);
        // Gosmee's rule, which is the narrowest.
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        assert!((12..=64).contains(&id.len()) && id.bytes().all(is_fine));
    }

    #[test]
    fn an_id_is_good_for_its_kind_by_its_key_and_by_the_previous_ones() {
        let old = Keys::new(key("old"));
        let id = ChannelId::mint(&old, Kind::Smee).unwrap();
        assert!(is_good(id.expose(), &old) && id.is_good(&old));
        let rotated = Keys::new(key("new")).with_previous(vec![key("older"), key("old")]);
        assert!(is_good(id.expose(), &rotated) && id.is_good(&rotated));
        let without = Keys::new(key("new"));
        assert!(!is_good(id.expose(), &without) && !id.is_good(&without));
        assert_eq!(ChannelId::parse(id.expose(), &old, Kind::Websocket), None);
    }

    #[test]
    fn an_id_with_any_bit_flipped_is_none() {
        let keys = Keys::new(key("k"));
        let id = mint(&keys);
        for at in 0..id.len() {
            for bit in 0..7 {
                let mut bytes = id.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let flipped = String::from_utf8(bytes).unwrap();
                assert!(!is_good(&flipped, &keys), "{flipped}");
            }
            assert!(!is_good(&id[..at], &keys));
            assert!(!is_good(&id[at + 1..], &keys));
        }
        assert!(!is_good(&format!("{id}A"), &keys));
        assert!(!is_good(&format!("{id}="), &keys));
        assert!(!is_good(&format!("{id}AAAA"), &keys));
    }

    #[test]
    fn no_two_ids_are_the_same_and_none_is_printed() {
        let keys = Keys::new(key("k"));
        assert_ne!(mint(&keys), mint(&keys));
        let id = ChannelId::mint(&keys, Kind::Smee).unwrap();
        assert_eq!(format!("{id:?}"), "ChannelId(..)");
    }

    #[test]
    fn an_id_is_masked_wherever_it_is_and_however_it_is_spelled() {
        let id = mint(&Keys::new(key("k")));
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let half = format!("%68{}", &id[1..]);
        for (text, shown) in [
            (format!("/smee/{id}"), "/smee/hbc_***"),
            (format!("//smee//{id}/x y"), "//smee//hbc_***/x y"),
            (format!("/webhook/{encoded}/a"), "/webhook/hbc_***/a"),
            (format!("/ws/{half}"), "/ws/hbc_***"),
            (format!("/smee/{}", &id[..30]), "/smee/hbc_***"),
            (
                format!("/smee/{id}{id},{id}"),
                "/smee/hbc_***hbc_***,hbc_***",
            ),
            ("/pub/100%25/ü".to_owned(), "/pub/100%25/ü"),
        ] {
            assert_eq!(masked(&text), shown);
        }
    }

    #[test]
    fn what_looks_like_a_token_is_masked_as_well() {
        let id = mint(&Keys::new(key("k")));
        let short = format!("/{0}ü{0}", "0".repeat(63));
        for (text, shown) in [
            (
                format!("/a%3Ftoken=n1.ada.{}/{id}", "aF".repeat(32)),
                "/a?token=n1.ada.***/hbc_***",
            ),
            (format!("/{id}/{}%20", "0".repeat(65)), "/hbc_***/*** "),
            (format!("/{}", "%30".repeat(64)), "/***"),
            (short.clone(), &*short),
        ] {
            assert_eq!(masked(&text), shown);
        }
    }

    proptest! {
        #[test]
        fn nothing_made_up_is_an_id_and_nothing_panics(text in "(hbc_)?[A-Za-z0-9_%-]{0,44}") {
            let keys = Keys::new(key("k"));
            prop_assert!(!is_good(&text, &keys));
            let _ = masked(&text);
        }
    }
}

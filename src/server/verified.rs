//! Tokens that were good lately: one that comes again with its path need not be computed anew.
//!
//! A token on a deep path takes an HMAC for each of the paths that it could have been made for,
//! and most publishers post to one path for as long as they live. Only what was good is kept, so
//! nobody can push anything out by guessing, and a guess takes as long as it always did. A reload
//! of the keys begins with nothing.

use std::hash::{BuildHasher, RandomState};

use arc_swap::ArcSwapOption;
use hookbot_protocol::{Grant, Token};

/// The ones used last, as far as no other takes their place.
pub(super) struct Verified {
    /// Its key is not known outside, so where something is kept can't be chosen.
    hasher: RandomState,
    slots: Box<[ArcSwapOption<Entry>]>,
}

struct Entry {
    path: Box<str>,
    text: Box<str>,
    token: Token,
    grant: Grant,
}

impl Verified {
    pub(super) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            slots: (0..SLOTS).map(|_| ArcSwapOption::empty()).collect(),
        }
    }

    /// What this text was found to be on this path.
    pub(super) fn find(&self, path: &str, text: &str) -> Option<(Token, Grant)> {
        let entry = self.slot(path, text).load();
        let entry = entry.as_ref()?;
        // Whoever gets here by chance must not learn how much of a token is right.
        let is_same = *entry.path == *path && is_equal(&entry.text, text);
        is_same.then(|| (entry.token.clone(), entry.grant))
    }

    pub(super) fn keep(&self, path: &str, text: &str, token: &Token, grant: Grant) {
        let entry = Entry {
            path: path.into(),
            text: text.into(),
            token: token.clone(),
            grant,
        };
        self.slot(path, text).store(Some(entry.into()));
    }

    fn slot(&self, path: &str, text: &str) -> &ArcSwapOption<Entry> {
        let hash = self.hasher.hash_one((path, text));
        &self.slots[hash as usize % SLOTS]
    }
}

/// Compares in constant time.
fn is_equal(one: &str, other: &str) -> bool {
    subtle::ConstantTimeEq::ct_eq(one.as_bytes(), other.as_bytes()).into()
}

/// How many tokens are kept, at most.
const SLOTS: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use hookbot_protocol::{Key, Keys, Path, Scope};

    #[test]
    fn a_token_is_known_again_on_its_path_alone() {
        let keys = Keys::new(Key::new(b"secret").unwrap());
        let token = keys.current().mint(&Scope::parse("/pub/").unwrap());
        let grant = keys.grants(&Path::parse("/pub/a").unwrap(), &token, 0);
        let (grant, text) = (grant.unwrap(), token.expose());
        let verified = Verified::new();
        assert!(verified.find("/pub/a", &text).is_none());
        verified.keep("/pub/a", &text, &token, grant);
        assert!(verified.find("/pub/a", &text) == Some((token, grant)));
        assert!(verified.find("/sub/a", &text).is_none());
        assert!(
            verified
                .find("/pub/a", &text.replace(&text[..1], "x"))
                .is_none()
        );
    }

    #[test]
    fn however_many_there_are_no_more_are_kept_than_there_are_slots() {
        let keys = Keys::new(Key::new(b"secret").unwrap());
        let token = keys.current().mint(&Scope::parse("/").unwrap());
        let grant = keys.grants(&Path::parse("/pub/a").unwrap(), &token, 0);
        let (grant, text) = (grant.unwrap(), token.expose());
        let verified = Verified::new();
        let paths: Vec<String> = (0..10 * SLOTS)
            .map(|number| format!("/pub/{number}"))
            .collect();
        for path in &paths {
            verified.keep(path, &text, &token, grant);
        }
        let known = paths
            .iter()
            .filter(|path| verified.find(path, &text).is_some());
        let known = known.count();
        assert!(known > SLOTS / 2 && known <= SLOTS, "{known}");
    }
}

//! Who uses which tokens: by name, and those of previous keys, so that these can be dropped.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hookbot_protocol::{Fingerprint, Name, Path, Token};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::channels::masked;
use super::transport::Peer;

/// Counts uses.
#[derive(Default)]
pub(super) struct TokenUses {
    by_name: Family<Named, Counter>,
    of_previous_keys: Family<PreviousKey, Counter>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    names: HashSet<Name>,
    previous: HashMap<(usize, Fingerprint), PreviousUse>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PreviousKey {
    key: u64,
}

/// A token of a previous key that is still in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousUse {
    /// Which of the previous keys it was made with, counted from 1.
    pub key: usize,
    /// The token's name, or the beginning of its fingerprint.
    pub token: String,
    /// The path that it was last used for.
    pub path: String,
    /// From where.
    pub address: String,
    /// How often it was used.
    pub number: u64,
    /// When last, in seconds since 1970.
    pub last: u64,
    /// When it was last logged.
    #[serde(skip)]
    logged: u64,
}

impl TokenUses {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "token_uses",
            "Uses of tokens that have a name",
            self.by_name.clone(),
        );
        registry.register(
            "previous_key_uses",
            "Uses of tokens made with a previous key",
            self.of_previous_keys.clone(),
        );
    }

    /// Notes that a token was good for something.
    pub(super) fn note(&self, token: &Token, key: usize, path: &Path, peer: Peer, now: u64) {
        if let Some(name) = token.name() {
            self.note_name(name);
        }
        if key > 0 {
            self.note_previous(token, key, path, peer, now);
        }
    }

    /// What is still in use of previous keys, the latest first.
    pub(super) fn previous(&self) -> Vec<PreviousUse> {
        let mut uses: Vec<_> = self.known().previous.values().cloned().collect();
        uses.sort_by(|one, other| other.last.cmp(&one.last).then(one.token.cmp(&other.token)));
        uses
    }

    /// Forgets who used previous keys, for they are other ones now.
    pub(super) fn forget_previous(&self) {
        self.known().previous.clear();
    }

    fn note_name(&self, name: &Name) {
        let mut known = self.known();
        let has_place = known.names.len() < MAX_NAMES && known.names.insert(name.clone());
        let name = if has_place || known.names.contains(name) {
            name.as_str()
        } else {
            OTHER
        };
        drop(known);
        let name = name.to_owned();
        self.by_name.get_or_create(&Named { name }).inc();
    }

    fn note_previous(&self, token: &Token, key: usize, path: &Path, peer: Peer, now: u64) {
        self.of_previous_keys
            .get_or_create(&PreviousKey { key: key as u64 })
            .inc();
        let fingerprint = token.fingerprint();
        let mut known = self.known();
        let is_full = known.previous.len() >= MAX_PREVIOUS;
        let uses = match known.previous.entry((key, fingerprint)) {
            std::collections::hash_map::Entry::Vacant(_) if is_full => return,
            entry => entry.or_insert_with(|| PreviousUse {
                key,
                token: token
                    .name()
                    .map_or_else(|| fingerprint.short(), ToString::to_string),
                path: String::new(),
                address: String::new(),
                number: 0,
                last: 0,
                logged: 0,
            }),
        };
        uses.number += 1;
        uses.last = uses.last.max(now);
        if uses.path != path.as_str() {
            uses.path = path.as_str().to_owned();
        }
        uses.address = peer.to_string();
        let is_news = now.saturating_sub(uses.logged) >= LOG_PERIOD;
        if is_news {
            uses.logged = now;
            let (token, path) = (uses.token.clone(), masked(path.as_str()));
            drop(known);
            warn!(%peer, ?path, token, key, "a token of a previous key is still in use");
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many names are counted each for itself; who mints tokens chooses them.
const MAX_NAMES: usize = 256;

/// What all further names are counted as. It is no name.
const OTHER: &str = "(other)";

/// How many tokens of previous keys are listed.
const MAX_PREVIOUS: usize = 1_024;

/// How often one token is logged, in seconds.
const LOG_PERIOD: u64 = 3_600;

#[cfg(test)]
mod tests {
    use super::*;
    use hookbot_protocol::{Key, Scope};

    #[test]
    fn ever_new_names_and_tokens_take_bounded_memory() {
        let uses = TokenUses::default();
        let key = Key::new(b"k").unwrap();
        let path = Path::parse("/sub/a").unwrap();
        for number in 0..2 * MAX_PREVIOUS {
            let name = format!("n{number}").parse().unwrap();
            let token = key.mint_named(&Scope::parse("/sub/").unwrap(), &name, None);
            uses.note(&token, 1, &path, Peer::Local, 5);
        }
        assert_eq!(uses.previous().len(), MAX_PREVIOUS);
        let mut registry = Registry::default();
        uses.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let rows = text
            .lines()
            .filter(|line| line.starts_with("token_uses_total"));
        assert_eq!(rows.count(), MAX_NAMES + 1);
        let previous = format!("previous_key_uses_total{{key=\"1\"}} {}", 2 * MAX_PREVIOUS);
        assert!(text.contains(&previous), "{text}");
    }

    #[test]
    fn who_used_a_previous_key_is_told_by_name_or_fingerprint() {
        let uses = TokenUses::default();
        let key = Key::new(b"k").unwrap();
        let path = Path::parse("/sub/a").unwrap();
        let scope = Scope::parse("/sub/").unwrap();
        let named = key.mint_named(&scope, &"ci".parse().unwrap(), None);
        let plain = key.mint(&scope);
        uses.note(&plain, 0, &path, Peer::Local, 4);
        assert_eq!(uses.previous(), []);
        for now in [5, 7] {
            uses.note(&named, 2, &path, Peer::Local, now);
        }
        uses.note(&plain, 1, &path, Peer::Local, 6);
        let seen = uses.previous();
        let seen: Vec<_> = seen
            .iter()
            .map(|own| (own.key, &*own.token, own.number, own.last))
            .collect();
        let short = plain.fingerprint().short();
        assert_eq!(seen, [(2, "ci", 2, 7), (1, &*short, 1, 6)]);
    }
}

//! What may change while the server runs, and what is made of it.

use std::fmt;
use std::sync::Arc;

use hookbot_protocol::{DenyList, Keys, Path, Token, Topic};

use super::error::HttpError;
use super::gate::Gate;
use super::networks::Networks;
use super::proxies::TrustedProxies;
use super::rate::{Buckets, Rate};
use super::roster::Capacity;
use super::source::{ByTopic, Sources};
use super::transport::Peer;
use super::verified::Verified;

/// Who may do what, and how often.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What tokens are verified with.
    pub keys: Keys,
    /// Tokens that are good no longer.
    pub denied: DenyList,
    /// Where messages come from.
    pub sources: Sources,
    /// Whose word for a client's address is taken.
    pub proxies: TrustedProxies,
    /// The addresses that may ask anything; without it, all.
    pub admitted: Option<Networks>,
    /// The addresses that may not, though they are admitted.
    pub refused: Networks,
    /// How often an address may ask.
    pub address_rate: Option<Rate>,
    /// How often a token may be used.
    pub token_rate: Option<Rate>,
    /// How often a topic may be published to.
    pub topic_rate: Option<Rate>,
    /// How many subscribers there may be.
    pub max_subscribers: Option<usize>,
    /// How many subscribers may use one token.
    pub max_subscribers_per_token: Option<usize>,
}

impl Rules {
    /// The defaults, with these keys: everybody who has a token may do what it allows.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self {
            keys,
            denied: DenyList::default(),
            sources: Sources::default(),
            proxies: TrustedProxies::default(),
            admitted: None,
            refused: Networks::default(),
            address_rate: None,
            token_rate: None,
            topic_rate: None,
            max_subscribers: None,
            max_subscribers_per_token: None,
        }
    }

    /// Whether this address may ask anything. Who comes through a unix socket is on this machine.
    pub(super) fn admits(&self, client: Peer) -> Result<(), HttpError> {
        let Peer::Ip(address) = client else {
            return Ok(());
        };
        let is_admitted = self
            .admitted
            .as_ref()
            .is_none_or(|own| own.contains(address.ip()));
        if is_admitted && !self.refused.contains(address.ip()) {
            return Ok(());
        }
        Err(HttpError::Address)
    }

    pub(super) fn capacity(&self) -> Capacity {
        Capacity {
            all: self.max_subscribers,
            by_token: self.max_subscribers_per_token,
        }
    }
}

/// The rules, made ready.
pub(super) struct Rulebook {
    pub(super) rules: Rules,
    /// By these rules' keys.
    pub(super) verified: Verified,
    gates: ByTopic<Arc<Gate>>,
    by_address: Option<Arc<Buckets>>,
    by_token: Option<Arc<Buckets>>,
    by_topic: Option<Arc<Buckets>>,
}

impl Rulebook {
    /// Makes rules ready. What is the same as before goes on as it was.
    pub(super) fn new(rules: Rules, before: Option<&Self>) -> Self {
        let gates = rules.sources.iter().map(|source| {
            let mut own = before.into_iter().flat_map(|before| before.gates.iter());
            let own = own.find(|gate| gate.source.name == source.name);
            let gate = Gate::new(source, own.map(|gate| &**gate));
            (source.filter.clone(), Arc::new(gate))
        });
        let gates = ByTopic::new(gates);
        let buckets = |of: Which| {
            let rate = (of.rate)(&rules)?;
            let before = before.filter(|before| (of.rate)(&before.rules) == Some(rate));
            let same = before.and_then(|before| (of.buckets)(before).clone());
            Some(same.unwrap_or_else(|| Arc::new(Buckets::new(rate))))
        };
        Self {
            by_address: buckets(Which {
                rate: |rules| rules.address_rate,
                buckets: |book| &book.by_address,
            }),
            by_token: buckets(Which {
                rate: |rules| rules.token_rate,
                buckets: |book| &book.by_token,
            }),
            by_topic: buckets(Which {
                rate: |rules| rules.topic_rate,
                buckets: |book| &book.by_topic,
            }),
            gates,
            verified: Verified::new(),
            rules,
        }
    }

    /// The source that a topic's messages come from, if there is one.
    pub(super) fn gate(&self, topic: &Topic) -> Option<&Arc<Gate>> {
        self.gates.find(topic)
    }

    pub(super) fn gates(&self) -> impl Iterator<Item = &Arc<Gate>> {
        self.gates.iter()
    }

    /// Counts a request of this client.
    pub(super) fn count_address(&self, client: Peer) -> Result<(), HttpError> {
        let Some((buckets, network)) = self.by_address.as_ref().zip(client.network()) else {
            return Ok(());
        };
        let wait = |wait| HttpError::Rate {
            whose: "from your address",
            reason: "address_rate",
            wait,
        };
        buckets.take(network).map_err(wait)
    }

    /// Counts a use of this token.
    pub(super) fn count_token(&self, token: &Token) -> Result<(), HttpError> {
        let Some(buckets) = &self.by_token else {
            return Ok(());
        };
        let wait = |wait| HttpError::Rate {
            whose: "with this token",
            reason: "token_rate",
            wait,
        };
        buckets.take(token.fingerprint()).map_err(wait)
    }

    /// Counts a message on this topic.
    pub(super) fn count_topic(&self, topic: &Topic) -> Result<(), HttpError> {
        let Some(buckets) = &self.by_topic else {
            return Ok(());
        };
        let wait = |wait| HttpError::Rate {
            whose: "on this topic",
            reason: "topic_rate",
            wait,
        };
        buckets.take(topic.as_str()).map_err(wait)
    }

    /// Whether a token that opened `path` once still does, its time aside.
    pub(super) fn still_grants(&self, path: &Path, token: &Token) -> bool {
        self.rules.keys.grants(path, token, 0).is_some()
    }
}

/// One of the rates, and its buckets.
struct Which {
    rate: fn(&Rules) -> Option<Rate>,
    buckets: fn(&Rulebook) -> &Option<Arc<Buckets>>,
}

impl fmt::Debug for Rulebook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.rules, f)
    }
}

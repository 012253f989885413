//! What may change while the server runs, and what is made of it.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use hookbot_protocol::{DenyList, Keys, Path, Token, Topic};

use super::channels::ChannelId;
use super::error::HttpError;
use super::gate::Gate;
use super::networks::Networks;
use super::proxies::TrustedProxies;
use super::rate::{Buckets, Period, Rate};
use super::roster::{Capacity, Pass};
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
    /// How many subscribers may use one token, or one channel.
    pub max_subscribers_per_token: Option<usize>,
    /// How often an address may have a new channel.
    pub new_channel_rate: Rate,
    /// How often one channel may be sent to.
    pub channel_rate: Rate,
    /// How many channels may have a client at once.
    pub max_channels: usize,
}

impl Rules {
    /// How often an address may have a new channel, unless something else is said.
    pub const NEW_CHANNEL_RATE: Rate = Rate {
        number: NonZeroU32::MIN.saturating_add(59),
        per: Period::Hour,
    };

    /// How often one channel may be sent to, unless something else is said.
    pub const CHANNEL_RATE: Rate = Rate {
        number: NonZeroU32::MIN.saturating_add(99),
        per: Period::Second,
    };

    /// How many channels may have a client, unless something else is said.
    pub const MAX_CHANNELS: usize = 10_000;

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
            new_channel_rate: Self::NEW_CHANNEL_RATE,
            channel_rate: Self::CHANNEL_RATE,
            max_channels: Self::MAX_CHANNELS,
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
            by_pass: self.max_subscribers_per_token,
            channels: self.max_channels,
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
    new_channels: Option<Arc<Buckets>>,
    by_channel: Option<Arc<Buckets>>,
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
            new_channels: buckets(Which {
                rate: |rules| Some(rules.new_channel_rate),
                buckets: |book| &book.new_channels,
            }),
            by_channel: buckets(Which {
                rate: |rules| Some(rules.channel_rate),
                buckets: |book| &book.by_channel,
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

    /// Counts a new channel of this client.
    pub(super) fn count_new_channel(&self, client: Peer) -> Result<(), HttpError> {
        let Some((buckets, network)) = self.new_channels.as_ref().zip(client.network()) else {
            return Ok(());
        };
        let wait = |wait| HttpError::Rate {
            whose: "for new channels from your address",
            reason: "new_channel_rate",
            wait,
        };
        buckets.take(network).map_err(wait)
    }

    /// Counts what is sent to a channel.
    pub(super) fn count_channel(&self, id: &ChannelId) -> Result<(), HttpError> {
        let Some(buckets) = &self.by_channel else {
            return Ok(());
        };
        let wait = |wait| HttpError::Rate {
            whose: "to this channel",
            reason: "channel_rate",
            wait,
        };
        buckets.take(id.fingerprint()).map_err(wait)
    }

    /// Whether what opened `path` once still does, its time aside.
    pub(super) fn still_grants(&self, path: &Path, pass: &Pass) -> bool {
        match pass {
            Pass::Token(token) => self.rules.keys.grants(path, token, 0).is_some(),
            Pass::Channel(id) => id.is_good(&self.rules.keys),
        }
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

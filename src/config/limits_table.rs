//! `[limits]`: how often, how many, and from where.

use std::num::NonZeroU32;

use bytesize::ByteSize;
use clap::Args;
use serde::Deserialize;

use super::text::{parsed, size, texts};
use crate::server::{ForwardedHeader, Networks, NetworksError, Rate, Rules, TrustedProxies};

/// What everybody may ask of the server, as flags say it and as a file does.
///
/// Rates, numbers of subscribers and addresses may be changed while the server runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct LimitsTable {
    /// How many of the messages without a token may come from one address in a second; by default
    /// half of them.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub unsafe_rate_per_address: Option<NonZeroU32>,

    /// How often one address may publish or subscribe, for example 100/s, 600/m or 1000/h.
    #[arg(long, value_name = "RATE", help_heading = "Limits")]
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub address_rate: Option<Rate>,

    /// How often one token may be used.
    #[arg(long, value_name = "RATE", help_heading = "Limits")]
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub token_rate: Option<Rate>,

    /// How often one topic may be published to.
    #[arg(long, value_name = "RATE", help_heading = "Limits")]
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub topic_rate: Option<Rate>,

    /// How many subscribers there may be.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub max_subscribers: Option<usize>,

    /// How many subscribers may use one token, or one channel.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub max_subscribers_per_token: Option<usize>,

    /// How often one address may have a new channel; 60/h by default.
    #[arg(long, value_name = "RATE", help_heading = "Channels")]
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub new_channel_rate: Option<Rate>,

    /// How often one channel may be sent to; 100/s by default.
    #[arg(long, value_name = "RATE", help_heading = "Channels")]
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub channel_rate: Option<Rate>,

    /// How many channels may have a client at once; 10000 by default.
    #[arg(long, value_name = "N", help_heading = "Channels")]
    pub max_channels: Option<usize>,

    /// How much memory the process may take before nothing new is let in; on Linux alone.
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    #[serde(deserialize_with = "size")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub max_memory: Option<ByteSize>,

    /// Proxies whose word for a client's address is taken: addresses, networks such as 10.0.0.0/8,
    /// file:PATH for a list of them, or unix for whoever comes through a unix socket.
    #[arg(
        long,
        env = "HOOKBOT_TRUSTED_PROXIES",
        value_name = "NETWORKS",
        value_delimiter = ',',
        help_heading = "Addresses"
    )]
    #[serde(deserialize_with = "texts")]
    #[cfg_attr(test, schemars(with = "super::route_table::OneOrMore"))]
    pub trusted_proxies: Vec<String>,

    /// The header in which trusted proxies name the client, x-forwarded-for or forwarded;
    /// x-forwarded-for by default. They have to overwrite what a client sends in it, or add to it.
    #[arg(long, value_name = "HEADER", help_heading = "Addresses")]
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub forwarded_header: Option<ForwardedHeader>,

    /// Connections of trusted proxies begin with a header of the PROXY protocol, version 1 or 2.
    #[arg(long, help_heading = "Addresses")]
    pub proxy_protocol: bool,

    /// The only addresses that may publish, subscribe or read metrics: addresses, networks, or
    /// file:PATH for a list of them.
    #[arg(
        long,
        value_name = "NETWORKS",
        value_delimiter = ',',
        help_heading = "Addresses"
    )]
    #[serde(deserialize_with = "texts")]
    #[cfg_attr(test, schemars(with = "super::route_table::OneOrMore"))]
    pub allow_addresses: Vec<String>,

    /// Addresses that may not, also where they are among those.
    #[arg(
        long,
        value_name = "NETWORKS",
        value_delimiter = ',',
        help_heading = "Addresses"
    )]
    #[serde(deserialize_with = "texts")]
    #[cfg_attr(test, schemars(with = "super::route_table::OneOrMore"))]
    pub deny_addresses: Vec<String>,
}

impl LimitsTable {
    /// What this says, and for the rest what `other` does.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let list = |own: Vec<String>, other| if own.is_empty() { other } else { own };
        Self {
            unsafe_rate_per_address: self
                .unsafe_rate_per_address
                .or(other.unsafe_rate_per_address),
            address_rate: self.address_rate.or(other.address_rate),
            token_rate: self.token_rate.or(other.token_rate),
            topic_rate: self.topic_rate.or(other.topic_rate),
            max_subscribers: self.max_subscribers.or(other.max_subscribers),
            max_subscribers_per_token: self
                .max_subscribers_per_token
                .or(other.max_subscribers_per_token),
            new_channel_rate: self.new_channel_rate.or(other.new_channel_rate),
            channel_rate: self.channel_rate.or(other.channel_rate),
            max_channels: self.max_channels.or(other.max_channels),
            max_memory: self.max_memory.or(other.max_memory),
            trusted_proxies: list(self.trusted_proxies, other.trusted_proxies),
            forwarded_header: self.forwarded_header.or(other.forwarded_header),
            proxy_protocol: self.proxy_protocol || other.proxy_protocol,
            allow_addresses: list(self.allow_addresses, other.allow_addresses),
            deny_addresses: list(self.deny_addresses, other.deny_addresses),
        }
    }

    /// The entries of lists that are neither addresses nor the names of files: whose list it is,
    /// which one, and why.
    pub(super) fn flaws(&self) -> impl Iterator<Item = (&'static str, usize, NetworksError)> {
        let lists = [
            ("trusted_proxies", &self.trusted_proxies),
            ("allow_addresses", &self.allow_addresses),
            ("deny_addresses", &self.deny_addresses),
        ];
        lists.into_iter().flat_map(|(key, list)| {
            list.iter().enumerate().filter_map(move |(at, entry)| {
                let is_elsewhere = entry.starts_with("file:");
                if is_elsewhere || (key == "trusted_proxies" && entry == LOCAL) {
                    return None;
                }
                let error = Networks::parse([entry]).err()?;
                Some((key, at, error))
            })
        })
    }

    /// Makes these limits part of the rules.
    ///
    /// # Errors
    ///
    /// When a list of addresses can't be had.
    pub fn apply(&self, rules: &mut Rules) -> Result<(), NetworksError> {
        let is_local = |entry: &&String| *entry == LOCAL;
        let networks = self.trusted_proxies.iter().filter(|entry| !is_local(entry));
        rules.proxies = TrustedProxies {
            networks: Networks::parse(networks)?,
            local: self.trusted_proxies.iter().any(|entry| is_local(&entry)),
            header: self.forwarded_header.unwrap_or_default(),
            protocol: self.proxy_protocol,
        };
        let only = !self.allow_addresses.is_empty();
        let allowed = only.then(|| Networks::parse(&self.allow_addresses));
        rules.admitted = allowed.transpose()?;
        rules.refused = Networks::parse(&self.deny_addresses)?;
        rules.address_rate = self.address_rate;
        rules.token_rate = self.token_rate;
        rules.topic_rate = self.topic_rate;
        rules.max_subscribers = self.max_subscribers;
        rules.max_subscribers_per_token = self.max_subscribers_per_token;
        rules.new_channel_rate = self.new_channel_rate.unwrap_or(Rules::NEW_CHANNEL_RATE);
        rules.channel_rate = self.channel_rate.unwrap_or(Rules::CHANNEL_RATE);
        rules.max_channels = self.max_channels.unwrap_or(Rules::MAX_CHANNELS);
        Ok(())
    }
}

/// What stands for whoever comes through a unix socket.
const LOCAL: &str = "unix";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_first_counts_field_by_field() {
        let table = |text: &str| -> LimitsTable { toml::from_str(text).unwrap() };
        let flags = table("token_rate = '1/s'\ndeny_addresses = ['10.0.0.1']");
        let file = table("token_rate = '2/s'\ntopic_rate = '3/m'\ndeny_addresses = ['10.0.0.2']");
        let both = table("token_rate = '1/s'\ntopic_rate = '3/m'\ndeny_addresses = ['10.0.0.1']");
        assert_eq!(flags.clone().or(file.clone()), both);
        assert_eq!(LimitsTable::default().or(file.clone()), file);
        assert_eq!(flags.clone().or(LimitsTable::default()), flags);
    }
}

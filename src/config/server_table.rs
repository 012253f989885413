//! `[server]`: what `hookbot serve` has flags for and a file may say as well.

use std::num::NonZeroU32;

use bytesize::ByteSize;
use clap::Args;
use serde::Deserialize;

use super::text::{parsed, size, texts};
use super::{PublicUrl, Retain, Span};

/// How the server behaves, as flags say it and as a file does: one type, so that they can't drift
/// apart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ServerTable {
    /// The URL under which the world sees this server.
    #[arg(long, env = "HOOKBOT_PUBLIC_URL", value_name = "URL")]
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub public_url: Option<PublicUrl>,

    /// Serve the clients of smee, gosmee and webhook-over-websocket: whoever knows a channel's id
    /// may send to it and listen.
    #[arg(long, help_heading = "Channels")]
    pub open_channels: bool,

    /// Give new channels only to those who have a token for /smee/new or /new.
    #[arg(long, help_heading = "Channels")]
    pub channels_token: bool,

    /// Another origin whose pages may connect with a browser's password, * for any; may be
    /// repeated.
    #[arg(long = "origin", value_name = "ORIGIN")]
    #[serde(deserialize_with = "texts")]
    #[cfg_attr(test, schemars(with = "super::route_table::OneOrMore"))]
    pub origins: Vec<String>,

    /// An origin whose pages may read event streams, * for any.
    #[arg(long, value_name = "ORIGIN")]
    pub cors_origin: Option<String>,

    /// Publish a delivery only once in this time, however often its sender tries: by the delivery
    /// ids of the well-known providers, for example 24h.
    #[arg(long, value_name = "TIME")]
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub deduplicate: Option<Span>,

    /// How long open requests and deliveries may take to end when the server stops; 5s by default.
    #[arg(long, value_name = "TIME")]
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub grace: Option<Span>,

    /// What is kept, a time, a size, a number of messages or several of these; a quarter of it is
    /// for unsafe topics. By default 7d,10GiB, or 256MiB in memory, where only the size counts.
    #[arg(
        long,
        env = "HOOKBOT_RETAIN",
        value_name = "LIMITS",
        help_heading = "Messages"
    )]
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub retain: Option<Retain>,

    /// The largest body that may be published; 25MiB by default.
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    #[serde(deserialize_with = "size")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub max_body: Option<ByteSize>,

    /// The largest body of a call; by default as --max-body. What is called streams, so it takes no
    /// memory.
    #[arg(long, value_name = "SIZE", help_heading = "Calls")]
    #[serde(deserialize_with = "size")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub call_max_body: Option<ByteSize>,

    /// How long a responder may take to begin its answer, once it has all of the call; 30s by
    /// default.
    #[arg(long, value_name = "TIME", help_heading = "Calls")]
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub call_timeout: Option<Span>,

    /// How long a call may stand still, its body or its answer; 90s by default.
    #[arg(long, value_name = "TIME", help_heading = "Calls")]
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub call_idle_timeout: Option<Span>,

    /// The only host at which calls are served, and nothing else is, so that pages of responders
    /// need no sandbox.
    #[arg(long, value_name = "HOST", help_heading = "Calls")]
    pub call_host: Option<String>,

    /// How long a body may take to arrive; 60s by default.
    #[arg(long, value_name = "TIME", help_heading = "Limits")]
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub body_timeout: Option<Span>,

    /// How many bytes of bodies may be on their way in at once; publishers without a token can
    /// take a quarter of it. 256MiB by default.
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    #[serde(deserialize_with = "size")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub max_in_flight: Option<ByteSize>,

    /// How many messages a second may be published without a token; 1000 by default.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub unsafe_rate: Option<NonZeroU32>,

    /// How many connections there may be at once; by default, as many as descriptors.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub max_connections: Option<NonZeroU32>,

    /// How many of these may come from one address, or IPv6 network, that is not a trusted
    /// proxy's; by default half of them, and any number from this machine.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub max_connections_per_address: Option<NonZeroU32>,

    /// How often subscribers are pinged; every 30s by default.
    #[arg(long, value_name = "TIME", help_heading = "Limits")]
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub ping_interval: Option<Span>,

    /// How long a subscriber may neither send nor accept anything; 90s by default.
    #[arg(long, value_name = "TIME", help_heading = "Limits")]
    #[serde(deserialize_with = "parsed")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub write_timeout: Option<Span>,
}

impl ServerTable {
    /// What this says, and for the rest what `other` does.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let origins = match self.origins.is_empty() {
            true => other.origins,
            false => self.origins,
        };
        Self {
            public_url: self.public_url.or(other.public_url),
            open_channels: self.open_channels || other.open_channels,
            channels_token: self.channels_token || other.channels_token,
            origins,
            cors_origin: self.cors_origin.or(other.cors_origin),
            deduplicate: self.deduplicate.or(other.deduplicate),
            grace: self.grace.or(other.grace),
            retain: self.retain.or(other.retain),
            max_body: self.max_body.or(other.max_body),
            call_max_body: self.call_max_body.or(other.call_max_body),
            call_timeout: self.call_timeout.or(other.call_timeout),
            call_idle_timeout: self.call_idle_timeout.or(other.call_idle_timeout),
            call_host: self.call_host.or(other.call_host),
            body_timeout: self.body_timeout.or(other.body_timeout),
            max_in_flight: self.max_in_flight.or(other.max_in_flight),
            unsafe_rate: self.unsafe_rate.or(other.unsafe_rate),
            max_connections: self.max_connections.or(other.max_connections),
            max_connections_per_address: self
                .max_connections_per_address
                .or(other.max_connections_per_address),
            ping_interval: self.ping_interval.or(other.ping_interval),
            write_timeout: self.write_timeout.or(other.write_timeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_first_counts_field_by_field() {
        let table = |text: &str| -> ServerTable { toml::from_str(text).unwrap() };
        let flags = table("max_body = '1MiB'\norigins = ['https://a']");
        let file =
            table("max_body = '2MiB'\nunsafe_rate = 7\norigins = ['https://b']\ngrace = '1s'");
        let both =
            table("max_body = '1MiB'\nunsafe_rate = 7\norigins = ['https://a']\ngrace = '1s'");
        assert_eq!(flags.clone().or(file.clone()), both);
        assert_eq!(ServerTable::default().or(file.clone()), file);
        assert_eq!(flags.clone().or(ServerTable::default()), flags);
    }
}

//! What the server is told.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use hookbot_protocol::Keys;

use super::call::CallSettings;
use super::head::Patience;
use super::rules::Rules;
use super::tls::TlsFiles;

/// How a server behaves. [`Settings::new`] has defaults for everything but the keys.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What may change while the server runs.
    pub rules: Rules,
    /// A list of tokens that are good no longer, one a line; read again when it changes.
    pub deny_file: Option<PathBuf>,
    /// The URL under which the world sees this server; without it, the one a request came to.
    pub public_url: Option<String>,
    /// Whether the clients of smee, gosmee and webhook-over-websocket are served.
    pub open_channels: bool,
    /// Whether having a new channel takes a token for that path.
    pub channels_token: bool,
    /// How long a client of webhook-over-websocket may take to answer.
    pub answer_timeout: Duration,
    /// Origins, besides the server's own, whose pages may use a browser's password; `*` for all.
    pub origins: Vec<String>,
    /// The origin whose pages may read event streams; `*` for all. Without it none may.
    pub cors_origin: Option<String>,
    /// Within this time, a delivery that was published with a token is not published again.
    pub deduplicate: Option<Duration>,
    /// The largest body that may be published, in bytes.
    pub max_body: usize,
    /// How calls are treated.
    pub calls: CallSettings,
    /// For a body, from the end of its head to its own.
    pub body_timeout: Duration,
    /// For a request's head, and between requests.
    pub patience: Patience,
    /// For a TLS handshake.
    pub handshake_timeout: Duration,
    /// How many connections there may be at once.
    pub max_connections: usize,
    /// How many of these may come from one network, unless it is a trusted proxy's; by default
    /// half of them.
    pub max_connections_per_address: Option<usize>,
    /// How many bytes of bodies may be under way at once. A quarter of it is the most that
    /// publishers without a token can take.
    pub max_in_flight: usize,
    /// How many messages a second may be published without a token, all publishers together.
    pub unsafe_rate: NonZeroU32,
    /// How many of these may come from one network; by default half of them.
    pub unsafe_share: Option<NonZeroU32>,
    /// How much memory the process may take, in bytes, before nothing new is let in.
    pub max_memory: Option<u64>,
    /// How often a subscriber is asked for a sign of life.
    pub ping_interval: Duration,
    /// How long a subscriber may neither send nor accept anything.
    pub write_timeout: Duration,
    /// How long open work may take once the server stops.
    pub grace: Duration,
    /// The log's folder, in which questions about it are answered.
    pub data_dir: Option<PathBuf>,
    /// Certificates; without them, plain HTTP.
    pub tls: Option<TlsFiles>,
}

impl Settings {
    /// The defaults, with these keys.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self {
            rules: Rules::new(keys),
            deny_file: None,
            public_url: None,
            open_channels: false,
            channels_token: false,
            answer_timeout: Duration::from_secs(30),
            origins: Vec::new(),
            cors_origin: None,
            deduplicate: None,
            max_body: 25 << 20,
            calls: CallSettings::default(),
            body_timeout: Duration::from_secs(60),
            patience: Patience {
                head: Duration::from_secs(10),
                idle: Duration::from_secs(75),
                write: Duration::from_secs(90),
                linger: Duration::from_secs(2),
            },
            handshake_timeout: Duration::from_secs(10),
            max_connections: 100_000,
            max_connections_per_address: None,
            max_in_flight: 256 << 20,
            unsafe_rate: NonZeroU32::MIN.saturating_add(999),
            unsafe_share: None,
            max_memory: None,
            ping_interval: Duration::from_secs(30),
            write_timeout: Duration::from_secs(90),
            grace: Duration::from_secs(5),
            data_dir: None,
            tls: None,
        }
    }
}

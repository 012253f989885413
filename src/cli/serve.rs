//! `hookbot serve`: the broker.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use hookbot_broker::Broker;
use hookbot_log::{Bounds, DiskLog, Log, MemoryLog, Options};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::route_github::github;
use super::{Failure, GlobalArgs};
use crate::config::{Retain, Span, data_dir};
use crate::server::{
    Bind, ForwardedHeader, Listener, Networks, NetworksError, Patience, Rate, Rules, Server,
    Settings, Tls, TlsFiles, TrustedProxies,
};

/// Runs the broker.
///
/// HOOKBOT_KEY=... hookbot serve is all it takes. A message is on disk before its publisher is
/// told so, and kept for subscribers that are slow or away.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Where to listen: :8080, HOST:PORT, [IPV6]:PORT or unix:PATH; may be repeated.
    #[arg(
        short,
        long,
        env = "HOOKBOT_BIND",
        default_value = ":8080",
        value_name = "ADDRESS"
    )]
    #[arg(value_delimiter = ',')]
    bind: Vec<Bind>,

    /// A router to run; may be repeated. github needs HOOKBOT_GITHUB_SECRET.
    #[arg(long, value_enum, value_name = "NAME")]
    router: Vec<RouterName>,

    /// Accept the Go program's HMAC-SHA1 tokens, too.
    #[arg(long)]
    accept_sha1: bool,

    /// The URL under which the world sees this server.
    #[arg(long, env = "HOOKBOT_PUBLIC_URL", value_name = "URL")]
    public_url: Option<String>,

    /// Another origin whose pages may connect with a browser's password, * for any; may be
    /// repeated.
    #[arg(long, value_name = "ORIGIN")]
    origin: Vec<String>,

    /// An origin whose pages may read event streams, * for any.
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Option<String>,

    /// Publish a delivery only once in this time, however often its sender tries: by the delivery
    /// ids of the well-known providers, for example 24h.
    #[arg(long, value_name = "TIME")]
    deduplicate: Option<Span>,

    /// A file of tokens that are good no longer, one a line: a token's name, the token itself, or
    /// sha256: and its SHA-256. Read again when it changes; connections that such a token has
    /// opened are closed.
    #[arg(long, env = "HOOKBOT_DENY_FILE", value_name = "FILE")]
    deny_file: Option<PathBuf>,

    /// How long open requests and deliveries may take to end when the server stops.
    #[arg(long, default_value = "5s", value_name = "TIME")]
    grace: Span,

    #[command(flatten)]
    storage: StorageArgs,

    #[command(flatten)]
    tls: TlsArgs,

    #[command(flatten)]
    limits: LimitArgs,

    #[command(flatten)]
    addresses: AddressArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RouterName {
    Github,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Messages")]
struct StorageArgs {
    /// Where messages are kept; by default hookbot in the system's folder for state. One server
    /// at a time uses a folder.
    #[arg(long, env = "HOOKBOT_DATA_DIR", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,

    /// Keep messages in memory only, whatever the folder: faster, and gone after a restart.
    #[arg(long)]
    memory: bool,

    /// What is kept, a time, a size, a number of messages or several of these; a quarter of it is
    /// for unsafe topics. By default 7d,10GiB, or 256MiB in memory, where only the size counts.
    #[arg(long, env = "HOOKBOT_RETAIN", value_name = "LIMITS")]
    retain: Option<Retain>,

    /// Give messages up that are damaged, rather than not to start.
    #[arg(long, conflicts_with = "memory")]
    repair: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
struct TlsArgs {
    /// The certificate chain, PEM; plain HTTP without it. Read again when it changes, or on
    /// SIGHUP.
    #[arg(
        short = 'c',
        long = "tls-cert",
        alias = "sslcrt",
        env = "HOOKBOT_TLS_CERT"
    )]
    #[arg(value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Its private key, PEM.
    #[arg(
        short = 'k',
        long = "tls-key",
        alias = "sslkey",
        env = "HOOKBOT_TLS_KEY"
    )]
    #[arg(value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Admit only clients with a certificate from one of these authorities, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    client_ca: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// The largest body that may be published.
    #[arg(long, default_value = "25MiB", value_name = "SIZE")]
    max_body: ByteSize,

    /// How long a body may take to arrive.
    #[arg(long, default_value = "60s", value_name = "TIME")]
    body_timeout: Span,

    /// How many bytes of bodies may be on their way in at once; publishers without a token can
    /// take a quarter of it.
    #[arg(long, default_value = "256MiB", value_name = "SIZE")]
    max_in_flight: ByteSize,

    /// How many messages a second may be published without a token.
    #[arg(long, default_value = "1000", value_name = "N")]
    unsafe_rate: NonZeroU32,

    /// How many of these may come from one address; by default half of them.
    #[arg(long, value_name = "N")]
    unsafe_rate_per_address: Option<NonZeroU32>,

    /// How often one address may publish or subscribe, for example 100/s, 600/m or 1000/h.
    #[arg(long, value_name = "RATE")]
    address_rate: Option<Rate>,

    /// How often one token may be used.
    #[arg(long, value_name = "RATE")]
    token_rate: Option<Rate>,

    /// How often one topic may be published to.
    #[arg(long, value_name = "RATE")]
    topic_rate: Option<Rate>,

    /// How many subscribers there may be.
    #[arg(long, value_name = "N")]
    max_subscribers: Option<usize>,

    /// How many subscribers may use one token.
    #[arg(long, value_name = "N")]
    max_subscribers_per_token: Option<usize>,

    /// How much memory the process may take before nothing new is let in.
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<ByteSize>,

    /// How many connections there may be at once; by default, as many as descriptors.
    #[arg(long, value_name = "N")]
    max_connections: Option<NonZeroU32>,

    /// How often subscribers are pinged.
    #[arg(long, default_value = "30s", value_name = "TIME")]
    ping_interval: Span,

    /// How long a subscriber may neither send nor accept anything.
    #[arg(long, default_value = "90s", value_name = "TIME")]
    write_timeout: Span,
}

/// Each of these takes addresses, networks such as 10.0.0.0/8, and file:PATH for a list of them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Addresses")]
struct AddressArgs {
    /// Proxies whose word for a client's address is taken: addresses, networks, file:PATH for a
    /// list of them, or unix for whoever comes through a unix socket.
    #[arg(long, env = "HOOKBOT_TRUSTED_PROXIES", value_name = "NETWORKS")]
    #[arg(value_delimiter = ',')]
    trusted_proxies: Vec<String>,

    /// The header in which they name the client, x-forwarded-for or forwarded; they have to
    /// overwrite what a client sends in it, or to add to it.
    #[arg(long, value_name = "HEADER", default_value_t)]
    forwarded_header: ForwardedHeader,

    /// Their connections begin with a header of the PROXY protocol, version 1 or 2.
    #[arg(long, requires = "trusted_proxies")]
    proxy_protocol: bool,

    /// The only addresses that may ask anything.
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',')]
    allow_addresses: Vec<String>,

    /// Addresses that may ask nothing.
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',')]
    deny_addresses: Vec<String>,
}

impl AddressArgs {
    /// Puts what was typed into the rules.
    fn apply(&self, rules: &mut Rules) -> Result<(), NetworksError> {
        if !self.trusted_proxies.is_empty() {
            let is_local = |entry: &&String| *entry == "unix";
            let networks = self.trusted_proxies.iter().filter(|entry| !is_local(entry));
            rules.proxies = TrustedProxies {
                networks: Networks::parse(networks)?,
                local: self.trusted_proxies.iter().any(|entry| is_local(&entry)),
                header: self.forwarded_header,
                protocol: self.proxy_protocol,
            };
        }
        if !self.allow_addresses.is_empty() {
            rules.admitted = Some(Networks::parse(&self.allow_addresses)?);
        }
        if !self.deny_addresses.is_empty() {
            rules.refused = Networks::parse(&self.deny_addresses)?;
        }
        Ok(())
    }
}

impl LimitArgs {
    /// Puts what was typed into the rules.
    fn apply(&self, rules: &mut Rules) {
        rules.address_rate = self.address_rate.or(rules.address_rate);
        rules.token_rate = self.token_rate.or(rules.token_rate);
        rules.topic_rate = self.topic_rate.or(rules.topic_rate);
        rules.max_subscribers = self.max_subscribers.or(rules.max_subscribers);
        rules.max_subscribers_per_token = self
            .max_subscribers_per_token
            .or(rules.max_subscribers_per_token);
    }
}

pub(super) fn run(global: &GlobalArgs, args: &ServeArgs) -> Result<(), Failure> {
    let keys = global.keys.keys()?.accepting_sha1(args.accept_sha1);
    let mut settings = args.settings(Settings::new(keys));
    args.limits.apply(&mut settings.rules);
    let applied = args.addresses.apply(&mut settings.rules);
    applied.map_err(|error| Failure::Usage(error.into()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.context("cannot start")?.block_on(async {
        // Before anybody can know that it listens, so that no signal is missed.
        let signals = Signals::new()?;
        let listeners = bind(&args.bind).await?;
        // Those who come while it is read are patient.
        let (log, data_dir) = args.storage.open()?;
        let settings = Settings {
            data_dir,
            ..settings
        };
        let (broker, fan_out) = Broker::new(log);
        tokio::spawn(fan_out.run());
        let mut server =
            Server::new(broker, settings).map_err(|error| Failure::Usage(error.into()))?;
        if args.router.contains(&RouterName::Github) {
            server = server.with_router(Arc::new(github(global)?));
        }
        announce(&listeners, args.tls.tls_cert.is_some())?;
        let stop = CancellationToken::new();
        tokio::spawn(signals.obey(stop.clone(), server.tls()));
        server.run(listeners, stop).await;
        info!("stopped");
        Ok(())
    })
}

impl StorageArgs {
    /// The log, and its folder if it has one.
    fn open(&self) -> Result<(Arc<dyn Log>, Option<PathBuf>), Failure> {
        let retain = self.retain.unwrap_or_default();
        if self.memory {
            info!("messages are kept in memory and will be gone after a restart");
            return Ok((Arc::new(MemoryLog::new(retain.in_memory())), None));
        }
        let folder = data_dir(self.data_dir.as_deref())?;
        let options = Options {
            retain: retain.on_disk(),
            repair: self.repair,
            ..Options::default()
        };
        let log = DiskLog::open(&folder, options)?;
        let Bounds { first, next } = log.bounds();
        info!(folder = %folder.display(), %first, %next, "messages are kept on disk");
        Ok((Arc::new(log), Some(folder)))
    }
}

impl ServeArgs {
    fn settings(&self, defaults: Settings) -> Settings {
        let limits = &self.limits;
        let tls = &self.tls;
        Settings {
            public_url: self.public_url.clone(),
            origins: self.origin.clone(),
            cors_origin: self.cors_origin.clone(),
            deduplicate: self.deduplicate.map(|Span(window)| window),
            max_body: bytes(limits.max_body),
            body_timeout: limits.body_timeout.0,
            max_in_flight: bytes(limits.max_in_flight),
            unsafe_rate: limits.unsafe_rate,
            unsafe_share: limits.unsafe_rate_per_address,
            max_memory: limits.max_memory.map(|size| size.as_u64()),
            deny_file: self.deny_file.clone(),
            max_connections: max_connections(limits.max_connections),
            ping_interval: limits.ping_interval.0,
            write_timeout: limits.write_timeout.0,
            patience: Patience {
                write: limits.write_timeout.0,
                ..defaults.patience
            },
            grace: self.grace.0,
            tls: tls
                .tls_cert
                .clone()
                .zip(tls.tls_key.clone())
                .map(|(certificate, key)| TlsFiles {
                    certificate,
                    key,
                    client_ca: tls.client_ca.clone(),
                }),
            ..defaults
        }
    }
}

fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

/// As many connections as there may be descriptors, less some for everything else.
fn max_connections(wanted: Option<NonZeroU32>) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "cannot raise the number of open files");
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let possible = usize::try_from(descriptors.saturating_sub(OTHER_DESCRIPTORS).max(1));
    let possible = possible.unwrap_or(usize::MAX);
    let wanted = wanted.and_then(|wanted| usize::try_from(wanted.get()).ok());
    if wanted.is_some_and(|wanted| wanted > possible) {
        warn!(
            "only {possible} connections are possible; raise the number of open files (ulimit -n)"
        );
    }
    wanted.unwrap_or(possible).min(possible)
}

/// Descriptors for everything that is not a connection.
const OTHER_DESCRIPTORS: u64 = 32;

async fn bind(addresses: &[Bind]) -> Result<Vec<Listener>, Failure> {
    let mut listeners = Vec::new();
    for address in addresses {
        let bound = Listener::bind(address).await;
        listeners.extend(bound.with_context(|| format!("cannot listen on {address}"))?);
    }
    Ok(listeners)
}

/// Says where the server listens.
fn announce(listeners: &[Listener], secure: bool) -> Result<(), Failure> {
    for listener in listeners {
        let address = listener.address().context("cannot tell the address")?;
        let scheme = if secure { "https" } else { "http" };
        match &address {
            Bind::Unix(_) => info!("Listening on {address}"),
            Bind::Tcp { .. } => info!(scheme, "Listening on {address}"),
        }
    }
    Ok(())
}

/// What the system tells the program to do.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Stops at the first signal, at once at the second, and reloads at a hang-up.
    async fn obey(mut self, stop: CancellationToken, tls: Option<Arc<Tls>>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.hangup.recv() => {
                    if let Some(tls) = &tls {
                        tls.reload();
                    }
                    continue;
                }
            }
            if stop.is_cancelled() {
                std::process::exit(130);
            }
            stop.cancel();
        }
    }
}

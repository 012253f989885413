//! `hookbot serve`: the broker.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use hookbot_broker::Broker;
use hookbot_log::{Bounds, DiskLog, Log, MemoryLog, Options};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::route_github::github;
use super::{Failure, GlobalArgs};
use crate::config::{
    KeyArgs, KeyError, LimitsTable, PublicUrl, Retain, ServerTable, Span, TokensTable, data_dir,
};
use crate::server::{
    Bind, CallSettings, ConfigFile, Configuration, Control, DOOR, Listener, Patience, Server,
    Settings, Tls, TlsFiles,
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

    /// How many threads serve; by default as many as there are cores. With fewer, each request
    /// takes less of the processor, and fewer are served at once.
    #[arg(long, env = "HOOKBOT_THREADS", value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// A file with routes, and with what flags do not say. Read again when it changes, or on
    /// SIGHUP.
    #[arg(long, env = "HOOKBOT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    server: ServerTable,

    #[command(flatten)]
    limits: LimitsTable,

    #[command(flatten)]
    tokens: TokensTable,

    #[command(flatten)]
    storage: StorageArgs,

    #[command(flatten)]
    tls: TlsArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RouterName {
    Github,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Messages")]
struct StorageArgs {
    /// Where messages are kept; by default hookbot in the system's folder for state. One server
    /// at a time uses a folder.
    #[arg(long, env = "HOOKBOT_DATA_DIR", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,

    /// Keep messages in memory only, whatever the folder: faster, and gone after a restart.
    #[arg(long)]
    memory: bool,

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

pub(super) fn run(global: &GlobalArgs, args: &ServeArgs) -> Result<(), Failure> {
    let keys = global.keys.keys()?.accepting_sha1(args.accept_sha1);
    let config = args.config(global).map(ConfigFile::load).transpose()?;
    let server = match &config {
        None => args.server.clone(),
        Some(loaded) => args.server.clone().or(loaded.config.server.clone()),
    };
    let mut settings = args.settings(&server, Settings::new(keys));
    let mut tokens = args.tokens.clone();
    let mut limits = args.limits.clone();
    if let Some(loaded) = &config {
        tokens = tokens.or(loaded.config.tokens.clone());
        limits = limits.or(loaded.config.limits.clone());
        loaded.apply(&mut settings.rules)?;
    } else {
        let applied = limits.apply(&mut settings.rules);
        applied.map_err(|error| Failure::Usage(error.into()))?;
    }
    settings.deny_file = tokens.deny_file;
    settings.unsafe_share = limits.unsafe_rate_per_address;
    settings.max_memory = limits.max_memory.map(|size| size.as_u64());
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = args.threads {
        runtime.worker_threads(threads.get());
    }
    let runtime = runtime.enable_all().build();
    runtime.context("cannot start")?.block_on(async {
        // Before anybody can know that it listens, so that no signal is missed.
        let mut signals = Signals::new()?;
        let listeners = bind(&args.bind).await?;
        // Those who come while it is read are patient.
        let opening = args.storage.open_aside(server.retain);
        let Some(opened) = signals.unless_stopped(opening).await else {
            info!("stopped before the log was open");
            return Ok(());
        };
        let (log, data_dir) = opened?;
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
        if let Some(loaded) = config {
            server = server.with_configuration(loaded)?;
        }
        announce(&listeners, args.tls.tls_cert.is_some())?;
        let stop = CancellationToken::new();
        let reload = Reload {
            tls: server.tls(),
            configuration: server.configuration(),
            control: server.control(),
            keys: global.keys.clone(),
            accept_sha1: args.accept_sha1,
        };
        tokio::spawn(signals.obey(stop.clone(), Arc::new(reload)));
        server.run(listeners, stop).await;
        info!("stopped");
        Ok(())
    })
}

/// The log, and its folder if it has one.
type Opened = (Arc<dyn Log>, Option<PathBuf>);

impl StorageArgs {
    /// Opens the log on a thread that need not be waited for: what it does to the folder may end
    /// anywhere, as it may in a crash.
    async fn open_aside(&self, retain: Option<Retain>) -> Result<Opened, Failure> {
        let (done, opened) = oneshot::channel();
        let own = self.clone();
        std::thread::spawn(move || done.send(own.open(retain)));
        opened.await.context("the log could not be opened")?
    }

    fn open(&self, retain: Option<Retain>) -> Result<Opened, Failure> {
        let retain = retain.unwrap_or_default();
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
    /// The configuration file, if there is one, and what it needs to be read.
    fn config(&self, global: &GlobalArgs) -> Option<ConfigFile> {
        let routers = self.router.iter().map(|name| match name {
            RouterName::Github => "github".to_owned(),
        });
        Some(ConfigFile {
            file: self.config.clone()?,
            github: global.github_secret.clone(),
            taken: routers.collect(),
            limits: self.limits.clone(),
        })
    }

    /// What `server`, flags and file together, comes to.
    fn settings(&self, server: &ServerTable, defaults: Settings) -> Settings {
        let time = |said: Option<Span>, default| said.map_or(default, |Span(time)| time);
        let size = |said: Option<ByteSize>, default| said.map_or(default, bytes);
        let write_timeout = time(server.write_timeout, defaults.write_timeout);
        let max_body = size(server.max_body, defaults.max_body);
        let tls = &self.tls;
        Settings {
            public_url: server.public_url.clone().map(|PublicUrl(url)| url),
            open_channels: server.open_channels,
            channels_token: server.channels_token,
            origins: server.origins.clone(),
            cors_origin: server.cors_origin.clone(),
            deduplicate: server.deduplicate.map(|Span(window)| window),
            max_body,
            calls: CallSettings {
                timeout: time(server.call_timeout, defaults.calls.timeout),
                idle_timeout: time(server.call_idle_timeout, defaults.calls.idle_timeout),
                max_body: size(server.call_max_body, max_body) as u64,
                host: server.call_host.clone(),
                ..defaults.calls
            },
            body_timeout: time(server.body_timeout, defaults.body_timeout),
            max_in_flight: size(server.max_in_flight, defaults.max_in_flight),
            unsafe_rate: server.unsafe_rate.unwrap_or(defaults.unsafe_rate),
            max_connections: max_connections(server.max_connections),
            max_connections_per_address: server
                .max_connections_per_address
                .and_then(|wanted| usize::try_from(wanted.get()).ok()),
            ping_interval: time(server.ping_interval, defaults.ping_interval),
            write_timeout,
            patience: Patience {
                write: write_timeout,
                ..defaults.patience
            },
            grace: time(server.grace, defaults.grace),
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

/// Descriptors for everything that is not a connection with a place.
const OTHER_DESCRIPTORS: u64 = 28 + (DOOR + DiskLog::DESCRIPTORS) as u64;

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

/// What is read again at a hang-up.
struct Reload {
    tls: Option<Arc<Tls>>,
    configuration: Option<Arc<Configuration>>,
    control: Control,
    keys: KeyArgs,
    accept_sha1: bool,
}

impl Reload {
    /// Reads everything again. What can't be used is logged, and stays as it was.
    async fn everything(&self) {
        if let Some(tls) = &self.tls {
            tls.reload();
        }
        // Only files can have changed: flags and environment are those of the start.
        let changed = self.control.update(|rules| {
            rules.keys = self.keys.keys()?.accepting_sha1(self.accept_sha1);
            Ok::<_, KeyError>(())
        });
        match changed.await {
            Ok(()) => info!("keys read again"),
            Err(error) => warn!(%error, "the old keys stay in use"),
        }
        if let Some(configuration) = &self.configuration {
            configuration.reload().await;
        }
    }
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

    /// Does something that may be left half done, unless the program is told to stop before.
    async fn unless_stopped<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            _ = self.terminate.recv() => None,
            _ = self.interrupt.recv() => None,
        }
    }

    /// Stops at the first signal, at once at the second, and reloads at a hang-up.
    async fn obey(mut self, stop: CancellationToken, reload: Arc<Reload>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.hangup.recv() => {
                    let reload = reload.clone();
                    // The next signal may be one to stop.
                    tokio::spawn(async move { reload.everything().await });
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, getpid, kill_process};

    #[tokio::test]
    async fn a_server_that_is_still_starting_can_be_stopped() {
        let mut signals = Signals::new().unwrap();
        assert_eq!(
            signals.unless_stopped(async { "started" }).await,
            Some("started")
        );
        for signal in [Signal::TERM, Signal::INT] {
            kill_process(getpid(), signal).unwrap();
            assert_eq!(
                signals.unless_stopped(std::future::pending::<()>()).await,
                None
            );
        }
    }
}

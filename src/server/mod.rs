//! The server: HTTP in, WebSockets out.
//!
//! It turns what comes over a socket into typed values, asks the broker, and writes the answer.
//! The broker's rules are not here. Below this page, in reading order: a [`Listener`] accepts,
//! `connection` speaks HTTP on what was accepted, `service` checks a request and finds its
//! endpoint, `publish`, `subscribe` and `call` are the endpoints, and a `subscriber` is served over a
//! [`socket`], or over a response by an `event_stream`. [`admin`] answers questions about the log.
//!
//! Every wait here has a deadline and everything that is kept a bound; they are all in
//! [`Settings`], or constants beside their use.

mod address_guard;
pub mod admin;
mod base_url;
mod call;
mod channels;
mod configuration;
mod connection;
mod cors;
mod credentials;
mod deliveries;
mod deny_file;
mod error;
mod event_stream;
mod fingerprint;
mod gate;
mod handshake;
mod head;
mod limits;
mod listener;
mod log_metrics;
mod memory;
mod metrics;
mod networks;
mod place;
mod places;
mod proxies;
mod publish;
mod rate;
mod reading;
mod reply;
mod roster;
mod round;
mod routing;
mod rules;
mod service;
mod settings;
pub mod socket;
mod source;
mod source_metrics;
mod subscribe;
mod subscriber;
mod tls;
mod token_uses;
mod transport;
mod verified;
mod wish;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hookbot_broker::Broker;
use hookbot_protocol::DenyList;
use hookbot_routers::Router;
use hookbot_signatures::Scheme;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::config::ConfigError;

pub use address_guard::{AddressGuard, ForbiddenAddress};
pub use call::CallSettings;
use call::Exchange;
use channels::{ChannelId, Responders};
pub use configuration::{ConfigFile, Configuration, LoadedConfig};
use deliveries::Board;
pub use deliveries::{
    Delivery, DeliveryError, DeliveryReport, DeliveryState, Retried, Signer, SignerError, store_in,
};
use deny_file::DenyFile;
pub use deny_file::DenyFileError;
pub use head::Patience;
use limits::{Budget, Failures, Strangers};
pub use listener::{Bind, BindSyntax, Listener};
use memory::Memory;
use metrics::Metrics;
pub use networks::{Networks, NetworksError};
pub(crate) use places::DOOR;
use places::Places;
pub use proxies::{ForwardedHeader, ForwardedHeaderError, TrustedProxies};
pub use rate::{Period, Rate, RateError};
use roster::{Pass, Roster};
pub use routing::Routing;
use rules::Rulebook;
pub use rules::Rules;
pub use settings::Settings;
pub use source::{
    Fallback, FixedReply, OnFail, Promotion, Source, SourceError, SourceSecret, Sources,
};
pub use tls::{Tls, TlsError, TlsFiles};
pub use token_uses::PreviousUse;
use token_uses::TokenUses;
pub use transport::{Peer, Transport};

/// A server that is set up and not running yet.
pub struct Server {
    state: Arc<State>,
    routers: Vec<Arc<dyn Router>>,
    routing: Arc<Routing>,
    configuration: Option<Arc<Configuration>>,
    deny_file: Option<DenyFile>,
}

/// What every connection shares.
struct State {
    broker: Broker,
    settings: Settings,
    tls: Option<Arc<Tls>>,
    metrics: Metrics,
    failures: Failures,
    strangers: Strangers,
    /// The rules as they are now.
    book: Arc<ArcSwap<Rulebook>>,
    /// Held while rules are changed.
    changing: tokio::sync::Mutex<()>,
    /// What the file of revoked tokens says.
    revoked: ArcSwap<DenyList>,
    roster: Arc<Roster>,
    responders: Arc<Responders>,
    exchange: Arc<Exchange>,
    token_uses: TokenUses,
    memory: Memory,
    /// For every publisher, and for those without a token on top.
    bodies: [Budget; 2],
    places: Arc<Places>,
    /// No more connections, no more requests.
    stop: CancellationToken,
    /// No more for the routers than there is.
    last_call: CancellationToken,
    /// No more subscribers.
    close: CancellationToken,
    /// What is asked and not answered yet.
    requests: TaskTracker,
    routing: TaskTracker,
    /// What is delivered to services.
    deliveries: Board,
    delivering: TaskTracker,
    /// Every connection, whatever it has become.
    connections: TaskTracker,
}

impl Server {
    /// Sets a server up.
    ///
    /// # Errors
    ///
    /// When the certificate or the list of revoked tokens can't be used.
    pub fn new(broker: Broker, settings: Settings) -> Result<Self, SetupError> {
        let tls = settings.tls.clone().map(Tls::load).transpose()?;
        let denied = settings.deny_file.clone().map(DenyFile::load).transpose()?;
        let (deny_file, revoked) = denied.unzip();
        let book = Rulebook::new(settings.rules.clone(), None);
        let book = Arc::new(ArcSwap::from_pointee(book));
        let share = settings
            .unsafe_share
            .unwrap_or_else(|| half(settings.unsafe_rate));
        let token_uses = TokenUses::default();
        let deliveries = Board::default();
        let state = State {
            metrics: Metrics::new(
                broker.clone(),
                book.clone(),
                &token_uses,
                deliveries.clone(),
            ),
            broker,
            tls: tls.map(Arc::new),
            failures: Failures::new(),
            strangers: Strangers::new(settings.unsafe_rate, share),
            book,
            changing: tokio::sync::Mutex::new(()),
            revoked: ArcSwap::from_pointee(revoked.unwrap_or_default()),
            roster: Arc::default(),
            responders: Arc::default(),
            exchange: Arc::default(),
            token_uses,
            memory: Memory::default(),
            bodies: [settings.max_in_flight, settings.max_in_flight / 4].map(Budget::new),
            places: Arc::new(Places::new(
                settings.max_connections,
                settings.max_connections_per_address,
            )),
            stop: CancellationToken::new(),
            last_call: CancellationToken::new(),
            close: CancellationToken::new(),
            requests: TaskTracker::new(),
            routing: TaskTracker::new(),
            deliveries,
            delivering: TaskTracker::new(),
            connections: TaskTracker::new(),
            settings,
        };
        state.advise();
        let state = Arc::new(state);
        Ok(Self {
            routing: Arc::new(Routing::new(state.clone())),
            state,
            routers: Vec::new(),
            configuration: None,
            deny_file,
        })
    }

    /// Adds a router, which reads and publishes in this process as long as the server runs.
    #[must_use]
    pub fn with_router(mut self, router: Arc<dyn Router>) -> Self {
        self.routers.push(router);
        self
    }

    /// Does what a file says, and what it will say when it changes. Of its `[server]` only the
    /// caller knows what to do.
    ///
    /// # Errors
    ///
    /// When a secret or a certificate of a delivery can't be used.
    pub fn with_configuration(mut self, loaded: LoadedConfig) -> Result<Self, ConfigError> {
        let (state, routing) = (self.state.clone(), self.routing.clone());
        let configuration = Configuration::new(state, routing, loaded)?;
        self.configuration = Some(Arc::new(configuration));
        Ok(self)
    }

    /// The file's part, so that somebody can have it reloaded.
    #[must_use]
    pub fn configuration(&self) -> Option<Arc<Configuration>> {
        self.configuration.clone()
    }

    /// Routers that somebody may exchange, before the server runs and while it does.
    #[must_use]
    pub fn routing(&self) -> Arc<Routing> {
        self.routing.clone()
    }

    /// What connections are secured with, so that somebody can have it reloaded.
    #[must_use]
    pub fn tls(&self) -> Option<Arc<Tls>> {
        self.state.tls.clone()
    }

    /// What changes the rules while the server runs.
    #[must_use]
    pub fn control(&self) -> Control {
        Control(self.state.clone())
    }

    /// Serves until `stop` is cancelled and open work has ended, or had its grace.
    pub async fn run(self, listeners: Vec<Listener>, stop: CancellationToken) {
        let Self {
            state,
            routers,
            configuration,
            deny_file,
            routing: _,
        } = self;
        for router in routers {
            routing::run(&state, router).await;
        }
        if let Some(configuration) = &configuration {
            configuration.begin().await;
        }
        let background = TaskTracker::new();
        // Before anybody can be served, so that whoever was can also ask.
        if let Some(listener) = state.settings.data_dir.as_deref().and_then(admin::listen) {
            let (stop, state) = (state.stop.clone(), state.clone());
            background.spawn(async move {
                stop.run_until_cancelled(admin::serve(state, listener))
                    .await
            });
        }
        for listener in listeners {
            background.spawn(accept(state.clone(), listener));
        }
        if let Some(tls) = state.tls.clone() {
            let stop = state.stop.clone();
            background.spawn(async move { stop.run_until_cancelled(tls.watch()).await });
        }
        if let Some(configuration) = configuration {
            let stop = state.stop.clone();
            background.spawn(async move { stop.run_until_cancelled(configuration.watch()).await });
        }
        if let Some(file) = deny_file {
            // Until the last subscriber is gone.
            let stop = state.close.clone();
            let watching = file.watch(Control(state.clone()));
            tokio::spawn(async move { stop.run_until_cancelled(watching).await });
        }
        if let Some(limit) = state.settings.max_memory {
            let (stop, memory) = (state.stop.clone(), state.memory.clone());
            background.spawn(async move { stop.run_until_cancelled(memory.watch(limit)).await });
        }
        stop.cancelled().await;
        info!("stopping");
        state.stop.cancel();
        background.close();
        background.wait().await;
        if timeout(state.settings.grace, state.drain()).await.is_err() {
            warn!("some connections had to be cut off");
        }
    }
}

/// Changes the rules of a running server; clones change the same server's.
#[derive(Clone)]
pub struct Control(Arc<State>);

impl Control {
    /// The rules as they are now.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.0.book.load().rules.clone()
    }

    /// How each delivery is doing, in the order of the file.
    #[must_use]
    pub fn deliveries(&self) -> Vec<DeliveryReport> {
        self.0.deliveries.reports()
    }

    /// Changes the rules, or nothing when `change` fails.
    ///
    /// # Errors
    ///
    /// What `change` says.
    pub async fn update<E>(
        &self,
        change: impl FnOnce(&mut Rules) -> Result<(), E>,
    ) -> Result<(), E> {
        // Of two changes at a time, one would undo the other.
        let _alone = self.0.changing.lock().await;
        let mut rules = self.rules();
        change(&mut rules)?;
        self.replace(rules).await;
        Ok(())
    }

    /// Puts other rules in their place. Requests under way end by the old ones; subscribers whom
    /// the new ones no longer allow are closed.
    pub async fn replace(&self, rules: Rules) {
        let before = self.0.book.load_full();
        let same_keys = before.rules.keys.is_same(&rules.keys);
        self.0
            .book
            .store(Arc::new(Rulebook::new(rules, Some(&before))));
        if !same_keys {
            self.0.token_uses.forget_previous();
        }
        self.0.advise();
        self.review(!same_keys).await;
    }

    /// Has these tokens and channels, besides those of the rules, be good no longer, and those of an
    /// earlier call be good again. Subscribers who came with one are closed.
    pub async fn revoke(&self, tokens: DenyList) {
        info!(entries = tokens.len(), "tokens and channels are revoked");
        self.0.revoked.store(Arc::new(tokens));
        self.review(false).await;
    }

    /// Has those subscribers leave who may not stay.
    async fn review(&self, keys_changed: bool) {
        let state = self.0.clone();
        // It verifies the token of each of them.
        let reviewing = spawn_blocking(move || {
            let book = state.book.load_full();
            state.roster.review(|own| {
                state.may_stay(&own.pass, own.address)
                    && (!keys_changed || book.still_grants(&own.path, &own.pass))
            })
        });
        match reviewing.await {
            Ok(0) => {}
            Ok(closed) => info!(closed, "subscribers whose token or address is refused now"),
            Err(error) => warn!(%error, "subscribers could not be reviewed"),
        }
    }
}

/// Why a server can't be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The list of revoked tokens can't be used.
    #[error(transparent)]
    DenyFile(#[from] DenyFileError),
}

fn half(rate: std::num::NonZeroU32) -> std::num::NonZeroU32 {
    std::num::NonZeroU32::new(rate.get() / 2).unwrap_or(rate)
}

impl State {
    /// Says what is allowed and hardly meant.
    fn advise(&self) {
        let book = self.book.load();
        for source in book.rules.sources.iter() {
            let signs_url = source.scheme.as_ref().is_some_and(Scheme::signs_url);
            if signs_url && self.settings.public_url.is_none() {
                let source = &source.name;
                warn!(
                    source,
                    "its provider signs URLs: without public_url they are taken from Host"
                );
            }
        }
    }

    /// Whether one who has come with this, from there, is still welcome.
    fn may_stay(&self, pass: &Pass, address: Option<IpAddr>) -> bool {
        let book = self.book.load();
        let rules = &book.rules;
        let peer = address.map_or(Peer::Local, |ip| Peer::Ip((ip, 0).into()));
        let is_denied = match pass {
            Pass::Token(token) => rules.denied.denies(token) || self.revoked.load().denies(token),
            Pass::Channel(id) => self.denies_channel(&book, id),
        };
        !is_denied && rules.admits(peer).is_ok()
    }

    /// Whether this channel is revoked.
    fn denies_channel(&self, book: &Rulebook, id: &ChannelId) -> bool {
        let lists = [&book.rules.denied, &self.revoked.load()];
        let fingerprint = id.fingerprint();
        lists
            .iter()
            .any(|list| list.denies_fingerprint(&fingerprint))
    }

    /// Ends open work in the order in which one part feeds the next, so that what was
    /// acknowledged is also routed and delivered.
    async fn drain(&self) {
        let share = self.settings.grace / 3;
        self.requests.close();
        // One who never ends a request must not cost the others their goodbye.
        let _ = timeout(share, self.requests.wait()).await;
        self.broker.flushed().await;
        self.last_call.cancel();
        self.routing.close();
        let _ = timeout(share, self.routing.wait()).await;
        self.broker.flushed().await;
        self.close.cancel();
        self.connections.close();
        self.delivering.close();
        tokio::join!(self.connections.wait(), self.delivering.wait());
    }
}

/// Accepts connections until the server stops. Does nothing with them here: one slow client
/// would keep all newcomers waiting.
async fn accept(state: Arc<State>, listener: Listener) {
    let patience = state.settings.write_timeout;
    let accepting = async {
        loop {
            let Some(door) = state.places.door().await else {
                return;
            };
            match listener.accept(patience).await {
                Ok((stream, peer)) => connection::start(&state, stream, peer, door),
                Err(error) if is_peers(&error) => {}
                Err(error) => {
                    warn!(%error, "cannot accept connections, trying again in {ACCEPT_PAUSE:?}");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    state.stop.run_until_cancelled(accepting).await;
}

/// Whether an accept failed because of that one connection, which is gone already.
fn is_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput
    )
}

/// How long to wait for descriptors to become free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

//! The server: HTTP in, WebSockets out.
//!
//! It turns what comes over a socket into typed values, asks the broker, and writes the answer.
//! The broker's rules are not here. Below this page, in reading order: a [`Listener`] accepts,
//! `connection` speaks HTTP on what was accepted, `service` checks a request and finds its
//! endpoint, `publish` and `subscribe` are the endpoints, and a `subscriber` is served over a
//! [`socket`], or over a response by an `event_stream`. [`admin`] answers questions about the log.
//!
//! Every wait here has a deadline and everything that is kept a bound; they are all in
//! [`Settings`], or constants beside their use.

pub mod admin;
mod configuration;
mod connection;
mod cors;
mod credentials;
mod error;
mod event_stream;
mod fingerprint;
mod head;
mod limits;
mod listener;
mod log_metrics;
mod metrics;
mod publish;
mod reply;
mod routing;
mod service;
mod settings;
pub mod socket;
mod subscribe;
mod subscriber;
mod tls;
mod transport;
mod wish;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hookbot_broker::Broker;
use hookbot_routers::Router;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::config::Config;

pub use configuration::{ConfigFile, Configuration};
pub use head::Patience;
use limits::{Budget, Failures, Rate};
pub use listener::{Bind, BindSyntax, Listener};
use metrics::Metrics;
pub use routing::Routing;
pub use settings::Settings;
pub use tls::{Tls, TlsError, TlsFiles};
pub use transport::{Peer, Transport};

/// A server that is set up and not running yet.
pub struct Server {
    state: Arc<State>,
    routers: Vec<Arc<dyn Router>>,
    routing: Arc<Routing>,
    configuration: Option<Arc<Configuration>>,
}

/// What every connection shares.
struct State {
    broker: Broker,
    settings: Settings,
    tls: Option<Arc<Tls>>,
    metrics: Metrics,
    failures: Failures,
    unsafe_rate: Rate,
    /// For every publisher, and for those without a token on top.
    bodies: [Budget; 2],
    places: Arc<Semaphore>,
    /// No more connections, no more requests.
    stop: CancellationToken,
    /// No more for the routers than there is.
    last_call: CancellationToken,
    /// No more subscribers.
    close: CancellationToken,
    /// What is asked and not answered yet.
    requests: TaskTracker,
    routing: TaskTracker,
    /// Every connection, whatever it has become.
    connections: TaskTracker,
}

impl Server {
    /// Sets a server up.
    ///
    /// # Errors
    ///
    /// When the certificate can't be used.
    pub fn new(broker: Broker, settings: Settings) -> Result<Self, TlsError> {
        let tls = settings.tls.clone().map(Tls::load).transpose()?;
        let state = State {
            metrics: Metrics::new(broker.clone()),
            broker,
            tls: tls.map(Arc::new),
            failures: Failures::new(),
            unsafe_rate: Rate::new(settings.unsafe_rate),
            bodies: [settings.max_in_flight, settings.max_in_flight / 4].map(Budget::new),
            places: Arc::new(Semaphore::new(
                settings.max_connections.min(Semaphore::MAX_PERMITS),
            )),
            stop: CancellationToken::new(),
            last_call: CancellationToken::new(),
            close: CancellationToken::new(),
            requests: TaskTracker::new(),
            routing: TaskTracker::new(),
            connections: TaskTracker::new(),
            settings,
        };
        let state = Arc::new(state);
        Ok(Self {
            routing: Arc::new(Routing::new(state.clone())),
            state,
            routers: Vec::new(),
            configuration: None,
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
    #[must_use]
    pub fn with_configuration(mut self, file: ConfigFile, config: Config) -> Self {
        let (state, routing) = (self.state.clone(), self.routing.clone());
        let configuration = Configuration::new(state, routing, file, config);
        self.configuration = Some(Arc::new(configuration));
        self
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

    /// Serves until `stop` is cancelled and open work has ended, or had its grace.
    pub async fn run(self, listeners: Vec<Listener>, stop: CancellationToken) {
        let Self {
            state,
            routers,
            configuration,
            routing: _,
        } = self;
        for router in routers {
            routing::run(&state, router).await;
        }
        if let Some(configuration) = &configuration {
            configuration.begin().await;
        }
        let background = TaskTracker::new();
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
        if let Some(folder) = state.settings.data_dir.clone() {
            let (stop, log) = (state.stop.clone(), state.broker.log());
            background
                .spawn(async move { stop.run_until_cancelled(admin::serve(log, folder)).await });
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

impl State {
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
        self.connections.wait().await;
    }
}

/// Accepts connections until the server stops. Does nothing with them here: one slow client
/// would keep all newcomers waiting.
async fn accept(state: Arc<State>, listener: Listener) {
    let patience = state.settings.write_timeout;
    let accepting = async {
        loop {
            // Beyond the limit, newcomers wait in the system's queue.
            let Ok(place) = state.places.clone().acquire_owned().await else {
                return;
            };
            match listener.accept(patience).await {
                Ok((stream, peer)) => {
                    connection::start(&state, Transport::new(stream, place), peer)
                }
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

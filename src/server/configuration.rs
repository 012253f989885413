//! The configuration file of a running server: read again when it changes.
//!
//! Routes are exchanged while everything else goes on; a route that is still the same is not even
//! interrupted. A file that is wrong changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hookbot_routers::{Router, Rule};
use tokio::sync::Mutex;
use tracing::{error, info, warn};

use super::deliveries::{Deliveries, Delivery};
use super::fingerprint::Fingerprint;
use super::routing::Routing;
use super::rules::Rules;
use super::source::Sources;
use super::{Control, State};
use crate::config::{
    Config, ConfigError, DeliverTable, LimitsTable, Secret, ServerTable, SourceTable,
    SourceTableError, TokensTable,
};

/// Where the configuration is, and what it needs beside it.
#[derive(Debug, Clone, Default)]
pub struct ConfigFile {
    /// Where it is.
    pub file: PathBuf,
    /// What GitHub signs with.
    pub github: Option<Secret>,
    /// What routers are called that are not of the file, so that no route may be.
    pub taken: Vec<String>,
    /// What flags say of limits, which counts for more than the file.
    pub limits: LimitsTable,
}

/// A configuration, and the file it was read from.
#[derive(Debug)]
pub struct LoadedConfig {
    /// Where it is from.
    pub file: ConfigFile,
    /// What it says.
    pub config: Config,
    fingerprint: Fingerprint,
}

impl LoadedConfig {
    /// Makes what the file says of sources, limits and tokens part of the rules.
    ///
    /// # Errors
    ///
    /// When a secret or a list of addresses can't be read.
    pub fn apply(&self, rules: &mut Rules) -> Result<(), ConfigError> {
        self.file.apply(&self.config, rules)
    }
}

impl ConfigFile {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// When it can't be read, is wrong, or lacks something that a server has to know.
    pub fn load(self) -> Result<LoadedConfig, ConfigError> {
        // Before it is read: a change that comes now is seen later.
        let fingerprint = Fingerprint::of(&self.file);
        Ok(LoadedConfig {
            config: self.read()?,
            file: self,
            fingerprint,
        })
    }

    fn read(&self) -> Result<Config, ConfigError> {
        let github = self
            .github
            .as_ref()
            .map(|secret| secret.expose().as_bytes());
        let config = Config::load(&self.file, github)?;
        for rule in &config.routes {
            let route = rule.name().to_owned();
            if let Some(topics) = config.unverified(rule) {
                return Err(ConfigError::NoSecret { route, topics });
            }
            if self.taken.contains(&route) {
                return Err(ConfigError::Taken { route });
            }
        }
        Ok(config)
    }

    fn apply(&self, config: &Config, rules: &mut Rules) -> Result<(), ConfigError> {
        let sources = config.sources.iter().map(SourceTable::source);
        let sources: Result<Vec<_>, _> = sources.collect();
        rules.sources = Sources::new(sources?).map_err(SourceTableError::from)?;
        rules.denied = config.tokens.deny.clone();
        self.limits.clone().or(config.limits.clone()).apply(rules)?;
        Ok(())
    }
}

/// The deliveries of a file, with their secrets.
fn deliveries(config: &Config) -> Result<Vec<Delivery>, ConfigError> {
    let tables = config.deliveries.iter();
    let deliveries: Result<_, _> = tables.map(DeliverTable::delivery).collect();
    Ok(deliveries?)
}

/// What the server does because of its file, at the moment.
pub struct Configuration {
    state: Arc<State>,
    routing: Arc<Routing>,
    deliveries: Deliveries,
    file: ConfigFile,
    at_start: AtStart,
    current: Mutex<Current>,
}

/// What takes effect at the start alone.
#[derive(PartialEq)]
struct AtStart {
    server: ServerTable,
    tokens: TokensTable,
    limits: LimitsTable,
}

impl AtStart {
    fn of(config: &Config) -> Self {
        let LimitsTable {
            unsafe_rate_per_address,
            max_memory,
            ..
        } = config.limits;
        Self {
            server: config.server.clone(),
            tokens: TokensTable {
                deny_file: config.tokens.deny_file.clone(),
                ..TokensTable::default()
            },
            limits: LimitsTable {
                unsafe_rate_per_address,
                max_memory,
                ..LimitsTable::default()
            },
        }
    }
}

struct Current {
    rules: Vec<Arc<Rule>>,
    deliveries: Vec<Delivery>,
    /// Of the file that was read last, good or not.
    fingerprint: Fingerprint,
}

impl Configuration {
    /// What the file says.
    ///
    /// # Errors
    ///
    /// When what a delivery needs can't be read.
    pub(super) fn new(
        state: Arc<State>,
        routing: Arc<Routing>,
        loaded: LoadedConfig,
    ) -> Result<Self, ConfigError> {
        let LoadedConfig {
            file,
            config,
            fingerprint,
        } = loaded;
        let at_start = AtStart::of(&config);
        let current = Current {
            deliveries: deliveries(&config)?,
            rules: config.routes.into_iter().map(Arc::new).collect(),
            fingerprint,
        };
        Ok(Self {
            deliveries: Deliveries::new(state.clone()),
            state,
            routing,
            file,
            at_start,
            current: Mutex::new(current),
        })
    }

    /// Starts the routes and the deliveries.
    pub(super) async fn begin(&self) {
        let current = self.current.lock().await;
        self.replace(&current.rules).await;
        self.deliveries.replace(&current.deliveries).await;
    }

    /// Reads the file again. One that is wrong is logged, and everything stays as it is.
    pub async fn reload(&self) {
        let mut current = self.current.lock().await;
        // Before it is read: a change that comes now is seen later.
        current.fingerprint = Fingerprint::of(&self.file.file);
        let loaded = self.file.read();
        let control = Control(self.state.clone());
        let loaded = loaded.and_then(|config| Ok((deliveries(&config)?, config)));
        let loaded = match loaded {
            Ok((deliveries, config)) => {
                let applied = control.update(|rules| self.file.apply(&config, rules));
                applied.await.map(|()| (deliveries, config))
            }
            Err(error) => Err(error),
        };
        let (deliveries, config) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                self.state.metrics.config_reload_failures.inc();
                error!(file = %self.file.file.display(), error = %error.brief(), "the old configuration stays in use");
                return;
            }
        };
        if AtStart::of(&config) != self.at_start {
            warn!(
                "[server], deny_file, max_memory or unsafe_rate_per_address has changed, which takes effect with the next start"
            );
        }
        let old = &current.rules;
        let same = |rule: Rule| {
            let mut old = old.iter();
            let same = old.find(|old| old.route() == rule.route());
            same.cloned().unwrap_or_else(|| Arc::new(rule))
        };
        let rules: Vec<_> = config.routes.into_iter().map(same).collect();
        self.replace(&rules).await;
        current.rules = rules;
        self.deliveries.replace(&deliveries).await;
        current.deliveries = deliveries;
        self.state.metrics.config_reloads.inc();
        info!(file = %self.file.file.display(), routes = current.rules.len(), sources = config.sources.len(), deliveries = current.deliveries.len(), "configuration loaded again");
    }

    async fn replace(&self, rules: &[Arc<Rule>]) {
        let rules = rules.iter().cloned();
        self.routing
            .replace(rules.map(|rule| rule as Arc<dyn Router>).collect())
            .await;
    }

    /// Reloads whenever the file changes, until dropped.
    pub(super) async fn watch(&self) {
        loop {
            let now = Fingerprint::at_rest(&self.file.file, WATCH_INTERVAL).await;
            if now != self.current.lock().await.fingerprint {
                self.reload().await;
            }
        }
    }
}

/// How often the file is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

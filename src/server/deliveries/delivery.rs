//! A delivery as meant: which messages go where, and how.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hookbot_forward::selection::Invalid;
use hookbot_forward::target::{HostHeader, PathMode, TargetError};
use hookbot_forward::tls::TlsSettings;
use hookbot_forward::{Selection, Settings, Target, TargetSettings};
use hookbot_listen::dial::Guard;
use hookbot_protocol::Filter;
use hookbot_signatures::{EmptySecret, Provider, Secret};
use http::{HeaderName, HeaderValue};

use super::super::networks::Networks;
use super::signer::{Signer, SignerError};

/// Which messages are delivered where, and how. Two that are equal are the same delivery.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What it is called, which its place belongs to.
    pub name: String,
    /// What it reads.
    pub filter: Filter,
    /// Whether messages are for it that anybody has published and nobody has verified.
    pub unverified: bool,
    /// Whether it begins with the oldest message that is kept, rather than with the next one.
    pub from_start: bool,
    /// An expression that is true of the messages that are for it.
    pub when: Option<String>,
    /// A template of the body.
    pub transform: Option<String>,
    /// Where it goes.
    pub url: String,
    /// What becomes of the topic there.
    pub path: PathMode,
    /// The `Host` to send.
    pub host: HostHeader,
    /// What else to send.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How it is signed, where there are secrets.
    pub sign: Provider,
    /// What it is signed with.
    pub secrets: Vec<Vec<u8>>,
    /// Addresses it may reach that are not public.
    pub allowed: Networks,
    /// Certificates to trust besides the system's, PEM.
    pub ca: Option<Vec<u8>>,
    /// Whether every certificate is trusted.
    pub insecure: bool,
    /// How long the service may take to answer.
    pub timeout: Duration,
    /// How often a message is tried again before it is put aside.
    pub retries: Option<u32>,
    /// The longest pause before that the first time; it doubles with each.
    pub pause: Duration,
    /// The longest pause of all.
    pub max_pause: Duration,
    /// How many messages are on their way at once.
    pub concurrency: usize,
    /// An expression; what it gives one value is delivered one after the other.
    pub key: Option<String>,
}

impl Delivery {
    /// The service that it goes to.
    ///
    /// # Errors
    ///
    /// When there can't be one.
    pub fn target(&self, guard: Arc<Guard>) -> Result<Target, DeliveryError> {
        let mut tls = TlsSettings::default();
        tls.insecure = self.insecure;
        if let Some(pem) = &self.ca {
            tls.trust(pem).map_err(TargetError::from)?;
        }
        let settings = TargetSettings {
            path: self.path.clone(),
            host: self.host.clone(),
            headers: self.headers.clone(),
            timeout: self.timeout,
            connect_timeout: self.timeout.min(CONNECT_TIMEOUT),
            tls,
            guard: Some(guard),
            ..TargetSettings::default()
        };
        Ok(Target::new(&self.url, settings)?)
    }

    /// Which messages are for it, and what is made of them.
    ///
    /// # Errors
    ///
    /// When an expression or a template is none.
    pub fn selection(&self) -> Result<Selection, Invalid> {
        let mut selection = Selection::default();
        if let Some(when) = &self.when {
            selection = selection.filter(when)?;
        }
        if let Some(transform) = &self.transform {
            selection = selection.transform(transform)?;
        }
        match &self.key {
            Some(key) => selection.key(key),
            None if self.concurrency > 1 => selection.key("topic"),
            None => Ok(selection),
        }
    }

    /// How hard it tries.
    #[must_use]
    pub fn forwarding(&self) -> Settings {
        Settings {
            concurrency: self.concurrency,
            retries: self.retries,
            first_pause: self.pause,
            last_pause: self.max_pause,
            ahead: AHEAD,
            ..Settings::default()
        }
    }

    /// What signs for it, if anything does.
    ///
    /// # Errors
    ///
    /// When its secrets sign nothing.
    pub fn signer(&self) -> Result<Option<Signer>, DeliveryError> {
        if self.secrets.is_empty() {
            return Ok(None);
        }
        let secrets = self.secrets.iter().cloned().map(Secret::new);
        let secrets = secrets.collect::<Result<_, _>>()?;
        Ok(Some(Signer::new(self.sign, secrets)?))
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("name", &self.name)
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

/// Why a delivery can't be made. Names no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// Its URL or its certificates can't be used.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A secret is empty.
    #[error(transparent)]
    EmptySecret(#[from] EmptySecret),
    /// A secret signs nothing.
    #[error(transparent)]
    Signer(#[from] SignerError),
}

/// How large the messages are together that wait in memory for one service, in bytes.
const AHEAD: usize = 4 << 20;

/// For a connection, at most.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

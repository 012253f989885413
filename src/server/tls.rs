//! Certificates: loaded, checked, and loaded again when they change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use super::fingerprint::Fingerprint;

/// Where the certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, PEM, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities whose certificates clients must show; without it they need none.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    fn fingerprints(&self) -> Vec<Fingerprint> {
        let files = [
            Some(&self.certificate),
            Some(&self.key),
            self.client_ca.as_ref(),
        ];
        let files = files.into_iter().flatten();
        files.map(|file| Fingerprint::of(file)).collect()
    }
}

/// What connections are secured with, at the moment.
pub struct Tls {
    files: TlsFiles,
    /// Of the files as they were loaded first.
    loaded: Vec<Fingerprint>,
    config: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Loads the files.
    ///
    /// # Errors
    ///
    /// When one can't be read, or the certificate is not the key's.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        // Before they are read: a change that comes now is seen later.
        let loaded = files.fingerprints();
        let config = ArcSwap::from_pointee(configure(&files)?);
        Ok(Self {
            files,
            loaded,
            config,
        })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.config.load_full().into()
    }

    /// Loads the files again. What can't be used is logged, and the old pair stays.
    pub fn reload(&self) {
        match configure(&self.files) {
            Ok(config) => {
                self.config.store(Arc::new(config));
                info!(certificate = %self.files.certificate.display(), "certificate loaded again");
            }
            Err(error) => warn!(%error, "the old certificate stays in use"),
        }
    }

    /// Reloads whenever the files change, until dropped.
    pub(super) async fn watch(&self) {
        let mut seen = self.loaded.clone();
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let now = self.files.fingerprints();
            if now != seen {
                seen = now;
                self.reload();
            }
        }
    }
}

/// Why a certificate can't be used. Names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file can't be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// Which one.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file holds nothing of the kind.
    #[error("{} holds no {wanted} in PEM form", file.display())]
    Empty {
        /// Which one.
        file: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// The certificate is broken, or is not the key's.
    #[error("{} and {} do not make a pair", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The authorities' certificates can't be used.
    #[error("{} cannot be used to verify clients: {reason}", file.display())]
    ClientCa {
        /// Which one.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// How often the files are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

fn configure(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let TlsFiles {
        certificate,
        key,
        client_ca,
    } = files;
    let pair_error = |source| TlsError::Pair {
        certificate: certificate.clone(),
        key: key.clone(),
        source,
    };
    let chain = certificates(certificate)?;
    let private_key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| TlsError::Empty {
        file: key.clone(),
        wanted: "private key",
    })?;
    let provider = Arc::new(default_provider());
    // Refuses a certificate that is not the key's.
    let pair = CertifiedKey::from_der(chain, private_key, &provider).map_err(pair_error)?;

    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(pair_error)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let unusable = |reason: String| TlsError::ClientCa {
                file: file.clone(),
                reason,
            };
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots
                    .add(certificate)
                    .map_err(|error| unusable(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            let verifier = verifier
                .build()
                .map_err(|error| unusable(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| TlsError::Empty {
            file: file.to_owned(),
            wanted: "certificate",
        })
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|source| TlsError::Read {
        file: file.to_owned(),
        source,
    })
}

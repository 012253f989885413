//! Whom to trust at the other end of a TLS connection, and who we are there.

use std::sync::Arc;

use hookbot_listen::dial;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

/// How TLS is spoken with a target.
#[derive(Debug, Default)]
pub struct TlsSettings {
    /// Believe whoever answers. What is sent can then be read by others.
    pub insecure: bool,
    roots: Vec<CertificateDer<'static>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Clone for TlsSettings {
    fn clone(&self) -> Self {
        let identity = self.identity.as_ref();
        Self {
            insecure: self.insecure,
            roots: self.roots.clone(),
            identity: identity.map(|(chain, key)| (chain.clone(), key.clone_key())),
        }
    }
}

impl TlsSettings {
    /// Also trusts these certificates, PEM, beside those that the platform trusts.
    ///
    /// # Errors
    ///
    /// When there is none in it.
    pub fn trust(&mut self, pem: &[u8]) -> Result<(), TlsError> {
        self.roots.extend(certificates(pem)?);
        Ok(())
    }

    /// Shows this certificate chain to a target that asks for one, PEM, with its private key.
    ///
    /// # Errors
    ///
    /// When there is no certificate in the one or no key in the other.
    pub fn identify(&mut self, chain: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey)?;
        self.identity = Some((certificates(chain)?, key));
        Ok(())
    }

    /// Makes what rustls wants. Reading the platform's roots takes a moment.
    ///
    /// # Errors
    ///
    /// When nobody can be trusted, or certificate and key do not fit.
    pub fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone());
        let config = config.with_safe_default_protocol_versions()?;
        let config = if self.insecure {
            let anybody = Arc::new(Anybody(provider));
            config.dangerous().with_custom_certificate_verifier(anybody)
        } else {
            let roots = dial::roots(&self.roots);
            config
                .with_root_certificates(roots.map_err(|error| TlsError::Roots(error.to_string()))?)
        };
        let mut config = match &self.identity {
            Some((chain, key)) => config.with_client_auth_cert(chain.clone(), key.clone_key())?,
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or(TlsError::NoCertificate)
}

/// Why TLS can't be spoken as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file that should hold certificates holds none.
    #[error("there is no certificate in PEM in it")]
    NoCertificate,
    /// A file that should hold a private key holds none.
    #[error("there is no private key in PEM in it")]
    NoKey,
    /// Nobody can be trusted.
    #[error("{0}")]
    Roots(String),
    /// The certificate and the key do not fit, or are of no known kind.
    #[error("certificate and key can't be used: {0}")]
    Unusable(#[from] Error),
}

/// Believes every certificate, but not that a connection is with somebody else than its owner.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

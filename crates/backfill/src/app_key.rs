//! How a GitHub App proves who it is: a JSON web token (RFC 7519), signed with its private key.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::error::Error;

/// The private key of a GitHub App, together with the app's id. It does not print.
pub struct AppKey {
    id: String,
    pair: KeyPair,
}

impl AppKey {
    /// Takes the key as GitHub gives it out, in PEM: PKCS #1, or PKCS #8 where somebody has
    /// converted it. The id is the app's number or its client id.
    ///
    /// # Errors
    ///
    /// [`Error::Key`] when it is no RSA key of 2,048 bits or more.
    pub fn new(id: &str, pem: &[u8]) -> Result<Self, Error> {
        let key = PrivateKeyDer::from_pem_slice(pem)
            .map_err(|_| Error::Key("there is no private key in PEM in it"))?;
        let pair = match &key {
            PrivateKeyDer::Pkcs1(key) => KeyPair::from_der(key.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(key) => KeyPair::from_pkcs8(key.secret_pkcs8_der()),
            _ => return Err(Error::Key("it is no RSA key")),
        };
        let pair = pair.map_err(|_| Error::Key("it is no RSA key of 2,048 bits or more"))?;
        Ok(Self {
            id: id.to_owned(),
            pair,
        })
    }

    /// A token that is good for the next minutes.
    pub(crate) fn token(&self, now: SystemTime) -> Result<String, Error> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let claims = serde_json::json!({
            "iat": now.saturating_sub(DRIFT).as_secs(),
            "exp": (now + LIFETIME).as_secs(),
            "iss": self.id,
        });
        let encode = |text: &[u8]| URL_SAFE_NO_PAD.encode(text);
        let header = encode(br#"{"alg":"RS256","typ":"JWT"}"#);
        let signed = format!("{header}.{}", encode(claims.to_string().as_bytes()));

        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .map_err(|_| Error::Key("it does not sign"))?;
        Ok(format!("{signed}.{}", encode(&signature)))
    }
}

impl std::fmt::Debug for AppKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AppKey({}, ..)", self.id)
    }
}

/// How far GitHub's clock may be behind ours.
const DRIFT: Duration = Duration::from_secs(60);

/// Together with the drift, GitHub allows ten minutes.
const LIFETIME: Duration = Duration::from_secs(8 * 60);

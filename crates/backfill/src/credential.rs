//! As whom an API is asked: with a token, or as a GitHub App, which proves who it is with JSON web
//! tokens (RFC 7519) that it signs with its private key.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::error::Error;

/// As whom to ask. It does not print.
pub enum Credential {
    /// With a token: on GitHub one that may read webhooks, on GitLab one with the scope `api`.
    Token(String),
    /// As a GitHub App.
    App(Box<AppKey>),
}

impl Credential {
    /// Checks that it can be sent.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self {
            Self::Token(token) => {
                let is_sendable = token.bytes().all(|byte| byte.is_ascii_graphic());
                (is_sendable && !token.is_empty())
                    .then_some(())
                    .ok_or(Error::Token)
            }
            Self::App(_) => Ok(()),
        }
    }

    /// What is sent with a request now.
    pub(crate) fn bearer(&self) -> Result<String, Error> {
        match self {
            Self::Token(token) => Ok(token.clone()),
            Self::App(key) => key.token(SystemTime::now()),
        }
    }
}

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
    fn token(&self, now: SystemTime) -> Result<String, Error> {
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

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token(..)"),
            Self::App(key) => key.fmt(f),
        }
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

//! What makes a signature out of a key and a message, and what its bytes are written in.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    UnparsedPublicKey,
};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq};

use crate::public_key::{self, P256};

/// How a signature is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// None is: the header is the secret itself.
    Token,
    /// HMAC with SHA-1, which is old but not broken.
    HmacSha1,
    /// HMAC with SHA-256.
    HmacSha256,
    /// HMAC with SHA-512.
    HmacSha512,
    /// Ed25519; the secret is a public key where it verifies, and a private one where it signs.
    Ed25519,
    /// ECDSA on P-256 with SHA-256 and signatures in DER; the secret as for [`Self::Ed25519`].
    EcdsaP256,
}

/// What bytes are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encoding {
    /// As they are.
    Text,
    /// In hexadecimal digits of either case.
    Hex,
    /// In base64 with padding.
    Base64,
}

impl Algorithm {
    /// Which of `signatures` the owner of `key` made of the message in these pieces, if any.
    ///
    /// Comparing takes the same time for every wrong signature of the right length.
    pub(crate) fn verifies(self, key: &[u8], message: &[&[u8]], signatures: &[Vec<u8>]) -> bool {
        let expected = match self {
            Self::Ed25519 | Self::EcdsaP256 => {
                let message = message.concat();
                return signatures
                    .iter()
                    .any(|signature| self.is_signed(key, &message, signature));
            }
            // Hashes have one length; of the token itself, comparing would tell it.
            Self::Token => {
                let expected = Sha256::digest(key);
                let same = |token: &Vec<u8>| Sha256::digest(token).ct_eq(&expected);
                return signatures
                    .iter()
                    .fold(Choice::from(0), |any, token| any | same(token))
                    .into();
            }
            Self::HmacSha1 => mac::<Hmac<Sha1>>(key, message),
            Self::HmacSha256 => mac::<Hmac<Sha256>>(key, message),
            Self::HmacSha512 => mac::<Hmac<Sha512>>(key, message),
        };
        signatures
            .iter()
            .fold(Choice::from(0), |any, own| any | own.ct_eq(&expected))
            .into()
    }

    fn is_signed(self, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::EcdsaP256 => public_key::bits(key, P256).is_some_and(|key| {
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key);
                key.verify(message, signature).is_ok()
            }),
            _ => UnparsedPublicKey::new(&ED25519, key)
                .verify(message, signature)
                .is_ok(),
        }
    }

    /// The signature of the message in these pieces; `None` when the key is not one to sign with.
    pub(crate) fn sign(self, key: &[u8], message: &[&[u8]]) -> Option<Vec<u8>> {
        Some(match self {
            Self::Token => key.to_vec(),
            Self::HmacSha1 => mac::<Hmac<Sha1>>(key, message),
            Self::HmacSha256 => mac::<Hmac<Sha256>>(key, message),
            Self::HmacSha512 => mac::<Hmac<Sha512>>(key, message),
            Self::Ed25519 => {
                let pair = Ed25519KeyPair::from_seed_unchecked(key).ok()?;
                pair.sign(&message.concat()).as_ref().to_vec()
            }
            Self::EcdsaP256 => {
                let random = SystemRandom::new();
                let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
                let pair = EcdsaKeyPair::from_pkcs8(algorithm, key, &random).ok()?;
                let signature = pair.sign(&random, &message.concat()).ok()?;
                signature.as_ref().to_vec()
            }
        })
    }

    /// Whether these bytes could be a key to verify with.
    pub(crate) fn accepts(self, key: &[u8]) -> bool {
        match self {
            Self::Ed25519 => key.len() == 32,
            Self::EcdsaP256 => public_key::bits(key, P256).is_some(),
            // Everybody knows the empty one.
            _ => !key.is_empty(),
        }
    }

    pub(crate) fn is_symmetric(self) -> bool {
        !matches!(self, Self::Ed25519 | Self::EcdsaP256)
    }
}

impl Encoding {
    pub(crate) fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Text => Some(text.as_bytes().to_vec()),
            Self::Hex => hex::decode(text).ok(),
            Self::Base64 => STANDARD.decode(text).ok(),
        }
    }

    /// `None` for bytes that are no text.
    pub(crate) fn encode(self, bytes: Vec<u8>) -> Option<String> {
        match self {
            Self::Text => String::from_utf8(bytes).ok(),
            Self::Hex => Some(hex::encode(bytes)),
            Self::Base64 => Some(STANDARD.encode(bytes)),
        }
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], message: &[&[u8]]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("an HMAC takes a key of any length");
    message.iter().for_each(|piece| mac.update(piece));
    mac.finalize().into_bytes().to_vec()
}

/// HMAC-SHA256 of one piece, for the answers to handshakes.
pub(crate) fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    mac::<Hmac<Sha256>>(key, &[message])
}

impl Algorithm {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        ALGORITHMS.iter().map(|(algorithm, _)| *algorithm)
    }

    /// What it is called where it is configured.
    #[must_use]
    pub fn name(self) -> &'static str {
        let named = ALGORITHMS.iter().find(|(own, _)| *own == self);
        named.map_or("", |(_, name)| name)
    }
}

impl Encoding {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        ENCODINGS.iter().map(|(encoding, _)| *encoding)
    }

    /// What it is called where it is configured.
    #[must_use]
    pub fn name(self) -> &'static str {
        let named = ENCODINGS.iter().find(|(own, _)| *own == self);
        named.map_or("", |(_, name)| name)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let named = ALGORITHMS.iter().find(|(_, name)| *name == text);
        named.map(|(own, _)| *own).ok_or(UnknownName)
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Encoding {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let named = ENCODINGS.iter().find(|(_, name)| *name == text);
        named.map(|(own, _)| *own).ok_or(UnknownName)
    }
}

/// There is no algorithm or encoding of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is none of this name")]
pub struct UnknownName;

const ALGORITHMS: [(Algorithm, &str); 6] = [
    (Algorithm::Token, "token"),
    (Algorithm::HmacSha1, "hmac-sha1"),
    (Algorithm::HmacSha256, "hmac-sha256"),
    (Algorithm::HmacSha512, "hmac-sha512"),
    (Algorithm::Ed25519, "ed25519"),
    (Algorithm::EcdsaP256, "ecdsa-p256"),
];

const ENCODINGS: [(Encoding, &str); 3] = [
    (Encoding::Text, "text"),
    (Encoding::Hex, "hex"),
    (Encoding::Base64, "base64"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_algorithm_and_an_encoding_are_read_as_they_are_written() {
        for algorithm in Algorithm::all() {
            assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
        }
        for encoding in Encoding::all() {
            assert_eq!(encoding.to_string().parse(), Ok(encoding));
        }
        assert_eq!("".parse::<Algorithm>(), Err(UnknownName));
        assert_eq!("HEX".parse::<Encoding>(), Err(UnknownName));
    }
}

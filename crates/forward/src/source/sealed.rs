//! Events of a gosmee server that only the owner of a key can read: `NaCl` boxes, each with a key
//! of its own.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use crypto_box::aead::Aead;
use crypto_box::{PublicKey, SalsaBox, SecretKey};
use serde::Deserialize;

/// The key that a gosmee channel's events are encrypted for. It does not print.
#[derive(Clone)]
pub struct ChannelKey(SecretKey);

impl ChannelKey {
    /// Reads what `gosmee keygen` has written: JSON with `private_key` in base64.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub fn parse(file: &[u8]) -> Result<Self, KeyFileError> {
        #[derive(Deserialize)]
        struct File {
            public_key: String,
            private_key: String,
        }
        let file: File = serde_json::from_slice(file).map_err(|_| KeyFileError::Json)?;
        let key = |text: &str| bytes::<32>(text).ok_or(KeyFileError::Key);
        let own = SecretKey::from(key(&file.private_key)?);
        if *own.public_key().as_bytes() != key(&file.public_key)? {
            return Err(KeyFileError::Pair);
        }
        Ok(Self(own))
    }

    /// The public key, as it goes into a URL.
    pub(super) fn public(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.public_key().as_bytes())
    }

    /// Opens an event's data.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn open(&self, data: &str) -> Result<String, &'static str> {
        #[derive(Deserialize)]
        struct Sealed {
            version: u64,
            epk: String,
            nonce: String,
            ciphertext: String,
        }
        const MALFORMED: &str = "it is not encrypted as it should be";
        let sealed: Sealed = serde_json::from_str(data).map_err(|_| MALFORMED)?;
        if sealed.version != 1 {
            return Err("it is encrypted in a way that is not known here");
        }
        let theirs = PublicKey::from(bytes::<32>(&sealed.epk).ok_or(MALFORMED)?);
        let nonce = bytes::<24>(&sealed.nonce).ok_or(MALFORMED)?;
        let ciphertext = STANDARD.decode(&sealed.ciphertext).map_err(|_| MALFORMED)?;
        let opened = SalsaBox::new(&theirs, &self.0).decrypt(&nonce.into(), &*ciphertext);
        let opened = opened.map_err(|_| "it is encrypted for another key")?;
        String::from_utf8(opened).map_err(|_| "what is encrypted is no text")
    }
}

impl fmt::Debug for ChannelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelKey(..)")
    }
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// Why a file holds no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It is not of the form that gosmee writes.
    #[error("it is no JSON with public_key and private_key")]
    Json,
    /// A key in it is none.
    #[error("a key in it is not 32 bytes in base64")]
    Key,
    /// The keys in it do not belong together.
    #[error("its public key is not that of its private key")]
    Pair,
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with PyNaCl 1.6, from the private keys 1..=32 and 101..=132 and the nonce 0..=23.
    const FILE: &str = r#"{"public_key":"B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9/AsrhtHHw=",
        "private_key":"AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="}"#;
    const SEALED: &str = r#"{"encrypted":true,"version":1,
        "epk":"VxR2nRFr92Q2rnS8eT0sMK0ZA8WaxSc4BcfiaYtBDDY=",
        "nonce":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
        "ciphertext":"j2n67sSar/1ELKqa076eMXFzYhkrnPH52JMpMsQ5G64mRz+kgKaA9U4zKYKcQSUsb4FPKcPeLVpuQl01rla5DFYRebwShCmJeMxQlzI/h5+Z8ug232APID5eKM+KiD/DM2nuvUqznm45fg=="}"#;

    #[test]
    fn what_nacl_has_sealed_is_opened_with_the_key_and_no_other() {
        let key = ChannelKey::parse(FILE.as_bytes()).unwrap();
        assert_eq!(key.public(), "B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9_AsrhtHHw");
        let opened = r#"{"content-type":"application/json","bodyB":"eyJuIjogMX0NCg==","timestamp":"1769862600007"}"#;
        assert_eq!(key.open(SEALED).unwrap(), opened);
        assert_eq!(format!("{key:?}"), "ChannelKey(..)");

        let other = ChannelKey(SecretKey::from([7; 32]));
        assert!(other.open(SEALED).unwrap_err().contains("another key"));
        for (from, to) in [
            ("j2n6", "j2n7"),
            ("AAEC", "AAED"),
            ("\"version\":1", "\"version\":2"),
        ] {
            assert!(key.open(&SEALED.replacen(from, to, 1)).is_err(), "{to}");
        }
        assert!(key.open("{}").is_err());
    }

    #[test]
    fn a_file_without_a_pair_of_keys_is_refused() {
        let error = |file: &str| ChannelKey::parse(file.as_bytes()).unwrap_err();
        assert_eq!(error("{}"), KeyFileError::Json);
        assert_eq!(error(&FILE.replace("AQID", "AQ")), KeyFileError::Key);
        assert_eq!(error(&FILE.replace("AQID", "AQIE")), KeyFileError::Pair);
    }
}

//! What a provider and its receiver both know.

use std::fmt;

/// A secret as it was typed into the provider's settings, or what stands for one there: a public
/// key, a certificate.
///
/// It does not print, and is not compared with `==`, which would tell by its time how much of a
/// guess is right.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes as they are; a file's last newline is no part of them.
    ///
    /// # Errors
    ///
    /// When there are none: everybody can sign with that secret.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, EmptySecret> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(EmptySecret);
        }
        Ok(Self(bytes))
    }

    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The secret has no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret is empty, and everybody can sign with that one")]
pub struct EmptySecret;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_secret_is_refused_and_a_secret_does_not_print() {
        assert_eq!(Secret::new("").unwrap_err(), EmptySecret);
        assert_eq!(format!("{:?}", Secret::new("hush").unwrap()), "Secret(..)");
    }
}

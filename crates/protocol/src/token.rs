//! A capability for one path, or for everything below it.

use std::fmt;
use std::str::FromStr;

/// A token as a client presents it: well-formed, and not yet known to be worth anything.
///
/// Neither `Debug` nor `Display` shows it; [`Token::expose`] does.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub(crate) Kind);

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// HMAC-SHA256 of the path.
    Plain([u8; 32]),
    /// HMAC-SHA256 of a time and the path; good while the time has not come.
    Expiring { at: u64, mac: [u8; 32] },
    /// HMAC-SHA1 of the path, as the Go program made them.
    Sha1([u8; 20]),
}

impl Token {
    /// The text that a client presents.
    #[must_use]
    pub fn expose(&self) -> String {
        match &self.0 {
            Kind::Plain(mac) => hex::encode(mac),
            Kind::Expiring { at, mac } => format!("{EXPIRING}{at}.{}", hex::encode(mac)),
            Kind::Sha1(mac) => hex::encode(mac),
        }
    }
}

impl FromStr for Token {
    type Err = MalformedToken;

    fn from_str(text: &str) -> Result<Self, MalformedToken> {
        if let Some(rest) = text.strip_prefix(EXPIRING) {
            let (seconds, mac) = rest.split_once('.').ok_or(MalformedToken)?;
            let at: u64 = seconds.parse().map_err(|_| MalformedToken)?;
            // One text a token: no sign, no leading zero.
            if at.to_string() != seconds {
                return Err(MalformedToken);
            }
            let mac = decode(mac)?;
            return Ok(Self(Kind::Expiring { at, mac }));
        }
        match text.len() {
            64 => Ok(Self(Kind::Plain(decode(text)?))),
            40 => Ok(Self(Kind::Sha1(decode(text)?))),
            _ => Err(MalformedToken),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The text can't be a token, whatever the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token")]
pub struct MalformedToken;

/// What a token that expires begins with; the digit is the version of its format.
pub(crate) const EXPIRING: &str = "x1.";

/// Decodes exactly `N` bytes of lower-case hexadecimal.
fn decode<const N: usize>(text: &str) -> Result<[u8; N], MalformedToken> {
    let mut bytes = [0; N];
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(MalformedToken);
    }
    hex::decode_to_slice(text, &mut bytes).map_err(|_| MalformedToken)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_has_one_spelling() {
        let plain = "ab".repeat(32);
        let legacy = "ab".repeat(20);
        let expiring = format!("x1.1700000000.{plain}");
        for text in [&plain, &legacy, &expiring] {
            assert_eq!(text.parse::<Token>().unwrap().expose(), *text);
        }
        for text in [
            "",
            "x1.",
            "x1.1",
            &plain[1..],
            &plain.to_uppercase(),
            &plain.replace('a', "g"),
            &format!("x1.01700000000.{plain}"),
            &format!("x1.+1700000000.{plain}"),
            &format!("x1.18446744073709551616.{plain}"),
            &format!("x1.1700000000.{legacy}"),
            &format!("x2.1700000000.{plain}"),
        ] {
            assert_eq!(text.parse::<Token>(), Err(MalformedToken), "{text:?}");
        }
    }

    #[test]
    fn a_token_does_not_print() {
        let token: Token = "ab".repeat(32).parse().unwrap();
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    proptest! {
        #[test]
        fn what_parses_is_exposed_unchanged(text in "(x1\\.)?[0-9]{0,4}\\.?[0-9a-f]{40}([0-9a-f]{24})?") {
            if let Ok(token) = text.parse::<Token>() {
                prop_assert_eq!(token.expose(), text);
            }
        }
    }
}

//! A capability for one path, or for everything below it.

use std::fmt;
use std::str::FromStr;

use crate::fingerprint::Fingerprint;
use crate::name::Name;

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
    /// HMAC-SHA256 of a name, perhaps a time, and the path.
    Named {
        name: Name,
        at: Option<u64>,
        mac: [u8; 32],
    },
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
            Kind::Named { name, at, mac } => {
                let at = at.map(|at| format!("{at}.")).unwrap_or_default();
                format!("{NAMED}{name}.{at}{}", hex::encode(mac))
            }
            Kind::Sha1(mac) => hex::encode(mac),
        }
    }

    /// What it is called, if it has a name.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        match &self.0 {
            Kind::Named { name, .. } => Some(name),
            _ => None,
        }
    }

    /// When it ends, in seconds since 1970, if it does.
    #[must_use]
    pub fn expires(&self) -> Option<u64> {
        match &self.0 {
            Kind::Expiring { at, .. } => Some(*at),
            Kind::Named { at, .. } => *at,
            Kind::Plain(_) | Kind::Sha1(_) => None,
        }
    }

    /// What may be shown of it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.expose())
    }
}

impl FromStr for Token {
    type Err = MalformedToken;

    fn from_str(text: &str) -> Result<Self, MalformedToken> {
        if let Some(rest) = text.strip_prefix(EXPIRING) {
            let (seconds, mac) = rest.split_once('.').ok_or(MalformedToken)?;
            let (at, mac) = (time(seconds)?, decode(mac)?);
            return Ok(Self(Kind::Expiring { at, mac }));
        }
        if let Some(rest) = text.strip_prefix(NAMED) {
            let (name, rest) = rest.split_once('.').ok_or(MalformedToken)?;
            let name = name.parse().map_err(|_| MalformedToken)?;
            let (at, mac) = match rest.split_once('.') {
                Some((seconds, mac)) => (Some(time(seconds)?), mac),
                None => (None, rest),
            };
            let mac = decode(mac)?;
            return Ok(Self(Kind::Named { name, at, mac }));
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

/// What a token that has a name begins with; the digit is the version of its format.
pub(crate) const NAMED: &str = "n1.";

/// Reads seconds since 1970. One text a token: no sign, no leading zero.
fn time(seconds: &str) -> Result<u64, MalformedToken> {
    let at: u64 = seconds.parse().map_err(|_| MalformedToken)?;
    if at.to_string() != seconds {
        return Err(MalformedToken);
    }
    Ok(at)
}

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
        let named = format!("n1.ci-2.{plain}");
        let both = format!("n1.ci-2.1700000000.{plain}");
        for text in [&plain, &legacy, &expiring, &named, &both] {
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
            &format!("n1.{plain}"),
            &format!("n1..{plain}"),
            &format!("n1.a b.{plain}"),
            &format!("n1.a.01.{plain}"),
            &format!("n1.a..{plain}"),
            &format!("n1.a.1.1.{plain}"),
            &format!("n1.a.{legacy}"),
            &format!("n1.{}.{plain}", "a".repeat(33)),
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
        fn what_parses_is_exposed_unchanged(text in "(x1\\.|n1\\.[a-b.]{0,2}\\.)?[0-9]{0,4}\\.?[0-9a-f]{40}([0-9a-f]{24})?") {
            if let Ok(token) = text.parse::<Token>() {
                prop_assert_eq!(token.expose(), text);
            }
        }
    }
}

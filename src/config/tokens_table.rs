//! `[tokens]`: which tokens and channels are good no longer.

use std::path::PathBuf;

use clap::Args;
use hookbot_protocol::DenyList;
use serde::{Deserialize, de};

use super::text::texts;

/// Tokens that are revoked, as flags say it and as a file does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct TokensTable {
    /// Tokens and channels that are good no longer: a token's name, the token or the channel's id
    /// itself, or `sha256:` and its SHA-256. Connections that such a one has opened are closed.
    #[arg(skip)]
    #[serde(deserialize_with = "deny_list")]
    #[cfg_attr(test, schemars(with = "super::route_table::OneOrMore"))]
    pub deny: DenyList,

    /// A file of tokens and channels that are revoked, one a line. Read again when it changes;
    /// connections that such a one has opened are closed within a second.
    #[arg(
        long,
        env = "HOOKBOT_DENY_FILE",
        value_name = "FILE",
        help_heading = "Keys"
    )]
    pub deny_file: Option<PathBuf>,
}

impl TokensTable {
    /// What this says, and for the rest what `other` does.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            deny: if self.deny.is_empty() {
                other.deny
            } else {
                self.deny
            },
            deny_file: self.deny_file.or(other.deny_file),
        }
    }
}

/// Reads a list of entries. What is no entry is not shown, for it may be a token with a slip in it.
fn deny_list<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<DenyList, D::Error> {
    let mut list = DenyList::default();
    for (number, text) in texts(reader)?.iter().enumerate() {
        let entry = text.parse();
        let entry =
            entry.map_err(|error| de::Error::custom(format!("entry {}: {error}", number + 1)));
        list.insert(entry?);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_revokes_nothing_is_numbered_and_not_shown() {
        let good: TokensTable = toml::from_str("deny = ['ada', 'bob']").unwrap();
        assert_eq!(good.deny.len(), 2);
        let one: TokensTable = toml::from_str("deny = 'ada'").unwrap();
        assert_eq!(one.deny.len(), 1);
        let slip = format!("deny = ['ada', '{}!']", "ab".repeat(32));
        let error = toml::from_str::<TokensTable>(&slip).unwrap_err();
        assert!(error.message().starts_with("entry 2: "), "{error}");
        assert!(!error.message().contains("abab"), "{error}");
    }
}

//! The keys: from flags, the environment or files, and never on a screen.

use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use hookbot_protocol::{EmptyKey, Key, Keys};
use tracing::warn;

/// Text that must not be seen: it does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where the keys come from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Keys")]
pub struct KeyArgs {
    /// The secret that tokens are made with; better given by the environment than typed.
    #[arg(
        long,
        global = true,
        env = "HOOKBOT_KEY",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    key: Option<Secret>,

    /// A file with that secret; a last newline does not count.
    #[arg(long, global = true, env = "HOOKBOT_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,

    /// Secrets whose tokens are still good, with commas between them.
    #[arg(
        long,
        global = true,
        env = "HOOKBOT_PREVIOUS_KEYS",
        hide_env_values = true
    )]
    #[arg(value_delimiter = ',', value_name = "SECRETS")]
    previous_keys: Vec<Secret>,

    /// A file with such secrets, one a line.
    #[arg(
        long,
        global = true,
        env = "HOOKBOT_PREVIOUS_KEYS_FILE",
        value_name = "FILE"
    )]
    previous_keys_file: Option<PathBuf>,
}

impl KeyArgs {
    /// The key that mints, with a warning when it is easily guessed.
    ///
    /// # Errors
    ///
    /// When there is none, or its file can't be read.
    pub fn key(&self) -> Result<Key, KeyError> {
        let is_from = |name: &str, value: &str| std::env::var(name).is_ok_and(|own| own == value);
        let typed = |secret: &&Secret| !is_from("HOOKBOT_KEY", secret.expose());
        let secret = match (&self.key, &self.key_file) {
            (None, None) => return Err(KeyError::Missing),
            (Some(secret), None) => secret.0.clone().into_bytes(),
            (None, Some(file)) => without_newline(read(file)?),
            // A flag wins over the environment.
            (Some(secret), Some(file)) => {
                let named = !is_from("HOOKBOT_KEY_FILE", &file.to_string_lossy());
                match (typed(&secret), named) {
                    (true, true) => return Err(KeyError::Two("--key or --key-file")),
                    (false, false) => return Err(KeyError::Two("HOOKBOT_KEY or HOOKBOT_KEY_FILE")),
                    (true, false) => secret.0.clone().into_bytes(),
                    (false, true) => without_newline(read(file)?),
                }
            }
        };
        if (1..GOOD_LENGTH).contains(&secret.len()) {
            warn!(
                "the key has fewer than {GOOD_LENGTH} bytes and can be guessed; make one with: openssl rand -hex 32"
            );
        }
        Key::new(&secret).map_err(KeyError::Empty)
    }

    /// The key that mints and the previous ones.
    ///
    /// # Errors
    ///
    /// As [`Self::key`].
    pub fn keys(&self) -> Result<Keys, KeyError> {
        let given = self
            .previous_keys
            .iter()
            .map(|secret| secret.0.clone().into_bytes());
        let mut previous: Vec<_> = given.collect();
        if let Some(file) = &self.previous_keys_file {
            let lines = read(file)?;
            previous.extend(
                lines
                    .split(|byte| *byte == b'\n')
                    .map(|line| without_newline(line.to_vec())),
            );
        }
        previous.retain(|secret| !secret.is_empty());
        let previous = previous
            .iter()
            .map(|secret| Key::new(secret).map_err(KeyError::Empty));
        Ok(Keys::new(self.key()?).with_previous(previous.collect::<Result<_, _>>()?))
    }
}

/// Why there are no keys. Names no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Nobody gave one.
    #[error(
        "no key: set HOOKBOT_KEY (or HOOKBOT_KEY_FILE) to a secret, for example: export HOOKBOT_KEY=$(openssl rand -hex 32)"
    )]
    Missing,
    /// Nothing was given as one.
    #[error("HOOKBOT_KEY: {0}")]
    Empty(EmptyKey),
    /// Two places of the same rank have one.
    #[error("there are two keys: give either {0}")]
    Two(&'static str),
    /// Its file can't be read.
    #[error("cannot read the key file {}", file.display())]
    Read {
        /// Which one.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// From so many bytes on, a random key can't be guessed.
const GOOD_LENGTH: usize = 16;

fn read(file: &Path) -> Result<Vec<u8>, KeyError> {
    fs::read(file).map_err(|source| KeyError::Read {
        file: file.to_owned(),
        source,
    })
}

/// Drops one line ending at the end, of either kind.
pub(crate) fn without_newline(mut line: Vec<u8>) -> Vec<u8> {
    for ending in [b'\n', b'\r'] {
        if line.last() == Some(&ending) {
            line.pop();
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookbot_protocol::{Path as RequestPath, Scope};

    fn args() -> KeyArgs {
        KeyArgs {
            key: None,
            key_file: None,
            previous_keys: Vec::new(),
            previous_keys_file: None,
        }
    }

    #[test]
    fn a_file_s_last_newline_is_no_part_of_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let (key_file, previous) = (folder.path().join("key"), folder.path().join("previous"));
        fs::write(&key_file, "new key\n").unwrap();
        fs::write(&previous, "old key\r\n\nolder key").unwrap();
        let args = KeyArgs {
            key_file: Some(key_file),
            previous_keys_file: Some(previous),
            ..args()
        };
        let keys = args.keys().unwrap();
        let path = RequestPath::parse("/sub/a").unwrap();
        let scope = Scope::parse("/sub/a").unwrap();
        for secret in ["new key", "old key", "older key"] {
            let token = Key::new(secret.as_bytes()).unwrap().mint(&scope);
            assert!(keys.grants(&path, &token, 0).is_some(), "{secret}");
        }
    }

    #[test]
    fn no_key_and_an_empty_key_are_refused_by_name() {
        let missing = args().key().unwrap_err().to_string();
        assert!(missing.contains("HOOKBOT_KEY"), "{missing}");
        let empty = KeyArgs {
            key: Some(Secret(String::new())),
            ..args()
        };
        assert!(matches!(empty.key(), Err(KeyError::Empty(_))));
    }

    #[test]
    fn secrets_do_not_print() {
        let args = KeyArgs {
            key: Some(Secret("hush".into())),
            ..args()
        };
        assert!(!format!("{args:?}").contains("hush"));
    }
}

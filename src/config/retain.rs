//! How long messages are kept, as people write it: `7d,10GiB`.

use std::str::FromStr;

use bytesize::ByteSize;
use hookbot_log::Retention;

use super::Span;

/// Limits of the log; whichever is reached first counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retain {
    age: Option<Span>,
    bytes: Option<ByteSize>,
    messages: Option<u64>,
}

impl Retain {
    /// What a log on disk keeps; what is not said is as by default.
    #[must_use]
    pub fn on_disk(self) -> Retention {
        let default = Retention::default();
        Retention {
            age: self.age.map_or(default.age, |Span(age)| age),
            bytes: self.bytes.map_or(default.bytes, |bytes| bytes.as_u64()),
            messages: self.messages.unwrap_or(default.messages),
        }
    }

    /// How many bytes a log in memory keeps; time and number don't matter there.
    #[must_use]
    pub fn in_memory(self) -> usize {
        let bytes = self.bytes.map_or(DEFAULT_IN_MEMORY, |bytes| bytes.as_u64());
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

/// In bytes.
const DEFAULT_IN_MEMORY: u64 = 256 << 20;

impl FromStr for Retain {
    type Err = RetainError;

    fn from_str(text: &str) -> Result<Self, RetainError> {
        let mut retain = Self::default();
        for limit in text.split(',').map(str::trim) {
            // Told apart by their units, as "10m" is a time and "10MB" is not.
            let said_before = if limit.bytes().all(|byte| byte.is_ascii_digit()) {
                let messages = limit.parse().map_err(|_| RetainError)?;
                retain.messages.replace(messages).is_some()
            } else if limit.ends_with(['B', 'b']) {
                let bytes = limit.parse().map_err(|_| RetainError)?;
                retain.bytes.replace(bytes).is_some()
            } else {
                let age: Result<Span, _> = limit.parse();
                retain.age.replace(age.map_err(|_| RetainError)?).is_some()
            };
            if said_before {
                return Err(RetainError);
            }
        }
        let nothing = retain.messages == Some(0) || retain.bytes == Some(ByteSize(0));
        if nothing {
            Err(RetainError)
        } else {
            Ok(retain)
        }
    }
}

/// The text does not say what to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a time, a size and a number of messages, or some of them, such as 7d,10GiB,1000000"
)]
pub struct RetainError;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn limits_are_told_apart_by_their_units() {
        let default = Retention::default();
        let day = Duration::from_secs(86_400);
        for (text, expected) in [
            (
                "7d,10GiB",
                Retention {
                    age: 7 * day,
                    bytes: 10 << 30,
                    ..default
                },
            ),
            (
                "10MB",
                Retention {
                    bytes: 10_000_000,
                    ..default
                },
            ),
            (
                "10m",
                Retention {
                    age: Duration::from_secs(600),
                    ..default
                },
            ),
            (
                "1000, 1h",
                Retention {
                    age: day / 24,
                    messages: 1_000,
                    ..default
                },
            ),
        ] {
            let retain: Retain = text.parse().unwrap();
            assert_eq!(retain.on_disk(), expected, "{text}");
        }
        let retain: Retain = "7d,1MiB".parse().unwrap();
        assert_eq!(retain.in_memory(), 1 << 20);
        for text in ["", "7d,", "7d,1h", "0", "0B", "-1", "all"] {
            assert_eq!(text.parse::<Retain>(), Err(RetainError), "{text:?}");
        }
    }
}

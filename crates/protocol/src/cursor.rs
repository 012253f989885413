//! A message's place in the log, and how it is written on the wire.

use std::fmt;
use std::str::FromStr;

/// A message's place in the one log. Offsets grow with every message on any topic and are never
/// used twice in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset right behind this one.
    #[must_use]
    pub fn next(self) -> Self {
        // Only what a client makes up comes near the end.
        Self(self.0.saturating_add(1))
    }

    /// The offset right before this one: the place behind which it comes next.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which log an offset belongs to. A log that was lost, reset or repaired gets another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

/// An offset together with its epoch, `<epoch>.<offset>`. Opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The log it points into.
    pub epoch: Epoch,
    /// The place in that log.
    pub offset: Offset,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.epoch.0, self.offset)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (epoch, offset) = text.split_once('.').ok_or(CursorError)?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if epoch.len() != 16 || !digits(epoch) || !digits(offset) {
            return Err(CursorError);
        }
        Ok(Self {
            epoch: Epoch(u64::from_str_radix(epoch, 16).map_err(|_| CursorError)?),
            offset: Offset(offset.parse().map_err(|_| CursorError)?),
        })
    }
}

/// The text is not a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor; use one that this server has given")]
pub struct CursorError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is() {
        let cursor = Cursor {
            epoch: Epoch(0xbeef),
            offset: Offset(u64::MAX),
        };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in [
            "",
            ".",
            "1.1",
            "000000000000beef.",
            "000000000000beef.+1",
            "000000000000beef.a",
            "0000000000 0beef.1",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text:?}");
        }
    }
}

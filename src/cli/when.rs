//! A moment as people type it.

use std::str::FromStr;
use std::time::SystemTime;

use jiff::Timestamp;

/// A time in RFC 3339, of UTC if it names no zone, or so long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct When(pub(super) Timestamp);

impl FromStr for When {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ago = || {
            let span = humantime::parse_duration(text).ok()?;
            let time = SystemTime::now().checked_sub(span)?;
            Timestamp::try_from(time).ok()
        };
        let utc = || format!("{text}Z").parse().ok();
        let time = text.parse().ok().or_else(utc).or_else(ago);
        time.map(Self)
            .ok_or("expected a time such as 2026-01-31T12:00:00Z, or a span such as 2h")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_a_while_ago() {
        let time: When = "2026-01-31T13:00:00+01:00".parse().unwrap();
        assert_eq!(time.0.to_string(), "2026-01-31T12:00:00Z");
        assert_eq!("2026-01-31T12:00:00".parse(), Ok(time));
        let ago: When = "2h".parse().unwrap();
        let passed = Timestamp::now().duration_since(ago.0).as_secs();
        assert!((7_200..7_300).contains(&passed), "{passed}");
        for text in ["", "yesterday", "2", "99999999999y"] {
            assert!(text.parse::<When>().is_err(), "{text:?}");
        }
    }
}

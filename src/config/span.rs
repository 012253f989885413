//! A length of time as people write it: `10s`, `1h 30m`, `30d`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A length of time longer than nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        match humantime::parse_duration(text) {
            Ok(span) if !span.is_zero() && span <= MAX => Ok(Self(span)),
            _ => Err(SpanError),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// A thousand years: what is added to a time must still be one.
const MAX: Duration = Duration::from_secs(1_000 * 31_557_600);

/// The text is not a length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a length of time such as 500ms, 10s, 5m, 1h or 30d")]
pub struct SpanError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_a_unit_and_is_not_nothing() {
        assert_eq!("90s".parse(), Ok(Span(Duration::from_secs(90))));
        assert_eq!("30d".parse(), Ok(Span(Duration::from_secs(30 * 86_400))));
        assert_eq!(Span(Duration::from_secs(90)).to_string(), "1m 30s");
        assert!("1000y".parse::<Span>().is_ok());
        for text in ["", "5", "0s", "-1s", "soon", "1001y"] {
            assert_eq!(text.parse::<Span>(), Err(SpanError), "{text:?}");
        }
    }
}

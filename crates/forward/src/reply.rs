//! What became of one attempt: the target's answer, or why there is none.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

/// What a target answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as much of it as was read: see [`TargetSettings::max_answer`].
    ///
    /// [`TargetSettings::max_answer`]: crate::TargetSettings::max_answer
    pub body: Bytes,
    /// From the beginning of the attempt to the end of the answer.
    pub duration: Duration,
}

impl Reply {
    /// How long the target wants to be left alone: `Retry-After` (RFC 9110, section 10.2.3) in
    /// seconds or as a date.
    #[must_use]
    pub fn retry_after(&self, now: SystemTime) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let date = jiff::fmt::rfc2822::parse(text).ok()?;
        let date = SystemTime::from(date.timestamp());
        Some(date.duration_since(now).unwrap_or_default())
    }

    /// The first line of the body, without control characters; may be empty.
    #[must_use]
    pub fn first_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let line = text.trim_start().lines().next().unwrap_or_default();
        let line = line.chars().filter(|char| !char.is_control());
        line.take(MAX_LINE).collect()
    }
}

/// In characters.
const MAX_LINE: usize = 200;

/// Why there is no answer. No message of it shows a credential.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no connection: the name is unknown, nobody listens, or TLS fails. The target has
    /// seen nothing.
    #[error("{0}")]
    Connect(String),
    /// The connection was lost before the answer. The target may have taken the message.
    #[error("the connection was lost before the answer: {0}")]
    Lost(String),
    /// There was no answer in time. The target may have taken the message.
    #[error("no answer within {}", seconds(.0))]
    Timeout(Duration),
    /// No request can be made of this message.
    #[error("no request can be made of it: {0}")]
    Unfit(String),
}

impl SendError {
    /// Whether another attempt may go better. Only what is wrong with the message itself stays
    /// wrong.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Unfit(_))
    }
}

fn seconds(span: &Duration) -> String {
    format!("{} s", span.as_secs_f32())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(retry_after: &str, body: &'static str) -> Reply {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry_after.parse().unwrap());
        Reply {
            status: StatusCode::SERVICE_UNAVAILABLE,
            headers,
            body: body.into(),
            duration: Duration::ZERO,
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // 1994-11-06T08:49:27Z, ten seconds before RFC 9110's example.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_767);
        for (text, pause) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            let found = reply(text, "").retry_after(now);
            assert_eq!(found, pause.map(Duration::from_secs), "{text:?}");
        }
    }

    #[test]
    fn of_a_body_one_short_line_is_shown() {
        assert_eq!(
            reply("", "\n no\x1b[31m way\r\nmore").first_line(),
            "no[31m way"
        );
        assert_eq!(reply("", "").first_line(), "");
    }
}

//! What an answer of an API means for whoever asks: done, wait, try again, or give up.

use std::time::Duration;

use http::header::{DATE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// What to do about an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is what was asked for.
    Done,
    /// Ask again after this time; where the provider does not say, after one that grows.
    Wait(Option<Duration>),
    /// It may work the next time.
    Broken,
    /// It is there now.
    Moved(String),
    /// No.
    Refused,
}

impl Verdict {
    /// Reads status, headers and the reason that the body gives.
    ///
    /// A limit that is used up is told by 429, or on GitHub by 403 with the headers of its limits
    /// or, where it is a secondary one, with nothing but words: see
    /// <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>.
    pub(crate) fn of(response: &Response<bytes::Bytes>, message: &str) -> Self {
        let (status, headers) = (response.status(), response.headers());
        let moved = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        match (status, moved) {
            (status, _) if status.is_success() => Self::Done,
            (status, Some(place)) if status.is_redirection() => Self::Moved(place.to_owned()),
            (StatusCode::TOO_MANY_REQUESTS, _) => Self::Wait(asked_wait(headers)),
            (StatusCode::FORBIDDEN, _) => match asked_wait(headers) {
                Some(wait) => Self::Wait(Some(wait)),
                None if speaks_of_limits(message) => Self::Wait(None),
                None => Self::Refused,
            },
            (StatusCode::REQUEST_TIMEOUT, _) => Self::Broken,
            (status, _) if status.is_server_error() => Self::Broken,
            _ => Self::Refused,
        }
    }
}

/// For how long the limit that these headers tell of is used up.
///
/// By the provider's own clock, where it says what that is: ours may be wrong.
pub(crate) fn until_reset(headers: &HeaderMap) -> Option<Duration> {
    let number = |names: [&str; 2]| {
        let value = names.iter().find_map(|name| headers.get(*name))?;
        value.to_str().ok()?.trim().parse::<i64>().ok()
    };
    if number(["x-ratelimit-remaining", "ratelimit-remaining"])? > 0 {
        return None;
    }
    let reset = number(["x-ratelimit-reset", "ratelimit-reset"])?;
    let wait = reset.saturating_sub(now(headers).as_second());
    // A second more, because both are rounded.
    Some(Duration::from_secs(wait.try_into().unwrap_or(0) + 1))
}

fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    let asked = headers.get(RETRY_AFTER).and_then(|value| {
        let text = value.to_str().ok()?.trim();
        let seconds = text.parse().ok().map(Duration::from_secs);
        seconds.or_else(|| {
            let wait = date(text)?.duration_since(now(headers));
            Some(wait.try_into().unwrap_or_default())
        })
    });
    asked.or_else(|| until_reset(headers))
}

fn now(headers: &HeaderMap) -> Timestamp {
    let given = headers.get(DATE).and_then(|value| value.to_str().ok());
    given.and_then(date).unwrap_or_else(Timestamp::now)
}

/// A time as HTTP has it (RFC 9110, section 5.6.7).
pub(crate) fn date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

fn speaks_of_limits(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("rate limit") || message.contains("abuse detection")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_answer_is_told_from_the_others() {
        let secondary = "You have exceeded a secondary rate limit. Please wait.";
        let seconds = |seconds| Verdict::Wait(Some(Duration::from_secs(seconds)));
        let date = ("date", "Thu, 26 Nov 2026 10:00:00 GMT");
        let used_up = ("x-ratelimit-remaining", "0");
        // 90 s later.
        let reset = ("x-ratelimit-reset", "1795687290");
        for (status, headers, message, verdict) in [
            (200, &[used_up, reset][..], "", Verdict::Done),
            (301, &[("location", "/b")], "", Verdict::Moved("/b".into())),
            (304, &[], "", Verdict::Refused),
            (403, &[], "Resource not accessible", Verdict::Refused),
            (403, &[], secondary, Verdict::Wait(None)),
            (403, &[("retry-after", "7")], secondary, seconds(7)),
            (
                403,
                &[date, used_up, reset],
                "API rate limit exceeded",
                seconds(91),
            ),
            (
                403,
                &[("x-ratelimit-remaining", "9"), reset],
                "no",
                Verdict::Refused,
            ),
            (429, &[date, used_up, reset], "", seconds(91)),
            (
                429,
                &[used_up, date, ("retry-after", "7"), reset],
                "",
                seconds(7),
            ),
            (
                429,
                &[date, ("retry-after", "Thu, 26 Nov 2026 10:00:30 GMT")],
                "",
                seconds(30),
            ),
            (
                429,
                &[
                    date,
                    ("ratelimit-remaining", "0"),
                    ("ratelimit-reset", "1795687205"),
                ],
                "",
                seconds(6),
            ),
            (
                429,
                &[date, used_up, ("x-ratelimit-reset", "5")],
                "",
                seconds(1),
            ),
            (429, &[], "", Verdict::Wait(None)),
            (404, &[], "Not Found", Verdict::Refused),
            (408, &[], "", Verdict::Broken),
            (502, &[], "", Verdict::Broken),
        ] {
            let mut response = Response::new(bytes::Bytes::new());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            for (name, value) in headers {
                response.headers_mut().insert(*name, value.parse().unwrap());
            }
            let found = Verdict::of(&response, message);
            assert_eq!(found, verdict, "{status} {headers:?}");
        }
    }
}

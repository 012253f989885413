//! Where a subscriber wants to begin, and what it wants done about messages that are missing.

use std::time::{Duration, SystemTime};

use hookbot_broker::Start;
use http::HeaderMap;
use http::header::HeaderName;

use super::error::HttpError;

/// What a subscriber asks for besides a path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Wish {
    /// Where to begin; with what comes next if it does not say.
    pub(super) start: Option<Start>,
    /// That place as the subscriber wrote it.
    pub(super) asked: String,
    /// Where there is no room to tell of a gap, go on without telling.
    pub(super) skips_gaps: bool,
}

/// What a browser's event source sends when it reconnects.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

impl Wish {
    /// Reads the query and the headers at `now`. A browser reconnects with the query it began
    /// with, so its `Last-Event-ID` counts for more.
    pub(super) fn new(
        query: Option<&str>,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Result<Self, HttpError> {
        let mut wish = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "after" => wish.begin(after(&value)?, &value),
                "since" => wish.begin(since(&value, now)?, &value),
                "gap" if value == "skip" => wish.skips_gaps = true,
                "gap" => return Err(bad("gap", "skip")),
                _ => {}
            }
        }
        if let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) {
            let bad = || bad("Last-Event-ID", "the id of an event");
            let value = value.to_str().map_err(|_| bad())?;
            let cursor = value.parse().map_err(|_| bad())?;
            wish.begin(Start::After(cursor), value);
        }
        Ok(wish)
    }

    fn begin(&mut self, start: Start, asked: &str) {
        self.start = Some(start);
        asked.clone_into(&mut self.asked);
    }
}

const CURSOR: &str = "a cursor that this server has given, or start";

fn after(value: &str) -> Result<Start, HttpError> {
    if value == "start" {
        return Ok(Start::Oldest);
    }
    let cursor = value.parse().map_err(|_| bad("after", CURSOR))?;
    Ok(Start::After(cursor))
}

fn since(value: &str, now: SystemTime) -> Result<Start, HttpError> {
    let span = humantime::parse_duration(value).ok();
    let ago = |span: Duration| now.checked_sub(span).unwrap_or(SystemTime::UNIX_EPOCH);
    let time = span
        .map(ago)
        .or_else(|| Some(value.parse::<jiff::Timestamp>().ok()?.into()));
    let time = time.ok_or_else(|| {
        bad(
            "since",
            "a time such as 2026-01-31T12:00:00Z, or a span such as 10m",
        )
    })?;
    Ok(Start::Since(time))
}

fn bad(name: &'static str, expected: &'static str) -> HttpError {
    HttpError::Query { name, expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookbot_protocol::Cursor;

    fn wish(query: &str, last_event_id: Option<&str>) -> Result<Wish, String> {
        let mut headers = HeaderMap::new();
        if let Some(value) = last_event_id {
            headers.insert(LAST_EVENT_ID, value.parse().unwrap());
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        Wish::new(Some(query), &headers, now).map_err(|error| error.to_string())
    }

    #[test]
    fn a_place_is_a_cursor_the_start_or_a_time() {
        let cursor = "000000000000000e.7";
        let parsed: Cursor = cursor.parse().unwrap();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (query, header, start, asked) in [
            ("", None, None, ""),
            ("x=1", Some(""), None, ""),
            ("after=start", None, Some(Start::Oldest), "start"),
            (
                "after=000000000000000e.7",
                None,
                Some(Start::After(parsed)),
                cursor,
            ),
            (
                "after=start",
                Some(cursor),
                Some(Start::After(parsed)),
                cursor,
            ),
            ("since=10m", None, Some(Start::Since(at(400))), "10m"),
            (
                "since=1970-01-01T00:00:07Z",
                None,
                Some(Start::Since(at(7))),
                "1970-01-01T00:00:07Z",
            ),
            (
                "since=1970-01-01T01:00:07%2B01:00",
                None,
                Some(Start::Since(at(7))),
                "1970-01-01T01:00:07+01:00",
            ),
        ] {
            let wish = wish(query, header).unwrap();
            assert_eq!((wish.start, wish.asked.as_str()), (start, asked), "{query}");
        }
        assert!(wish("gap=skip", None).unwrap().skips_gaps);
    }

    #[test]
    fn what_is_no_place_is_refused_by_name() {
        for (query, header, name) in [
            ("after=", None, "after"),
            ("after=7", None, "after"),
            ("since=yesterday", None, "since"),
            ("gap=fill", None, "gap"),
            ("", Some("7"), "Last-Event-ID"),
        ] {
            let error = wish(query, header).unwrap_err();
            assert!(error.contains(name), "{query}: {error}");
        }
    }
}

//! What of a message's headers was for one hop only (RFC 9110, section 7.6.1).

use hookbot_protocol::HOP_BY_HOP;
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, TE};

/// Takes out what is about a connection and not about the message, and what is called `as_well`.
/// What is left keeps its order.
///
/// `Trailer` stays, although some lists have it: without it HTTP/1.1 sends no trailers. Of `TE`
/// only `trailers` stays, the one word that HTTP/2 allows.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, as_well: &[&str]) {
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let wants_trailers = has_word(headers, &TE, "trailers");
    let goes = |name: &HeaderName| {
        let text = name.as_str();
        let is_nominated = text != "trailer" && nominated.contains(name);
        is_nominated || HOP_BY_HOP.contains(&text) || as_well.contains(&text)
    };
    if headers.keys().any(goes) {
        // Taking single ones out would put others in their places.
        let mut left = HeaderMap::with_capacity(headers.len());
        for (name, value) in headers.iter().filter(|(name, _)| !goes(name)) {
            left.append(name, value.clone());
        }
        *headers = left;
    }
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Whether a list of words has this one, in any case, whatever its parameters.
#[must_use]
pub fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter();
    let mut words = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    words.any(|item| {
        let own = item.split(';').next().unwrap_or_default();
        own.trim().eq_ignore_ascii_case(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(headers: &[(&str, &str)]) -> Vec<String> {
        let pairs = headers.iter();
        let mut map: HeaderMap = pairs
            .map(|(name, value)| {
                let name: HeaderName = name.parse().unwrap();
                (name, HeaderValue::from_str(value).unwrap())
            })
            .collect();
        strip_hop_by_hop(&mut map, &["x-own"]);
        let left = map.iter();
        left.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect()
    }

    #[test]
    fn what_is_for_one_hop_goes_and_everything_else_stays_with_its_repeats() {
        let headers = stripped(&[
            ("connection", "close, X-Hop, te, trailer"),
            ("connection", "x-other"),
            ("x-hop", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "Basic x"),
            ("te", "deflate, Trailers;q=1"),
            ("trailer", "x-sum"),
            ("x-own", "1"),
            ("x-a", "1"),
            ("cookie", "c=1"),
            ("x-a", "2"),
        ]);
        assert_eq!(
            headers,
            [
                "trailer: x-sum",
                "x-a: 1",
                "x-a: 2",
                "cookie: c=1",
                "te: trailers"
            ]
        );
        assert_eq!(stripped(&[("te", "deflate")]), Vec::<String>::new());
    }
}

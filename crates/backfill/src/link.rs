//! The `Link` header (RFC 8288), by which both providers say where the next page is.

use http::HeaderMap;
use http::header::LINK;

/// The query of the link to the next page.
///
/// Nothing but the query is taken: the host and the path are those that were asked, so that no
/// answer leads our token elsewhere, and an API behind a proxy may think that it has another name.
pub(crate) fn next_query(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(LINK).into_iter();
    let links = values.filter_map(|value| value.to_str().ok());
    links.flat_map(links_of).find_map(|(url, parameters)| {
        let mut relations = parameters.split(';').filter_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            let is_rel = name.trim().eq_ignore_ascii_case("rel");
            is_rel.then(|| value.trim().trim_matches('"'))
        });
        let is_next = relations
            .next()?
            .split_ascii_whitespace()
            .any(|relation| relation.eq_ignore_ascii_case("next"));
        let (_, query) = url.split_once('?')?;
        let query = query.split('#').next().unwrap_or_default();
        is_next.then(|| query.to_owned())
    })
}

/// The links of one header, each with its parameters. A comma may be part of a URL.
fn links_of(value: &str) -> impl Iterator<Item = (&str, &str)> {
    let links = value.split('<').skip(1);
    links
        .filter_map(|link| link.split_once('>'))
        .map(|(url, rest)| (url, rest.trim_end_matches([',', ' '])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_others() {
        for (value, query) in [
            (
                r#"<https://api.github.com/x?per_page=100&cursor=v1_9,3>; rel="next""#,
                Some("per_page=100&cursor=v1_9,3"),
            ),
            (
                r#"<https://a/?page=1>; rel="first", <https://a/?page=3>; rel=next, <https://a/?page=9>; rel="last""#,
                Some("page=3"),
            ),
            (
                r#"<https://a/?page=2>; title="x"; REL="last next""#,
                Some("page=2"),
            ),
            (r#"<https://a/?page=1>; rel="prev""#, None),
            (r#"<https://a/>; rel="next""#, None),
            (r#"https://a/?page=2; rel="next""#, None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, value.parse().unwrap());
            assert_eq!(next_query(&headers).as_deref(), query, "{value}");
        }
    }
}

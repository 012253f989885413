//! What a person sees who opens a channel's URL in a browser.

/// The page for the channel with this URL.
pub(super) fn text(url: &str) -> String {
    // The host in it is the client's word.
    PAGE.replace("{url}", &escaped(url))
}

/// Nothing is fetched, run or framed.
pub(super) const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";

const PAGE: &str = include_str!("page.html");

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_made_up_stays_text() {
        let page = text("http://\"><script>&'/smee/x");
        assert!(page.contains("http://&quot;&gt;&lt;script&gt;&amp;&#39;/smee/x"));
        assert!(!page.contains("<script>") && !page.contains("{url}"));
    }
}

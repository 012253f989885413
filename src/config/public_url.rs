//! The URL under which the world sees the server.

use std::str::FromStr;

use http::Uri;

/// An `http` or `https` URL that paths can be put behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(pub String);

impl FromStr for PublicUrl {
    type Err = PublicUrlError;

    fn from_str(text: &str) -> Result<Self, PublicUrlError> {
        let uri: Uri = text.parse().map_err(|_| PublicUrlError)?;
        let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
        let has_more = text.contains(['?', '#', '@']);
        (is_web && !has_more)
            .then(|| Self(text.to_owned()))
            .ok_or(PublicUrlError)
    }
}

/// The text is no such URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a URL such as https://hooks.example.com")]
pub struct PublicUrlError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_one_that_paths_can_be_put_behind() {
        for text in ["https://h", "http://h:8080/", "https://[::1]/hooks/"] {
            assert_eq!(text.parse(), Ok(PublicUrl(text.to_owned())));
        }
        for text in [
            "",
            "h",
            "h.example.com",
            "//h",
            "ftp://h",
            "https://",
            "https://h/?a",
            "https://u@h",
        ] {
            assert_eq!(text.parse::<PublicUrl>(), Err(PublicUrlError), "{text}");
        }
    }
}

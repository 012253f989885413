//! What this server is called outside.

use http::HeaderMap;
use http::header::HOST;

use super::service::Asked;

impl Asked<'_> {
    /// The URL that is in front of every path, without a slash at its end: the one that the
    /// operator names, or else the one that the request came to.
    pub(super) fn base_url(&self, headers: &HeaderMap) -> String {
        match &self.state.settings.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => self.own_url(headers),
        }
    }

    /// The one that the request came to, whatever the operator says.
    pub(super) fn own_url(&self, headers: &HeaderMap) -> String {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        format!("{}://{}", self.scheme, host.unwrap_or("localhost"))
    }
}

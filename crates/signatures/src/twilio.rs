//! What is particular to Twilio: which URL is signed, and bodies that are not forms.
//!
//! "Webhooks security" in Twilio's documentation, and `RequestValidator` in its libraries.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::form;
use crate::refusal::Refusal;
use crate::request::Request;

/// The URL as it is, and with the scheme's own port dropped or added: some of Twilio's products
/// sign it with the port, and some without.
pub(crate) fn urls(url: &str) -> Vec<String> {
    let mut urls = vec![url.to_owned()];
    let Some((scheme, rest)) = url.split_once("://") else {
        return urls;
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    // A user's password and an IPv6 address have colons, too.
    let host = authority.rsplit(['@', ']']).next().unwrap_or_default();
    let usual = if scheme == "https" { ":443" } else { ":80" };
    if let Some(authority) = authority.strip_suffix(usual) {
        urls.push(format!("{scheme}://{authority}{rest}"));
    } else if !host.contains(':') {
        urls.push(format!("{scheme}://{authority}{usual}{rest}"));
    }
    urls
}

/// The body as far as it is signed itself: one whose hash is in the URL is signed with that.
pub(crate) fn signed_body<'a>(request: &Request<'a>) -> Result<&'a [u8], Refusal> {
    let query = request.query().as_bytes();
    if !form::pairs(query).any(|(name, _)| *name == *b"bodySHA256") {
        return Ok(request.body);
    }
    let hash = form::value(query, "bodySHA256").and_then(|hash| hex::decode(hash).ok());
    let is_own = hash.is_some_and(|hash| Sha256::digest(request.body).ct_eq(&hash).into());
    if is_own {
        Ok(b"")
    } else {
        Err(Refusal::BodyHash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_tried_with_its_port_and_without() {
        for (url, other) in [
            ("https://h/a?b=c:1", "https://h:443/a?b=c:1"),
            ("https://h:443/a", "https://h/a"),
            ("http://h", "http://h:80"),
            ("http://u:p@h/a", "http://u:p@h:80/a"),
            ("http://u:p@h:80?x", "http://u:p@h?x"),
            ("http://[::1]:80/", "http://[::1]/"),
            ("http://[::1]/", "http://[::1]:80/"),
        ] {
            assert_eq!(urls(url), [url, other]);
        }
        for url in ["/a", "https://h:80/", "http://h:8080", "http://[::1]:443"] {
            assert_eq!(urls(url), [url]);
        }
    }
}

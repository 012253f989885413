//! What can be told of a delivery's URL before anything is sent there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;
use sha2::{Digest, Sha256};

use crate::server::{AddressGuard, ForbiddenAddress, Networks};

/// A name, of at most so many bytes, for what of `topic` goes to `url`.
///
/// It shows nothing of the URL that may be a secret, and stays the same when the password changes.
pub(super) fn name(topic: &str, url: &str, most: usize) -> String {
    let (host, rest) = without_password(url);
    let plain = |char: char| match char {
        char if char.is_ascii_alphanumeric() || "-.".contains(char) => char,
        _ => '-',
    };
    let hash = Sha256::digest(format!("{topic}\n{rest}"));
    let hash = hash.iter().take(4).map(|byte| format!("{byte:02x}"));
    let hash: String = hash.collect();
    let host = host.chars().take(most - hash.len() - 1).map(plain);
    format!("{}-{hash}", host.collect::<String>())
}

/// Whether an address that stands in the URL may be reached. What a name leads to is seen when it
/// is looked up.
pub(super) fn check(url: &str, allowed: &Networks) -> Result<(), ForbiddenAddress> {
    let url: Option<Uri> = url.parse().ok();
    let host = url.as_ref().and_then(Uri::host).unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<IpAddr> = match host.parse() {
        Ok(address) => vec![address],
        Err(_) if host.eq_ignore_ascii_case("localhost") => {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        }
        Err(_) => return Ok(()),
    };
    let guard = AddressGuard::new(allowed.clone());
    let mut refusal = None;
    for address in addresses {
        match guard.check(address) {
            Ok(()) => return Ok(()),
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    refusal.map_or(Ok(()), Err)
}

/// The host of a URL, with its port, and all of the URL but the password.
fn without_password(url: &str) -> (&str, String) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@');
    let host = host.map_or(authority, |(_, host)| host);
    (host, format!("{scheme}://{host}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_of_what_is_no_secret() {
        let made = |url: &str| name("a/", url, 64);
        let plain = made("https://hooks.example.com:8443/services/T0/hush");
        assert!(plain.starts_with("hooks.example.com-8443-"), "{plain}");
        let secret = "https://u:hush@hooks.example.com:8443/services/T0/hush";
        assert_eq!(plain, made(secret));
        assert_ne!(
            plain,
            made("https://hooks.example.com:8443/services/T1/hush")
        );
        assert!(!plain.contains("hush"));
        assert_eq!(made(&format!("https://{}/", "x".repeat(80))).len(), 64);
    }

    #[test]
    fn an_address_in_a_url_is_refused_as_it_would_be_when_it_is_connected_to() {
        let is_open = |url: &str, allowed: &str| {
            check(url, &Networks::parse(allowed.split_whitespace()).unwrap()).is_ok()
        };
        for (url, allowed) in [
            ("https://example.com/", ""),
            ("http://8.8.8.8/", ""),
            ("http://127.0.0.1:9000/hook", "127.0.0.1"),
            ("http://[::1]/", "::1"),
            ("http://10.1.2.3/", "10.0.0.0/8"),
            // It is one of the two.
            ("http://u:p@localhost/", "127.0.0.1"),
            ("http://LocalHost/", "::1"),
        ] {
            assert!(is_open(url, allowed), "{url}");
            assert!(allowed.is_empty() || !is_open(url, ""), "{url}");
        }
        assert!(!is_open("http://[::ffff:10.0.0.1]:80/", "127.0.0.1"));
    }
}

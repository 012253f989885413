//! Who is behind a proxy: believed of those proxies alone that the operator trusts.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::networks::Networks;
use super::transport::Peer;

/// The proxies whose word for a client's address is taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedProxies {
    /// Where they are.
    pub networks: Networks,
    /// Whether whoever comes through a unix socket is one.
    pub local: bool,
    /// The header in which they name the client. The other one they may hand on from strangers.
    pub header: ForwardedHeader,
    /// Whether their connections begin with a header of the PROXY protocol, version 1 or 2.
    pub protocol: bool,
}

/// In which header a proxy names its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl TrustedProxies {
    /// Whether this end of a connection is such a proxy.
    pub(super) fn trusts(&self, peer: Peer) -> bool {
        match peer {
            Peer::Ip(address) => self.networks.contains(address.ip()),
            Peer::Local => self.local,
        }
    }

    /// Whether this end of a connection says first of all for whom it comes.
    pub(super) fn introduces(&self, peer: Peer) -> bool {
        self.protocol && self.trusts(peer)
    }

    /// The client that a request is from: the last address in the header that is not a trusted
    /// proxy's. Everything to the left of it may be made up.
    pub(super) fn client(&self, peer: Peer, headers: &HeaderMap) -> Peer {
        if !self.trusts(peer) {
            return peer;
        }
        let mut client = peer;
        for hop in self.hops(headers).iter().rev() {
            // What can't be read is where knowledge ends.
            let Some(address) = address(hop) else { break };
            client = Peer::Ip(address);
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    /// What the client speaks with the nearest proxy, `http` or `https`, where that is a trusted
    /// one and says so.
    pub(super) fn scheme(&self, peer: Peer, headers: &HeaderMap) -> Option<&'static str> {
        if !self.trusts(peer) {
            return None;
        }
        let name = match self.header {
            ForwardedHeader::XForwardedFor => X_FORWARDED_PROTO,
            ForwardedHeader::Forwarded => FORWARDED,
        };
        let last = headers.get_all(name).into_iter().next_back()?;
        let last = last.to_str().ok()?.rsplit(',').next()?;
        let said = match self.header {
            ForwardedHeader::XForwardedFor => last.trim(),
            ForwardedHeader::Forwarded => forwarded(last, "proto")?,
        };
        ["http", "https"]
            .into_iter()
            .find(|scheme| said.eq_ignore_ascii_case(scheme))
    }

    /// Everybody whom the header names, in order.
    fn hops<'a>(&self, headers: &'a HeaderMap) -> Vec<&'a str> {
        let name = match self.header {
            ForwardedHeader::XForwardedFor => X_FORWARDED_FOR,
            ForwardedHeader::Forwarded => FORWARDED,
        };
        let texts = headers.get_all(name).into_iter();
        // A value that is no text ends what is known, too.
        let hops = texts.flat_map(|value| value.to_str().unwrap_or("?").split(','));
        match self.header {
            ForwardedHeader::XForwardedFor => hops.map(str::trim).collect(),
            ForwardedHeader::Forwarded => hops
                .map(|hop| forwarded(hop, "for").unwrap_or("?"))
                .collect(),
        }
    }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// One parameter of an element of `Forwarded`.
fn forwarded<'a>(element: &'a str, wanted: &str) -> Option<&'a str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))?;
    let value = value.trim();
    let quoted = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'));
    Some(quoted.unwrap_or(value))
}

/// An address, with a port or without; an IPv6 address may be in brackets.
fn address(text: &str) -> Option<SocketAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let ip: Result<IpAddr, _> = bare.unwrap_or(text).parse();
    match ip {
        Ok(ip) => Some(SocketAddr::new(ip, 0)),
        Err(_) => text.parse().ok(),
    }
}

impl FromStr for ForwardedHeader {
    type Err = ForwardedHeaderError;

    fn from_str(text: &str) -> Result<Self, ForwardedHeaderError> {
        match text.to_ascii_lowercase().as_str() {
            "x-forwarded-for" => Ok(Self::XForwardedFor),
            "forwarded" => Ok(Self::Forwarded),
            _ => Err(ForwardedHeaderError),
        }
    }
}

impl fmt::Display for ForwardedHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        })
    }
}

/// The header is not one that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected x-forwarded-for or forwarded")]
pub struct ForwardedHeaderError;

/// Reads a header of the PROXY protocol and nothing behind it; the client's address, if it names
/// one.
pub(super) async fn read_header(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; START];
    stream.read_exact(&mut header).await?;
    if header.starts_with(VERSION_2) {
        header.push(stream.read_u8().await?);
        let length = u16::from_be_bytes([header[14], header[15]]);
        if length > MAX_LENGTH {
            return Err(malformed());
        }
        let start = header.len();
        header.resize(start + usize::from(length), 0);
        stream.read_exact(&mut header[start..]).await?;
    } else if header.starts_with(VERSION_1) {
        // Only its end tells how long it is, and what follows is not ours to read.
        while !header.ends_with(b"\r\n") {
            if header.len() >= MAX_LINE {
                return Err(malformed());
            }
            header.push(stream.read_u8().await?);
        }
    } else {
        return Err(malformed());
    }
    let (parsed, _) =
        ProxyHeader::parse(&header, ParseConfig::default()).map_err(|_| malformed())?;
    Ok(parsed.proxied_address().map(|address| address.source))
}

fn malformed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "no header of the PROXY protocol",
    )
}

/// Enough to tell the versions apart, and the length of the shortest header of either.
const START: usize = b"PROXY UNKNOWN\r\n".len();

const VERSION_1: &[u8] = b"PROXY ";

const VERSION_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1.
const MAX_LINE: usize = 107;

/// The most that version 2 may say, in bytes; an address takes 36, and certificates are not asked
/// for.
const MAX_LENGTH: u16 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn proxies(header: ForwardedHeader) -> TrustedProxies {
        TrustedProxies {
            networks: Networks::parse(["10.0.0.0/8", "fd00::/8"]).unwrap(),
            header,
            ..TrustedProxies::default()
        }
    }

    fn peer(address: &str) -> Peer {
        Peer::Ip(super::address(address).unwrap())
    }

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn the_client_is_the_last_one_that_is_no_trusted_proxy() {
        let proxies = proxies(ForwardedHeader::XForwardedFor);
        for (from, values, client) in [
            ("10.0.0.1", &[][..], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.1"], "192.0.2.1"),
            ("::ffff:10.0.0.1", &["192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6", "192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["192.0.2.1, 10.2.0.1,10.3.0.1"], "192.0.2.1"),
            ("10.0.0.1", &["10.9.0.1, 10.2.0.1"], "10.9.0.1"),
            ("10.0.0.1", &["192.0.2.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.1, , 10.2.0.1"], "10.2.0.1"),
            ("10.0.0.1", &["192.0.2.1:80"], "192.0.2.1:80"),
            ("10.0.0.1", &["[2001:db8::1]:80"], "[2001:db8::1]:80"),
            ("fd00::1", &["2001:db8::1"], "2001:db8::1"),
            // A stranger's word is worth nothing, and so is the header that is not asked for.
            ("192.0.2.9", &["127.0.0.1"], "192.0.2.9"),
        ] {
            let headers = headers(X_FORWARDED_FOR, values);
            let found = proxies.client(peer(from), &headers);
            assert_eq!(found, peer(client), "{from} {values:?}");
        }
        let other = headers(FORWARDED, &["for=192.0.2.1"]);
        assert_eq!(proxies.client(peer("10.0.0.1"), &other), peer("10.0.0.1"));
        let given = headers(X_FORWARDED_FOR, &["192.0.2.1"]);
        assert_eq!(proxies.client(Peer::Local, &given), Peer::Local);
        let proxies = TrustedProxies {
            local: true,
            ..proxies
        };
        assert_eq!(proxies.client(Peer::Local, &given), peer("192.0.2.1"));
    }

    #[test]
    fn the_scheme_is_what_the_nearest_trusted_proxy_says() {
        let ours = proxies(ForwardedHeader::XForwardedFor);
        let rfc = proxies(ForwardedHeader::Forwarded);
        for (proxies, from, name, values, scheme) in [
            (
                &ours,
                "10.0.0.1",
                X_FORWARDED_PROTO,
                &["https"][..],
                Some("https"),
            ),
            (
                &ours,
                "10.0.0.1",
                X_FORWARDED_PROTO,
                &["http, HTTPS"],
                Some("https"),
            ),
            (
                &ours,
                "10.0.0.1",
                X_FORWARDED_PROTO,
                &["https", "http"],
                Some("http"),
            ),
            (&ours, "10.0.0.1", X_FORWARDED_PROTO, &["javascript"], None),
            (&ours, "10.0.0.1", FORWARDED, &["proto=https"], None),
            (&ours, "192.0.2.9", X_FORWARDED_PROTO, &["https"], None),
            (
                &rfc,
                "10.0.0.1",
                FORWARDED,
                &["for=a;proto=http, for=b;Proto=\"https\""],
                Some("https"),
            ),
            (&rfc, "10.0.0.1", FORWARDED, &["for=a"], None),
            (&rfc, "10.0.0.1", X_FORWARDED_PROTO, &["https"], None),
        ] {
            let headers = headers(name, values);
            assert_eq!(proxies.scheme(peer(from), &headers), scheme, "{values:?}");
        }
    }

    #[test]
    fn forwarded_is_read_as_its_specification_writes_it() {
        let proxies = proxies(ForwardedHeader::Forwarded);
        for (value, client) in [
            ("for=192.0.2.43", "192.0.2.43"),
            (
                "For=\"[2001:db8:cafe::17]:4711\"",
                "[2001:db8:cafe::17]:4711",
            ),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
            ("for=6.6.6.6, for=192.0.2.43", "192.0.2.43"),
            ("for=192.0.2.43, for=10.0.0.7", "192.0.2.43"),
            ("for=192.0.2.43, for=_hidden", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
        ] {
            let headers = headers(FORWARDED, &[value]);
            assert_eq!(
                proxies.client(peer("10.0.0.1"), &headers),
                peer(client),
                "{value}"
            );
        }
    }

    #[tokio::test]
    async fn a_header_of_either_version_is_read_to_its_end_and_no_further() {
        let mut version_2 = VERSION_2.to_vec();
        version_2.extend(b"\x21\x11\x00\x0c\xc0\x00\x02\x01\x0a\x00\x00\x01\x12\x34\x00\x50");
        let mut local = VERSION_2.to_vec();
        local.extend(b"\x20\x00\x00\x00");
        for (header, client) in [
            (
                &b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\r\n"[..],
                Some("192.0.2.1:4660"),
            ),
            (
                b"PROXY TCP6 2001:db8::1 fd00::1 1 80\r\n",
                Some("[2001:db8::1]:1"),
            ),
            (b"PROXY UNKNOWN\r\n", None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
            (&version_2, Some("192.0.2.1:4660")),
            (&local, None),
        ] {
            let all = [header, b"GET /"].concat();
            let mut rest = &all[..];
            let found = read_header(&mut rest).await.unwrap();
            assert_eq!(found, client.map(|client| client.parse().unwrap()));
            assert_eq!(rest, b"GET /");
        }
    }

    #[tokio::test]
    async fn no_bytes_break_the_readers() {
        let pieces = [
            "for=",
            "\"",
            "[",
            "]",
            ":",
            "::",
            "1",
            "10.0.0.1",
            ";",
            ",",
            "=",
            " ",
            "PROXY ",
            "TCP4 ",
            "\r\n",
            "\0",
            "QUIT\n",
            "!",
            "ü",
            "65536",
            "fe80::1%1",
        ];
        for _ in 0..20_000 {
            let number = fastrand::usize(..12);
            let text: String = (0..number)
                .filter_map(|_| fastrand::choice(pieces))
                .collect();
            for header in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
                if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                    let mut headers = HeaderMap::new();
                    headers.append(X_FORWARDED_FOR, value.clone());
                    headers.append(FORWARDED, value);
                    proxies(header).client(peer("10.0.0.1"), &headers);
                }
            }
            let start = fastrand::choice([VERSION_1, VERSION_2, b""]).unwrap_or_default();
            let _ = read_header(&mut &[start, text.as_bytes()].concat()[..]).await;
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let long = [VERSION_1, &b"TCP4 ".repeat(40)].concat();
        let mut endless = VERSION_2.to_vec();
        endless.extend(b"\x21\x11\xff\xff");
        for bytes in [
            &b""[..],
            b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 99999 80\r\n",
            b"PROXY TCP4 x 10.0.0.1 1 80\r\n",
            &long,
            &endless,
            VERSION_2,
        ] {
            assert!(read_header(&mut &bytes[..]).await.is_err(), "{bytes:?}");
        }
    }
}

//! Where deliveries may go: to the world, and to what the operator has named.
//!
//! Whoever can have a message delivered must not reach what only this machine and its neighbours
//! reach. What counts is the address that is connected to, whatever name or spelling led there; so
//! it is asked with every address between the look-up and the connection, and no name is looked up
//! again after that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::networks::Networks;

/// Says of each address whether a delivery may go there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressGuard {
    allowed: Networks,
}

impl AddressGuard {
    /// A guard that lets through what is allowed, besides all that is public.
    #[must_use]
    pub fn new(allowed: Networks) -> Self {
        Self { allowed }
    }

    /// Whether a delivery may go to this address.
    ///
    /// # Errors
    ///
    /// When it is not public and not allowed.
    pub fn check(&self, address: IpAddr) -> Result<(), ForbiddenAddress> {
        let address = address.to_canonical();
        let led_to = match address {
            IpAddr::V6(v6) => embedded(v6).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        let kind = match led_to.unwrap_or(address) {
            IpAddr::V4(v4) => kind_of_v4(v4),
            IpAddr::V6(v6) => kind_of_v6(v6),
        };
        let Some(kind) = kind else {
            return Ok(());
        };
        let mut ways = [Some(address), led_to].into_iter().flatten();
        if ways.any(|way| self.allowed.contains(way)) {
            return Ok(());
        }
        Err(ForbiddenAddress { address, kind })
    }
}

/// A delivery would go where it may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {kind}: add it to `allow` if deliveries may go there")]
pub struct ForbiddenAddress {
    /// Where it would go.
    pub address: IpAddr,
    kind: &'static str,
}

/// The IPv4 address that one of IPv6 leads to, by NAT64 (RFC 6052) or 6to4 (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match (a, b) {
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => Some(v4(g, h)),
        (0x2002, high) => Some(v4(high, c)),
        _ => None,
    }
}

/// What an address is that is not everybody's, by IANA's registry of special purposes.
fn kind_of_v4(address: Ipv4Addr) -> Option<&'static str> {
    let kind = match address.octets() {
        [0, ..] => "of this network",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "private",
        [100, 64..=127, ..] => "a carrier's own",
        [127, ..] => "this machine's",
        [169, 254, ..] => "link-local, where clouds keep their secrets",
        // Not in the registry: Azure answers its own machines there, and only those.
        [168, 63, 129, 16] => "a cloud's own",
        [192, 0, 0, _] | [192, 88, 99, _] => "reserved for protocols",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "for documentation",
        [198, 18..=19, ..] => "for benchmarks",
        [224..=239, ..] => "multicast",
        [240..=255, ..] => "reserved",
        _ => return None,
    };
    Some(kind)
}

/// The same of IPv6, where all that is public begins with the bits 001.
fn kind_of_v6(address: Ipv6Addr) -> Option<&'static str> {
    let kind = match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => "this machine's",
        [0xfc00..=0xfdff, ..] => "private",
        [0xfe80..=0xfebf, ..] => "link-local",
        [0xff00..=0xffff, ..] => "multicast",
        [0x2001, 0..=0x1ff, ..] => "reserved for protocols",
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => "for documentation",
        [0x2000..=0x3fff, ..] => return None,
        _ => "reserved",
    };
    Some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_open(guard: &AddressGuard, address: &str) -> bool {
        guard.check(address.parse().unwrap()).is_ok()
    }

    #[test]
    fn only_what_is_public_is_reached() {
        let guard = AddressGuard::default();
        for private in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::808:808",
            "100::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:2::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:a00:1::1",
            "2002:c0a8:101::",
            "3fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_open(&guard, private), "{private}");
        }
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2002:808:808::1",
            "2606:4700::1111",
            "3ffe::1",
        ] {
            assert!(is_open(&guard, public), "{public}");
        }
    }

    #[test]
    fn what_is_allowed_is_reached_however_it_is_written_and_nothing_beside_it() {
        let guard = |allowed: &[&str]| AddressGuard::new(Networks::parse(allowed).unwrap());
        let one = guard(&["127.0.0.1", "10.1.0.0/16", "fd00:1::/32"]);
        for allowed in [
            "127.0.0.1",
            "::ffff:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "2002:7f00:1::1",
            "10.1.255.255",
            "fd00:1::9",
        ] {
            assert!(is_open(&one, allowed), "{allowed}");
        }
        for other in [
            "127.0.0.2",
            "::1",
            "10.2.0.0",
            "fd00:2::9",
            "64:ff9b::10.2.0.1",
        ] {
            assert!(!is_open(&one, other), "{other}");
        }
        // By the address that is connected to, too.
        assert!(is_open(&guard(&["64:ff9b::/96"]), "64:ff9b::10.2.0.1"));
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let refused = AddressGuard::default().check("::ffff:127.0.0.1".parse().unwrap());
        assert_eq!(
            refused.unwrap_err().to_string(),
            "127.0.0.1 is this machine's: add it to `allow` if deliveries may go there"
        );
    }
}

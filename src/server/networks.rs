//! Sets of addresses: as they are typed, and as providers publish theirs.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde_json::Value;

/// Addresses, as ranges that neither touch nor overlap.
///
/// An IPv4 address and the same one mapped into IPv6 are one address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks {
    /// First and last, in order, in the space of IPv6.
    ranges: Vec<(u128, u128)>,
}

impl Networks {
    /// Reads entries: an address, a network such as `10.0.0.0/8`, or `file:PATH` for a list of
    /// them. A file is one entry a line, with `#` for comments, or JSON as providers publish it,
    /// of which every text counts that is an address or a network; `file:PATH#KEY` takes those
    /// below one key.
    ///
    /// # Errors
    ///
    /// When an entry is none of these, or a file can't be read or has none.
    pub fn parse<T: AsRef<str>>(
        entries: impl IntoIterator<Item = T>,
    ) -> Result<Self, NetworksError> {
        let mut networks = Vec::new();
        for entry in entries {
            let entry = entry.as_ref().trim();
            match entry.strip_prefix("file:") {
                Some(file) => networks.extend(read(file)?),
                None => networks
                    .push(network(entry).ok_or_else(|| NetworksError::Entry(entry.to_owned()))?),
            }
        }
        Ok(networks.into_iter().collect())
    }

    /// Whether the address is one of these.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = place(address);
        let behind = self.ranges.partition_point(|(first, _)| *first <= address);
        behind > 0 && address <= self.ranges[behind - 1].1
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<T: IntoIterator<Item = IpNet>>(networks: T) -> Self {
        let networks = networks.into_iter();
        let mut all: Vec<_> = networks
            .map(|own| (place(own.network()), place(own.broadcast())))
            .collect();
        all.sort_unstable();
        let mut ranges: Vec<(u128, u128)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match ranges.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => ranges.push((first, last)),
            }
        }
        Self { ranges }
    }
}

/// An address in the space of IPv6.
fn place(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Reads one address or network.
fn network(text: &str) -> Option<IpNet> {
    let one = || {
        text.parse::<IpAddr>()
            .ok()
            .map(|ip| ip.to_canonical().into())
    };
    text.parse().ok().or_else(one)
}

/// Reads a file, or what is below a key in it.
fn read(file: &str) -> Result<Vec<IpNet>, NetworksError> {
    let (path, key) = match file.split_once('#') {
        Some((path, key)) => (Path::new(path), Some(key)),
        None => (Path::new(file), None),
    };
    let text = fs::read_to_string(path).map_err(|source| NetworksError::Read {
        file: path.to_owned(),
        source,
    })?;
    let bad = |what: String| NetworksError::File {
        file: path.to_owned(),
        what,
    };
    let mut found = Vec::new();
    if text.trim_start().starts_with(['{', '[']) {
        let json: Value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        let json = match key {
            None => &json,
            Some(key) => json
                .get(key)
                .ok_or_else(|| bad(format!("there is no key {key:?}")))?,
        };
        collect(json, &mut found);
    } else {
        for (number, line) in text.lines().enumerate() {
            let entry = line.split_once('#').map_or(line, |(entry, _)| entry).trim();
            if !entry.is_empty() {
                let line = number + 1;
                found.push(network(entry).ok_or_else(|| bad(format!("line {line}: {entry:?}")))?);
            }
        }
    }
    if found.is_empty() {
        return Err(bad("no address is in it".to_owned()));
    }
    Ok(found)
}

/// Every text in a document that is an address or a network.
fn collect(json: &Value, found: &mut Vec<IpNet>) {
    match json {
        Value::String(text) => found.extend(network(text)),
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(fields) => fields.values().for_each(|item| collect(item, found)),
        _ => {}
    }
}

/// Why a set of addresses can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworksError {
    /// An entry is neither an address nor a network.
    #[error("{0:?} is neither an address, a network such as 10.0.0.0/8, nor file:PATH")]
    Entry(String),
    /// A file can't be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// Which one.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{} is no list of addresses: {what}", file.display())]
    File {
        /// Which one.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// The address that one party is counted by: an IPv6 network stands for all its addresses, since
/// one party commonly has that many.
pub(super) fn counted_by(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::from([a, b, c, d, 0, 0, 0, 0]))
        }
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from(ip.octets())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(networks: &Networks, address: &str) -> bool {
        networks.contains(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_in_a_set_or_not_whichever_way_it_is_written() {
        let entries = [
            "10.0.0.0/8",
            "192.0.2.7",
            "2001:db8::/32",
            "10.1.0.0/16",
            "11.0.0.0/8",
        ];
        let networks = Networks::parse(entries).unwrap();
        for (address, expected) in [
            ("10.0.0.0", true),
            ("11.255.255.255", true),
            ("12.0.0.0", false),
            ("9.255.255.255", false),
            ("::ffff:10.2.3.4", true),
            ("::10.2.3.4", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
        ] {
            assert_eq!(has(&networks, address), expected, "{address}");
        }
        assert!(!has(&Networks::default(), "10.0.0.1"));
        for everything in ["0.0.0.0/0", "::/0"] {
            assert!(has(&Networks::parse([everything]).unwrap(), "10.0.0.1"));
        }
        assert!(!has(
            &Networks::parse(["0.0.0.0/0"]).unwrap(),
            "2001:db8::1"
        ));
    }

    #[test]
    fn ranges_are_read_as_providers_publish_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ranges");
        let read = |text: &str, key: &str| {
            fs::write(&file, text).unwrap();
            Networks::parse([format!("file:{}{key}", file.display())])
        };
        let github = r#"{"verifiable":true,"hooks":["192.30.252.0/22"],"web":["140.82.112.0/20"]}"#;
        let hooks = read(github, "#hooks").unwrap();
        assert!(has(&hooks, "192.30.252.1") && !has(&hooks, "140.82.112.1"));
        assert!(has(&read(github, "").unwrap(), "140.82.112.1"));
        let amazon = r#"{"prefixes":[{"ip_prefix":"3.4.12.4/32","region":"eu-west-1"}]}"#;
        assert!(has(&read(amazon, "").unwrap(), "3.4.12.4"));
        let lines = "# edge\n173.245.48.0/20\n\n2400:cb00::/32 # six\n";
        assert!(has(&read(lines, "").unwrap(), "2400:cb00::1"));
        for (text, key) in [
            ("", ""),
            ("[]", ""),
            ("{\"a\":[]}", "#b"),
            ("10.0.0.0/8\nx", ""),
        ] {
            let error = read(text, key).unwrap_err();
            assert!(
                matches!(error, NetworksError::File { .. }),
                "{text:?}: {error}"
            );
        }
    }

    #[test]
    fn an_entry_that_is_no_network_is_named() {
        for entry in ["", "10.0.0", "10.0.0.0/33", "localhost", "file:/none"] {
            let error = Networks::parse([entry]).unwrap_err().to_string();
            let entry = entry.strip_prefix("file:").unwrap_or(entry);
            assert!(error.contains(entry), "{error}");
        }
    }
}

//! The headers a message was published with.

use std::fmt;

/// Header names and values in order, repeats included, in one allocation.
///
/// Names are lower case. A value is bytes, not text: HTTP allows more than UTF-8 in it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Headers(Vec<u8>);

impl Headers {
    /// Adds one header behind the others.
    ///
    /// # Panics
    ///
    /// If the name is longer than 64 KiB or the value than 4 GiB; a parsed HTTP head is smaller.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        let name_len = u16::try_from(name.len()).expect("a header name is at most 64 KiB");
        let value_len = u32::try_from(value.len()).expect("a header value is at most 4 GiB");
        self.0.reserve(6 + name.len() + value.len());
        self.0.extend_from_slice(&name_len.to_le_bytes());
        self.0.extend_from_slice(&value_len.to_le_bytes());
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(value);
    }

    /// All headers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.bytes()
            .map(|(name, value)| (str::from_utf8(name).unwrap_or_default(), value))
    }

    fn bytes(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (name_len, tail) = rest.split_first_chunk::<2>()?;
            let (value_len, tail) = tail.split_first_chunk::<4>()?;
            let (name, tail) = tail.split_at(u16::from_le_bytes(*name_len).into());
            let (value, tail) = tail.split_at(u32::from_le_bytes(*value_len) as usize);
            rest = tail;
            Some((name, value))
        })
    }

    /// The first value of `name`, which must be in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.bytes()
            .find(|(own, _)| *own == name.as_bytes())
            .map(|(_, value)| value)
    }

    /// How much memory they take, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.len()
    }
}

impl<'a> FromIterator<(&'a str, &'a [u8])> for Headers {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a [u8])>>(headers: T) -> Self {
        let mut all = Self::default();
        for (name, value) in headers {
            all.push(name, value);
        }
        all
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secrets of the sender.
        f.debug_list()
            .entries(self.iter().map(|(name, _)| name))
            .finish()
    }
}

/// Headers that are about one connection and not about the message (RFC 9110, section 7.6.1), in
/// lower case. What `Connection` names is, too.
///
/// `Trailer` is not among them, although it is in many such lists: it says what follows the body,
/// so it has to go along where the body is passed on as it comes.
pub const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_order_repeats_and_bytes() {
        let mut headers = Headers::default();
        let all: [(&str, &[u8]); 4] = [("b", b"1"), ("a", b"\xff\0"), ("b", b""), ("c", b"3")];
        for (name, value) in all {
            headers.push(name, value);
        }
        assert!(headers.iter().eq(all));
        assert_eq!(headers.get("b"), Some(&b"1"[..]));
        assert_eq!(headers.get("d"), None);
        assert_eq!(all.into_iter().collect::<Headers>(), headers);
    }
}

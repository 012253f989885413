//! What came in.

use hookbot_protocol::Headers;

use crate::refusal::Refusal;

/// A request as it was received. Signatures are of raw bytes, so nothing here is parsed yet.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method, in upper case.
    pub method: &'a str,
    /// The whole URL as the provider knows it, with scheme, host and query. Behind a proxy that
    /// is the public one.
    pub url: &'a str,
    /// The headers.
    pub headers: &'a Headers,
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// The one value of a header, which is text.
    ///
    /// Of two values it is anybody's guess which one the reader behind us takes.
    pub(crate) fn header(&self, name: &str) -> Result<&'a str, Refusal> {
        let mut values = self.headers.iter().filter(|(own, _)| *own == name);
        match (values.next(), values.next()) {
            (None, _) => Err(Refusal::Missing(name.to_owned())),
            (Some(_), Some(_)) => Err(Refusal::Repeated(name.to_owned())),
            (Some((_, value)), None) => {
                str::from_utf8(value).map_err(|_| Refusal::Malformed(name.to_owned()))
            }
        }
    }

    pub(crate) fn query(&self) -> &'a str {
        let url = self.url.split('#').next().unwrap_or_default();
        url.split_once('?').map_or("", |(_, query)| query)
    }
}

//! The JSON that carries a GitHub delivery's headers beside its body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::headers::Headers;

/// What subscribers see of a message published with `?extra-metadata=github`: the headers that
/// a plain frame has no room for, and the body in base64.
///
/// A header that was absent is the empty string. Fields are written in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Envelope {
    /// `X-GitHub-Delivery`.
    #[serde(default)]
    pub delivery: String,
    /// `X-GitHub-Event`.
    pub event: String,
    /// The body as it was posted.
    #[serde(with = "base64_text")]
    pub payload: Bytes,
    /// `X-Hub-Signature`, HMAC-SHA1.
    #[serde(default)]
    pub signature: String,
    /// `X-Hub-Signature-256`; senders of the Go program's envelopes leave it out.
    #[serde(default)]
    pub signature256: String,
}

impl Envelope {
    /// Collects what GitHub sent.
    #[must_use]
    pub fn new(headers: &Headers, body: Bytes) -> Self {
        let header = |name| {
            headers
                .get(name)
                .map(String::from_utf8_lossy)
                .unwrap_or_default()
                .into_owned()
        };
        Self {
            delivery: header("x-github-delivery"),
            event: header("x-github-event"),
            payload: body,
            signature: header("x-hub-signature"),
            signature256: header("x-hub-signature-256"),
        }
    }

    /// Reads an envelope, of ours or of the Go program's.
    ///
    /// # Errors
    ///
    /// When it is not JSON, has no event, or its payload is not base64.
    pub fn from_json(json: &[u8]) -> Result<Self, EnvelopeError> {
        Ok(serde_json::from_slice(json)?)
    }

    /// Writes it as subscribers see it.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        let json = serde_json::to_vec(self).expect("strings always serialise");
        json.into()
    }
}

/// Why a body is not an envelope.
#[derive(Debug, thiserror::Error)]
#[error("not a GitHub envelope")]
pub struct EnvelopeError(#[from] serde_json::Error);

mod base64_text {
    use super::{Bytes, Engine, STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        let bytes = STANDARD.decode(text.as_bytes()).map_err(D::Error::custom)?;
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_all_keys_in_order_and_reads_back() {
        let mut headers = Headers::default();
        headers.push("x-github-event", b"push");
        headers.push("x-hub-signature", b"sha1=00");
        let envelope = Envelope::new(&headers, Bytes::from_static(b"{\"a\":1}\xff"));
        let json = envelope.to_json();
        assert_eq!(
            json,
            r#"{"Delivery":"","Event":"push","Payload":"eyJhIjoxff8=","Signature":"sha1=00","Signature256":""}"#
        );
        assert_eq!(Envelope::from_json(&json).unwrap(), envelope);
    }

    #[test]
    fn the_go_programs_envelope_reads_too() {
        let json = br#"{"Event":"push","Payload":"e30=","Signature":"sha1=00"}"#;
        let envelope = Envelope::from_json(json).unwrap();
        assert_eq!(
            (&*envelope.payload, &*envelope.signature256),
            (&b"{}"[..], "")
        );
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"Event":"push","Payload":"?"}"#,
            &"[".repeat(100_000),
        ] {
            assert!(Envelope::from_json(bad.as_bytes()).is_err());
        }
    }
}

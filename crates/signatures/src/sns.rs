//! Amazon SNS: messages that carry an RSA signature of some of their fields.
//!
//! The certificate is named in the message, and fetching it is the caller's: [`certificate_url`]
//! gives its address only where Amazon is the one who answers there. SNS signs for everybody who
//! has an account, so what is signed may still be a stranger's: see [`crate::Scheme::with_topics`].

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use serde::Deserialize;

use crate::public_key::{self, RSA};
use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::signature::Signed;

/// Where the certificate is that the message in this body is signed with, if it is Amazon's.
#[must_use]
pub fn certificate_url(body: &[u8]) -> Option<String> {
    let message = Message::parse(body).ok()?;
    let url = message.signing_cert_url.filter(|url| is_amazons(url))?;
    url.ends_with(".pem").then(|| url.into_owned())
}

/// Whether a URL is HTTPS to SNS itself, in whatever region.
fn is_amazons(url: &str) -> bool {
    let host = || {
        let rest = url.strip_prefix("https://sns.")?;
        let (host, _) = rest.split_once('/')?;
        let host = host.strip_suffix(".cn").unwrap_or(host);
        host.strip_suffix(".amazonaws.com")
    };
    let is_region = |region: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        region.len() >= 3 && region.bytes().all(is_plain)
    };
    host().is_some_and(is_region) && url.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The RSA key in a certificate, or that is given alone.
pub(crate) fn rsa_key(certificate: &Secret) -> Option<Vec<u8>> {
    let spki = public_key::spki(certificate.expose())?;
    public_key::bits(&spki, RSA).map(<[u8]>::to_vec)
}

/// A message, as far as it is signed or says how it is. A field that comes twice is refused.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Message<'a> {
    #[serde(borrow, rename = "Type")]
    pub(crate) kind: Cow<'a, str>,
    message: Cow<'a, str>,
    message_id: Cow<'a, str>,
    subject: Option<Cow<'a, str>>,
    timestamp: Cow<'a, str>,
    topic_arn: Cow<'a, str>,
    token: Option<Cow<'a, str>>,
    #[serde(rename = "SubscribeURL")]
    subscribe_url: Option<Cow<'a, str>>,
    signature: Cow<'a, str>,
    signature_version: Cow<'a, str>,
    #[serde(rename = "SigningCertURL")]
    signing_cert_url: Option<Cow<'a, str>>,
}

impl<'a> Message<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Refusal> {
        serde_json::from_slice(body).map_err(|_| Refusal::MalformedBody)
    }

    /// Whose of these certificates the signature is. Whether it is too old is not looked at.
    pub(crate) fn verify(
        &self,
        certificates: &[Secret],
        topics: &[String],
    ) -> Result<Signed, Refusal> {
        let signature = STANDARD
            .decode(&*self.signature)
            .map_err(|_| Refusal::MalformedBody)?;
        let algorithm = match &*self.signature_version {
            "1" => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            "2" => &RSA_PKCS1_2048_8192_SHA256,
            _ => return Err(Refusal::MalformedBody),
        };
        let text = self.signed()?;
        let signs = |certificate: &Secret| {
            rsa_key(certificate).is_some_and(|key| {
                let key = UnparsedPublicKey::new(algorithm, key);
                key.verify(text.as_bytes(), &signature).is_ok()
            })
        };
        let secret = certificates
            .iter()
            .position(signs)
            .ok_or(Refusal::NoMatch)?;
        if !topics.is_empty() && !topics.iter().any(|own| *own == self.topic_arn) {
            return Err(Refusal::Stranger);
        }
        let time: Option<jiff::Timestamp> = self.timestamp.parse().ok();
        let at = time.and_then(|time| u64::try_from(time.as_second()).ok());
        Ok(Signed { secret, at })
    }

    /// What confirms the subscription when it is fetched, if it is Amazon's.
    pub(crate) fn confirmation(&self) -> Option<String> {
        let url = self
            .subscribe_url
            .as_deref()
            .filter(|url| is_amazons(url))?;
        Some(url.to_owned())
    }

    /// Names and values, a line each, sorted by name.
    fn signed(&self) -> Result<String, Refusal> {
        let (url, token) = (self.subscribe_url.as_deref(), self.token.as_deref());
        let (subject, url, token) = match &*self.kind {
            "Notification" => (self.subject.as_deref(), None, None),
            "SubscriptionConfirmation" | "UnsubscribeConfirmation" => {
                let url = url.ok_or(Refusal::MalformedBody)?;
                (None, Some(url), Some(token.ok_or(Refusal::MalformedBody)?))
            }
            _ => return Err(Refusal::MalformedBody),
        };
        let lines = [
            ("Message", Some(&*self.message)),
            ("MessageId", Some(&*self.message_id)),
            ("Subject", subject),
            ("SubscribeURL", url),
            ("Timestamp", Some(&*self.timestamp)),
            ("Token", token),
            ("TopicArn", Some(&*self.topic_arn)),
            ("Type", Some(&*self.kind)),
        ];
        let lines = lines
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        Ok(lines
            .map(|(name, value)| format!("{name}\n{value}\n"))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_amazon_is_asked_for_a_certificate() {
        for url in [
            "https://sns.us-east-1.amazonaws.com/x.pem",
            "https://sns.cn-north-1.amazonaws.com.cn/x.pem",
        ] {
            assert!(is_amazons(url), "{url}");
        }
        for url in [
            "http://sns.us-east-1.amazonaws.com/x.pem",
            "https://sns.us-east-1.amazonaws.com",
            "https://sns.us-east-1.amazonaws.com:444/x.pem",
            "https://sns.us-east-1.amazonaws.com.evil.example/x.pem",
            "https://sns.us-east-1.amazonaws.com@evil.example/x.pem",
            "https://evil.example/sns.us-east-1.amazonaws.com/x.pem",
            "https://evil.example\\.sns.us-east-1.amazonaws.com/x.pem",
            "https://sns.evil.example?.amazonaws.com/x.pem",
            "https://sns.evil.s3.amazonaws.com/x.pem",
            "https://evilsns.us-east-1.amazonaws.com/x.pem",
            "https://sns..amazonaws.com/x.pem",
            "https://sns.us-east-1.amazonaws.com/x.pem\n",
        ] {
            assert!(!is_amazons(url), "{url}");
        }
    }
}

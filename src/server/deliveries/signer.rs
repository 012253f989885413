//! Deliveries that say who they are from.
//!
//! A signature is made for each attempt, because it has the time in it; the id that is signed with
//! it is the message's, so that a service knows a message that it has had.

use hookbot_forward::Message;
use hookbot_protocol::Headers;
use hookbot_protocol::event::HeaderText;
use hookbot_signatures::{CannotSign, Provider, Request, Scheme, Secret};

/// How deliveries are signed, and with what.
#[derive(Debug, Clone)]
pub struct Signer {
    scheme: Scheme,
    secrets: Vec<Secret>,
}

impl Signer {
    /// Signs as this provider does, with each of these secrets.
    ///
    /// # Errors
    ///
    /// When nobody but the provider can, when a secret is none to sign with, or when there are
    /// several where a request has room for one signature.
    pub fn new(provider: Provider, secrets: Vec<Secret>) -> Result<Self, SignerError> {
        let has_room = matches!(provider, Provider::StandardWebhooks | Provider::Svix);
        if secrets.len() > 1 && !has_room {
            return Err(SignerError::OneSecret(provider));
        }
        let scheme = Scheme::from(provider);
        let signer = Self { scheme, secrets };
        // Now rather than with the first message.
        let mut headers = Headers::default();
        signer.name(&mut headers, "id");
        signer.headers(
            &Request {
                method: "POST",
                url: "",
                headers: &headers,
                body: b"{}",
            },
            0,
        )?;
        Ok(signer)
    }

    /// The message with its signatures, in the place of any that it came with. `url` is where it
    /// goes, `now` in seconds since 1970.
    pub(super) fn sign(
        &self,
        message: &Message,
        url: &str,
        now: u64,
    ) -> Result<Message, CannotSign> {
        let mut signed = message.clone();
        let own: Vec<_> = self.scheme.headers().collect();
        let headers = &mut signed.event.headers;
        headers.retain(|(name, _)| own.iter().all(|own| !name.eq_ignore_ascii_case(own)));
        let mut known = Headers::default();
        for (name, value) in &*headers {
            if let Some(value) = value.bytes() {
                known.push(name, &value);
            }
        }
        // A full stop separates what is signed.
        let id = format!("msg_{}", message.event.cursor.replace('.', "_"));
        self.name(&mut known, &id);
        let request = Request {
            method: message.method(),
            url,
            headers: &known,
            body: &message.payload,
        };
        let added = self.headers(&request, now)?.into_iter();
        headers.extend(added.map(|(name, value)| (name, HeaderText::Text(value))));
        Ok(signed)
    }

    /// Gives a request its id, where one is signed.
    fn name(&self, headers: &mut Headers, id: &str) {
        for name in self.scheme.headers().filter(|name| name.ends_with("-id")) {
            // A provider with two kinds of signatures has one id for both.
            if headers.get(name).is_none() {
                headers.push(name, id.as_bytes());
            }
        }
    }

    /// The headers that sign a request, with every secret.
    fn headers(&self, request: &Request, now: u64) -> Result<Vec<(String, String)>, CannotSign> {
        let mut all: Vec<(String, String)> = Vec::new();
        for secret in &self.secrets {
            for (name, value) in self.scheme.sign(secret, request, now)? {
                match all.iter_mut().find(|(own, _)| *own == name) {
                    None => all.push((name, value)),
                    // The id and the time are the same for each.
                    Some((_, own)) if *own == value => {}
                    Some((_, own)) => {
                        own.push(' ');
                        own.push_str(&value);
                    }
                }
            }
        }
        Ok(all)
    }
}

/// Why deliveries can't be signed like that. Names no secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// There are several secrets.
    #[error("what {0} signs has room for one signature: give one secret")]
    OneSecret(Provider),
    /// A secret is none to sign with, or nobody can sign.
    #[error(transparent)]
    CannotSign(#[from] CannotSign),
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookbot_protocol::event::Event;

    const SECRETS: [&str; 2] = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2Vjb25k"];

    fn secret(text: &str) -> Secret {
        Secret::new(text).unwrap()
    }

    fn message(headers: &[(&str, &str)]) -> Message {
        Message {
            event: Event {
                cursor: "abc.7".to_owned(),
                topic: "a".to_owned(),
                time: String::new(),
                method: "POST".to_owned(),
                query: String::new(),
                address: String::new(),
                headers: headers
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), value.as_bytes().into()))
                    .collect(),
                attributes: Default::default(),
            },
            payload: "body".into(),
        }
    }

    fn verify(provider: Provider, message: &Message, with: &str, now: u64) -> bool {
        let mut headers = Headers::default();
        for (name, value) in &message.event.headers {
            headers.push(name, &value.bytes().unwrap());
        }
        let request = Request {
            method: "POST",
            url: "http://h/",
            headers: &headers,
            body: &message.payload,
        };
        let scheme = Scheme::from(provider);
        scheme.verify(&[secret(with)], &request, now).is_ok()
    }

    #[test]
    fn every_secret_signs_and_what_was_signed_before_goes() {
        let signer = Signer::new(Provider::StandardWebhooks, SECRETS.map(secret).to_vec()).unwrap();
        let came = message(&[
            ("webhook-id", "theirs"),
            ("webhook-signature", "v1,x"),
            ("x", "y"),
        ]);
        let signed = signer.sign(&came, "http://h/", 1_000).unwrap();
        for with in SECRETS {
            assert!(verify(Provider::StandardWebhooks, &signed, with, 1_100));
            assert!(!verify(Provider::StandardWebhooks, &signed, with, 9_000));
        }
        assert_eq!(signed.header("webhook-id").unwrap(), "msg_abc_7");
        let again = signer.sign(&came, "http://h/", 2_000).unwrap();
        assert_eq!(again.header("webhook-id"), signed.header("webhook-id"));
        assert_eq!(again.header("webhook-timestamp").unwrap(), "2000");
        assert_eq!(again.header("x").unwrap(), "y");
        assert_eq!(again.event.headers.len(), 4);
    }

    #[test]
    fn other_providers_ways_verify_by_their_own_rules() {
        for provider in [
            Provider::Github,
            Provider::Gitlab,
            Provider::Stripe,
            Provider::Slack,
            Provider::Shopify,
            Provider::Twilio,
            Provider::Svix,
        ] {
            let text = match provider {
                Provider::Svix | Provider::Gitlab => SECRETS[0],
                _ => "hush",
            };
            let signer = Signer::new(provider, vec![secret(text)]).unwrap();
            let signed = signer.sign(&message(&[]), "http://h/", 1_000).unwrap();
            assert!(verify(provider, &signed, text, 1_000), "{provider}");
            assert!(!verify(provider, &signed, "other", 1_000), "{provider}");
        }
    }

    #[test]
    fn a_secret_that_signs_nothing_is_found_at_once() {
        let refused = |provider, secrets: &[&str]| {
            let secrets = secrets.iter().map(|text| secret(text)).collect();
            Signer::new(provider, secrets).unwrap_err().to_string()
        };
        for (provider, secrets, expected) in [
            (
                Provider::StandardWebhooks,
                &["no base64!"][..],
                "not one to sign",
            ),
            (Provider::AwsSns, &["x"], "only aws-sns itself"),
            (Provider::Github, &["a", "b"], "room for one signature"),
        ] {
            let error = refused(provider, secrets);
            assert!(error.contains(expected), "{error}");
        }
    }
}

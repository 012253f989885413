//! Old messages, signed anew: providers sign with a time, and receivers refuse what is old.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use hookbot_protocol::Headers;
use hookbot_protocol::event::HeaderText;
use hookbot_signatures::{CannotSign, Provider, Refusal, Request, Scheme, Secret};
use tracing::warn;

use crate::message::Message;
use crate::taker::{Answer, Taker, Verdict};

/// Offers messages to a taker that are signed at that moment, each attempt anew.
pub struct Signed {
    taker: Arc<dyn Taker>,
    resigner: Resigner,
    /// Whether it was said that new signatures are of an old time.
    has_warned: AtomicBool,
}

impl Signed {
    /// Signs what the taker is offered.
    #[must_use]
    pub fn new(taker: Arc<dyn Taker>, resigner: Resigner) -> Self {
        Self {
            taker,
            resigner,
            has_warned: AtomicBool::new(false),
        }
    }

    fn sign(&self, message: &Message) -> Result<Message, CannotSign> {
        let mut message = message.clone();
        let freshness = self.resigner.sign(&mut message, SystemTime::now())?;
        if freshness == Freshness::Stale && !self.has_warned.swap(true, Ordering::Relaxed) {
            warn!(
                "the time that is signed is in the body, which stays as it was: a receiver may find it too old"
            );
        }
        Ok(message)
    }
}

impl Taker for Signed {
    fn name(&self) -> &str {
        self.taker.name()
    }

    fn offer<'a>(&'a self, message: &'a Message, attempt: u32) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            match self.sign(message) {
                Ok(message) => self.taker.offer(&message, attempt).await,
                Err(error) => Answer {
                    verdict: Verdict::Never,
                    code: None,
                    text: error.to_string(),
                    retry_after: None,
                    duration: Duration::ZERO,
                },
            }
        })
    }
}

/// Signs messages as their provider would do it now.
#[derive(Debug, Clone)]
pub struct Resigner {
    scheme: Scheme,
    secret: Secret,
    /// Where messages are sent, which some providers sign, too.
    url: String,
}

/// What a message is signed with, besides its new signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Freshness {
    /// A time of now, or none at all.
    Fresh,
    /// A time in the body, which stays as it was: receivers that look at it will refuse it.
    Stale,
}

impl Resigner {
    /// Signs by a provider's rules, with a secret that the receiver at `url` knows.
    ///
    /// # Errors
    ///
    /// When the secret is none to sign with, or only the provider can sign.
    pub fn new(provider: Provider, secret: Secret, url: &str) -> Result<Self, CannotSign> {
        let resigner = Self {
            scheme: provider.into(),
            secret,
            url: url.to_owned(),
        };
        let nothing = Request {
            method: "POST",
            url,
            headers: &Headers::default(),
            body: b"",
        };
        match resigner.scheme.sign(&resigner.secret, &nothing, 0) {
            // A message may have what this lacks.
            Ok(_) | Err(CannotSign::Request(_)) => Ok(resigner),
            Err(error) => Err(error),
        }
    }

    /// Replaces what signatures a message has.
    ///
    /// # Errors
    ///
    /// When the message lacks something that is signed.
    fn sign(&self, message: &mut Message, now: SystemTime) -> Result<Freshness, CannotSign> {
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let now = since.unwrap_or_default().as_secs();
        let url = match (&*message.event.query, self.url.contains('?')) {
            ("", _) => self.url.clone(),
            (query, false) => format!("{}?{query}", self.url),
            (query, true) => format!("{}&{query}", self.url),
        };
        let headers = message.headers();
        let signed = self
            .scheme
            .sign(&self.secret, &request(message, &url, &headers), now)?;
        let own = &mut message.event.headers;
        own.retain(|(name, _)| self.scheme.headers().all(|signs| signs != name));
        let signed = signed.into_iter();
        own.extend(signed.map(|(name, value)| (name, HeaderText::Text(value))));

        let headers = message.headers();
        let secrets = std::slice::from_ref(&self.secret);
        let verified = self
            .scheme
            .verify(secrets, &request(message, &url, &headers), now);
        Ok(match verified {
            Err(Refusal::TooOld { .. } | Refusal::TooNew { .. }) => Freshness::Stale,
            // Where there is a key pair, this is not the key that verifies.
            _ => Freshness::Fresh,
        })
    }
}

fn request<'a>(message: &'a Message, url: &'a str, headers: &'a Headers) -> Request<'a> {
    Request {
        method: message.method(),
        url,
        headers,
        body: &message.payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::test_message;
    use std::time::Duration;

    const URL: &str = "https://example.com/hook?a=1";

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn sign(provider: Provider, secret: &str, message: &mut Message) -> Freshness {
        let resigner = Resigner::new(provider, Secret::new(secret).unwrap(), URL).unwrap();
        resigner.sign(message, now()).unwrap()
    }

    fn verify(provider: Provider, secret: &str, message: &Message) -> Result<(), Refusal> {
        let headers = message.headers();
        let url = format!("{URL}&{}", message.event.query);
        let request = request(message, url.trim_end_matches('&'), &headers);
        let secret = [Secret::new(secret).unwrap()];
        let verified = Scheme::from(provider).verify(&secret, &request, 1_800_000_000);
        verified.map(drop)
    }

    #[test]
    fn what_was_signed_long_ago_verifies_again() {
        let standard = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        for (provider, secret, headers) in [
            (
                Provider::Stripe,
                "whsec_x",
                &[("stripe-signature", "t=1,v1=00")][..],
            ),
            (
                Provider::Slack,
                "s",
                &[
                    ("x-slack-signature", "v0=00"),
                    ("x-slack-request-timestamp", "1"),
                ],
            ),
            (
                Provider::StandardWebhooks,
                standard,
                &[
                    ("webhook-id", "msg_1"),
                    ("webhook-timestamp", "1"),
                    ("webhook-signature", "v1,AA=="),
                ],
            ),
            (
                Provider::Github,
                "s",
                &[("x-hub-signature-256", "sha256=00")],
            ),
            // A signature of one kind is enough, and the other would be wrong.
            (
                Provider::Gitlab,
                standard,
                &[("x-gitlab-token", "old"), ("webhook-id", "msg_1")],
            ),
            (Provider::Twilio, "s", &[("x-twilio-signature", "AA==")]),
        ] {
            let headers = [&[("x-a", "1"), ("content-type", "text/plain")], headers].concat();
            let mut message = test_message(&headers, b"{}");
            if provider == Provider::Twilio {
                message.payload = "a=1".into();
                message.event.query = "b=2".to_owned();
            }
            assert!(verify(provider, secret, &message).is_err(), "{provider}");
            assert_eq!(sign(provider, secret, &mut message), Freshness::Fresh);
            verify(provider, secret, &message).unwrap();
            assert_eq!(message.event.headers[0].0, "x-a", "the others stay");
            // Twice is as good as once.
            let once = message.clone();
            sign(provider, secret, &mut message);
            assert_eq!(message, once, "{provider}");
        }
    }

    #[test]
    fn a_time_in_the_body_stays_old_and_what_can_not_be_signed_is_said() {
        let mut message = test_message(&[], br#"{"webhookTimestamp":1700000000000}"#);
        assert_eq!(sign(Provider::Linear, "s", &mut message), Freshness::Stale);

        let new =
            |provider, secret: &str| Resigner::new(provider, Secret::new(secret).unwrap(), URL);
        let resigner = new(Provider::StandardWebhooks, "whsec_AAAA").unwrap();
        let error = resigner.sign(&mut test_message(&[], b"{}"), now());
        assert!(error.unwrap_err().to_string().contains("webhook-id"));
        for (provider, error) in [
            (Provider::StandardWebhooks, CannotSign::Secret),
            (Provider::AwsSns, CannotSign::Provider(Provider::AwsSns)),
        ] {
            assert_eq!(new(provider, "s").unwrap_err(), error);
        }
    }
}

//! Requests by which a provider asks whether anybody is there: the broker answers them itself, and
//! publishes nothing.
//!
//! Whatever the provider signs is answered only once it verifies. Where an answer is itself made
//! with the secret, what is asked for has to look like nothing that is ever signed otherwise:
//! else anybody could have a message of theirs signed.

use serde_json::json;

use crate::algorithm::{Algorithm, Encoding, hmac_sha256};
use crate::form;
use crate::json;
use crate::provider::Provider;
use crate::request::Request;
use crate::scheme::Scheme;
use crate::secret::Secret;
use crate::sns;

/// What to say to a provider that asks whether anybody is there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The content type. What strangers asked for is never one that a browser runs.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
    /// What has to be fetched, besides, to say yes: only Amazon SNS asks for that, and the URL is
    /// its own.
    pub confirm: Option<String>,
}

impl Answer {
    fn text(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
            confirm: None,
        }
    }

    fn json(body: &serde_json::Value) -> Self {
        Self {
            content_type: "application/json",
            ..Self::text(body.to_string())
        }
    }
}

impl Scheme {
    /// The answer to a handshake; `None` when the request is none, or one that is to be refused
    /// as [`Self::verify`] says. `now` is in seconds since 1970.
    #[must_use]
    pub fn handshake(&self, secrets: &[Secret], request: &Request, now: u64) -> Option<Answer> {
        let is = |method| request.method == method;
        let asked = |name| form::value(request.query().as_bytes(), name);
        let field = |path| json::find(request.body, path);
        let is_field = |path, value| field(path).is_some_and(|own| own == value);
        let verify = || self.verify(secrets, request, now).ok();
        match self.provider? {
            Provider::Github => {
                let is_ping = request.header("x-github-event") == Ok("ping");
                (is_ping && verify().is_some()).then(|| Answer::text("pong\n"))
            }
            Provider::Slack => {
                verify().filter(|_| is_field("type", "url_verification"))?;
                field("challenge").map(Answer::text)
            }
            Provider::Zoom => {
                let matched = verify().filter(|_| is_field("event", "endpoint.url_validation"))?;
                let token =
                    field("payload.plainToken").filter(|token| is_token(token.as_bytes()))?;
                let mac = hmac_sha256(secrets[matched.secret].expose(), token.as_bytes());
                Some(Answer::json(&json!({
                    "plainToken": token,
                    "encryptedToken": hex::encode(mac),
                })))
            }
            Provider::X if is("GET") => {
                let token = asked("crc_token").filter(|token| is_token(token.as_bytes()))?;
                let mac = hmac_sha256(secrets.first()?.expose(), token.as_bytes());
                let mac = Encoding::Base64.encode(mac)?;
                Some(Answer::json(
                    &json!({ "response_token": format!("sha256={mac}") }),
                ))
            }
            Provider::Dropbox if is("GET") => asked("challenge").map(Answer::text),
            Provider::Meta if is("GET") => {
                let token = asked("hub.verify_token")?.into_bytes();
                let own = self.verify_token.as_ref()?.expose();
                let is_own = Algorithm::Token.verifies(own, &[], &[token]);
                asked("hub.mode").filter(|mode| is_own && mode == "subscribe")?;
                asked("hub.challenge").map(Answer::text)
            }
            Provider::MicrosoftGraph if is("POST") => asked("validationToken").map(Answer::text),
            Provider::Trello | Provider::Mandrill if is("HEAD") => Some(Answer::text("")),
            Provider::Mandrill => {
                // It is signed with a word that everybody knows, and holds no event.
                let events = form::value(request.body, "mandrill_events")?;
                let everybody = Secret::new("test-webhook").ok()?;
                let is_test = self.verify(&[everybody], request, now).is_ok();
                (events == "[]" && (is_test || verify().is_some())).then(|| Answer::text(""))
            }
            Provider::Discord => {
                verify()?;
                match &*field("type")? {
                    // A ping among its webhook events, where 1 is an event and not a ping.
                    "0" => Some(Answer {
                        status: 204,
                        ..Answer::text("")
                    }),
                    "1" if field("event.type").is_none() => {
                        Some(Answer::json(&json!({ "type": 1 })))
                    }
                    _ => None,
                }
            }
            Provider::AwsSns => {
                let message = sns::Message::parse(request.body).ok()?;
                let is_asking = message.kind == "SubscriptionConfirmation";
                verify().filter(|_| is_asking)?;
                Some(Answer {
                    confirm: message.confirmation(),
                    ..Answer::text("")
                })
            }
            _ => None,
        }
    }
}

/// Whether a text that is to be signed is a mere token: no signed string is one, and no body that
/// is taken.
pub(crate) fn is_token(text: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_=+/".contains(byte);
    (1..=256).contains(&text.len()) && text.iter().all(is_plain)
}

//! A delivery as it is sent once more, and what became of its signature.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use hookbot_forward::Message;
use hookbot_protocol::Headers;
use hookbot_protocol::event::Event;
use hookbot_signatures::{CannotSign, Provider as Signer, Request, Scheme, Secret};

use crate::account::Provider;
use crate::delivery::{Content, Delivery};
use crate::gitlab::REDACTED;

/// With which secrets signatures are checked and made.
#[derive(Debug, Clone, Default)]
pub struct Signing {
    /// The webhook's secrets, any of which is good. Nothing is checked without one.
    pub secrets: Vec<Secret>,
    /// Sign what is sent anew, with the first of them.
    pub resign: bool,
}

/// What is known of a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: there is no secret to check it with.
    Unchecked,
    /// It is of the very bytes that are sent.
    Verified,
    /// It is not of these bytes, or there is none; and why.
    Unverified(String),
    /// It was made here.
    Resigned,
}

impl Proof {
    /// One word for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Verified => "verified",
            Self::Unverified(_) => "unverified",
            Self::Resigned => "resigned",
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unchecked => "signature not checked",
            Self::Verified => "signature verified",
            Self::Unverified(_) => "signature does not verify",
            Self::Resigned => "signed again",
        })
    }
}

/// A delivery, ready to be sent once more.
#[derive(Debug, Clone)]
pub struct Resent {
    /// What is sent.
    pub message: Message,
    /// What is known of its signature.
    pub proof: Proof,
    /// Headers that were sent, but that the provider does not show: secrets, for the most part.
    pub withheld: Vec<String>,
}

impl Content {
    /// Makes of it what is sent once more: its headers as they were, and its payload in that form
    /// of which the signature is, as far as one is found. `now` is in seconds since 1970.
    ///
    /// # Errors
    ///
    /// When it is to be signed anew and can't be.
    pub fn resent(
        &self,
        provider: Provider,
        delivery: &Delivery,
        signing: &Signing,
        now: u64,
    ) -> Result<Resent, CannotSign> {
        let mut withheld = Vec::new();
        let mut headers = Headers::default();
        for (name, value) in &self.headers {
            let name = name.to_ascii_lowercase();
            match &**value {
                REDACTED => withheld.push(name),
                value => headers.push(&name, value.as_bytes()),
            }
        }
        let scheme = scheme(provider);
        let forms = self.forms(&headers);
        let (mut payload, mut proof) = (forms[0].clone(), Proof::Unchecked);
        if !signing.secrets.is_empty() {
            let check =
                |body: &Bytes| scheme.verify(&signing.secrets, &request(&headers, body), now);
            match forms.iter().find(|form| check(form).is_ok()) {
                Some(form) => (payload, proof) = (form.clone(), Proof::Verified),
                None => {
                    let reason = check(&payload)
                        .map_or_else(|refusal| refusal.to_string(), |_| String::new());
                    proof = Proof::Unverified(reason);
                }
            }
        }
        if let (true, Some(secret)) = (signing.resign, signing.secrets.first()) {
            let signed = scheme.sign(secret, &request(&headers, &payload), now)?;
            let old: Vec<_> = scheme.headers().collect();
            let kept = headers.iter().filter(|(name, _)| !old.contains(name));
            let mut renewed: Headers = kept.collect();
            for (name, value) in &signed {
                renewed.push(&name.to_ascii_lowercase(), value.as_bytes());
            }
            withheld.retain(|name| renewed.get(name).is_none());
            (headers, proof) = (renewed, Proof::Resigned);
        }
        let time = delivery.at().map(|at| format!("{at:.3}"));
        let event = Event {
            cursor: String::new(),
            topic: String::new(),
            time: time.unwrap_or_default(),
            method: "POST".to_owned(),
            query: String::new(),
            address: String::new(),
            headers: headers
                .iter()
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect(),
            attributes: BTreeMap::new(),
        };
        Ok(Resent {
            message: Message { event, payload },
            proof,
            withheld,
        })
    }

    /// The bytes that may have been sent, the likeliest first.
    fn forms(&self, headers: &Headers) -> Vec<Bytes> {
        let text = String::from_utf8_lossy(&self.payload);
        let compact = compact(&text);
        let kind = headers.get("content-type").unwrap_or_default();
        if kind.starts_with(b"application/x-www-form-urlencoded") {
            let encoded = form_urlencoded::byte_serialize(compact.as_bytes());
            let form: String = std::iter::once("payload=").chain(encoded).collect();
            return vec![form.into()];
        }
        let mut forms = vec![Bytes::from(compact)];
        if forms[0] != self.payload {
            forms.push(self.payload.clone());
        }
        forms
    }
}

fn scheme(provider: Provider) -> Scheme {
    let scheme = Scheme::from(match provider {
        Provider::Github => Signer::Github,
        Provider::Gitlab => Signer::Gitlab,
    });
    // What was sent days ago was signed days ago.
    scheme.clone().with_tolerance(None).unwrap_or(scheme)
}

fn request<'a>(headers: &'a Headers, body: &'a [u8]) -> Request<'a> {
    Request {
        method: "POST",
        url: "",
        headers,
        body,
    }
}

/// JSON without white space between its tokens, which is how GitHub sends it. Order, numbers and
/// escapes stay as they are.
fn compact(json: &str) -> String {
    let mut compact = String::with_capacity(json.len());
    let (mut in_text, mut escaped) = (false, false);
    for char in json.chars() {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = in_text,
            '"' => in_text = !in_text,
            ' ' | '\n' | '\r' | '\t' if !in_text => continue,
            _ => {}
        }
        compact.push(char);
    }
    compact
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Attempt;

    const SECRET: &str = "It's a Secret to Everybody";

    fn delivery() -> Delivery {
        let attempt = Attempt {
            id: 1,
            delivery: "d".to_owned(),
            at: "2026-11-26T10:00:00Z".parse().ok(),
            event: "push".to_owned(),
            status: String::new(),
            succeeded: false,
            is_repeated: false,
            content: None,
        };
        Delivery::group(vec![attempt]).remove(0)
    }

    fn signing(resign: bool) -> Signing {
        let secrets = vec![
            Secret::new("an older one").unwrap(),
            Secret::new(SECRET).unwrap(),
        ];
        Signing { secrets, resign }
    }

    /// A content whose signature is of `signed`.
    fn content(headers: &[(&str, &str)], payload: &'static str, signed: &str) -> Content {
        let secret = Secret::new(SECRET).unwrap();
        let none = Headers::default();
        let signature =
            Scheme::from(Signer::Github).sign(&secret, &request(&none, signed.as_bytes()), 0);
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Content {
            headers: headers.chain(signature.unwrap()).collect(),
            payload: Bytes::from_static(payload.as_bytes()),
        }
    }

    fn value(resent: &Resent, name: &str) -> Option<String> {
        resent.message.header(name)
    }

    const PRETTY: &str = "{\n  \"b\": \"a \\\" b\",\n  \"a\": [1.0, \"\\u003c\"]\n}";
    const COMPACT: &str = r#"{"b":"a \" b","a":[1.0,"\u003c"]}"#;

    #[test]
    fn the_form_that_was_signed_is_found() {
        let form = format!(
            "payload={}",
            form_urlencoded::byte_serialize(COMPACT.as_bytes()).collect::<String>()
        );
        for (kind, payload, signed, sent, proof) in [
            ("application/json", PRETTY, COMPACT, COMPACT, "verified"),
            ("application/json", PRETTY, PRETTY, PRETTY, "verified"),
            ("application/json", COMPACT, COMPACT, COMPACT, "verified"),
            (
                "application/x-www-form-urlencoded",
                PRETTY,
                &*form,
                &*form,
                "verified",
            ),
            ("application/json", PRETTY, "{}", COMPACT, "unverified"),
        ] {
            let content = content(&[("content-type", kind)], payload, signed);
            let resent = content
                .resent(Provider::Github, &delivery(), &signing(false), 0)
                .unwrap();
            assert_eq!(resent.proof.name(), proof, "{payload} {signed}");
            assert_eq!(resent.message.payload, sent);
            let unchecked = content.resent(Provider::Github, &delivery(), &Signing::default(), 0);
            assert_eq!(unchecked.unwrap().proof, Proof::Unchecked);
        }
    }

    #[test]
    fn signed_again_it_verifies_with_the_first_secret_alone() {
        let content = content(
            &[("X-GitHub-Event", "push"), ("X-Hub-Signature", "sha1=00")],
            PRETTY,
            "{}",
        );
        let resent = content
            .resent(Provider::Github, &delivery(), &signing(true), 0)
            .unwrap();
        assert_eq!(
            (&resent.proof, &*resent.message.payload),
            (&Proof::Resigned, COMPACT.as_bytes())
        );
        assert_eq!(value(&resent, "x-github-event").as_deref(), Some("push"));
        assert_eq!(value(&resent, "x-hub-signature"), None);
        let again = Content {
            headers: vec![(
                "x-hub-signature-256".into(),
                value(&resent, "x-hub-signature-256").unwrap(),
            )],
            payload: resent.message.payload,
        };
        let mut first = signing(false);
        first.secrets.truncate(1);
        let checked = again
            .resent(Provider::Github, &delivery(), &first, 0)
            .unwrap();
        assert_eq!(checked.proof, Proof::Verified);
    }

    #[test]
    fn what_the_provider_withholds_is_not_sent_and_is_told() {
        let headers = [
            ("X-Gitlab-Token", REDACTED),
            ("X-Team", REDACTED),
            ("X-Gitlab-Event", "Push Hook"),
        ];
        let content = Content {
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            payload: "{}".into(),
        };
        let resent = content
            .resent(Provider::Gitlab, &delivery(), &Signing::default(), 0)
            .unwrap();
        assert_eq!(resent.withheld, ["x-gitlab-token", "x-team"]);
        assert_eq!(resent.message.event.headers.len(), 1);
        assert_eq!(resent.message.event.time, "2026-11-26T10:00:00.000Z");

        let resent = content
            .resent(Provider::Gitlab, &delivery(), &signing(true), 0)
            .unwrap();
        assert_eq!(resent.withheld, ["x-team"]);
        assert_eq!(
            value(&resent, "x-gitlab-token").as_deref(),
            Some("an older one")
        );
    }
}

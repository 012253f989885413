//! What GitHub signs a delivery with.
//!
//! A signature is of the raw body, so it is checked before anything parses that body. GitHub's
//! event type and delivery id are headers, and no part of what is signed.

use std::fmt;

use hookbot_protocol::{Envelope, Headers};
use hookbot_signatures::{EmptySecret, Provider, Refusal, Request, Scheme, Secret};

use crate::router::RouteError;

/// Checks signatures against one webhook's secret. It does not print.
pub(crate) struct Verifier {
    scheme: Scheme,
    secrets: [Secret; 1],
}

impl Verifier {
    pub(crate) fn new(secret: &[u8]) -> Result<Self, EmptySecret> {
        Ok(Self {
            scheme: Provider::Github.into(),
            secrets: [Secret::new(secret)?],
        })
    }

    /// Whether the secret's owner signed this payload, by the best signature that came with it.
    pub(crate) fn verify(&self, delivery: &Envelope) -> Result<(), RouteError> {
        let signatures = [
            ("x-hub-signature-256", &delivery.signature256),
            ("x-hub-signature", &delivery.signature),
        ];
        // An envelope has an empty text for what was not there.
        let sent = signatures.iter().filter(|(_, value)| !value.is_empty());
        let headers: Headers = sent
            .map(|(name, value)| (*name, value.as_bytes()))
            .collect();
        let request = Request {
            method: "POST",
            url: "",
            headers: &headers,
            body: &delivery.payload,
        };
        match self.scheme.verify(&self.secrets, &request, 0) {
            Ok(_) => Ok(()),
            Err(Refusal::Missing(_)) => Err(RouteError::Unsigned),
            Err(_) => Err(RouteError::BadSignature),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in GitHub's documentation.
    const SECRET: &[u8] = b"It's a Secret to Everybody";
    const BODY: &str = "Hello, World!";
    const SHA256: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    // printf 'Hello, World!' | openssl dgst -sha1 -hmac "It's a Secret to Everybody"
    const SHA1: &str = "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59";

    fn verify(
        secret: &[u8],
        body: &str,
        signature256: &str,
        signature: &str,
    ) -> Result<(), RouteError> {
        let delivery = Envelope {
            delivery: String::new(),
            event: "push".to_owned(),
            payload: body.to_owned().into(),
            signature: signature.to_owned(),
            signature256: signature256.to_owned(),
        };
        let verifier = Verifier::new(secret).expect("a secret");
        verifier.verify(&delivery)
    }

    #[test]
    fn githubs_published_signatures_verify() {
        for (secret, body, signature) in [
            (SECRET, BODY, SHA256),
            (
                b"mysecret",
                "{\n  \"foo\": \"bar\"\n}\n",
                "sha256=e3eccac34c43c7dc1cbb905488b1b81347fcc700a7b025697a9d07862256023f",
            ),
            (
                b"development",
                "{\n  \"foo\": \"\\\\u001b\"\n}\n",
                "sha256=87316067e2011fae39998b18c46a14d83b3e7c3ffdd88fb2ee5afb7d11288e60",
            ),
        ] {
            assert!(verify(secret, body, signature, "").is_ok(), "{body}");
        }
    }

    #[test]
    fn sha1_counts_only_where_it_is_all_there_is() {
        assert!(verify(SECRET, BODY, "", SHA1).is_ok());
        assert!(verify(SECRET, BODY, SHA256, "sha1=00").is_ok());

        let wrong = SHA256.replace("757", "758");
        for wrong in [&*wrong, SHA1, "sha256=", "?"] {
            let result = verify(SECRET, BODY, wrong, SHA1);
            assert!(matches!(result, Err(RouteError::BadSignature)), "{wrong}");
        }
    }

    #[test]
    fn anything_but_the_signature_of_this_body_is_refused() {
        assert!(matches!(
            verify(SECRET, BODY, "", ""),
            Err(RouteError::Unsigned)
        ));
        let bare = SHA256.trim_start_matches("sha256=");
        let cut = &SHA256[..SHA256.len() - 2];
        for (secret, body, signature256, signature) in [
            (SECRET, "Hello, World?", SHA256, ""),
            (SECRET, "Hello, World?", "", SHA1),
            (b"another", BODY, SHA256, ""),
            (SECRET, BODY, bare, ""),
            (SECRET, BODY, cut, ""),
            (SECRET, BODY, &format!("{SHA256}00"), ""),
            (SECRET, BODY, &SHA256.replace("757", "75g"), ""),
            (SECRET, BODY, &format!("sha1={bare}"), ""),
            (SECRET, BODY, "", SHA256),
            (SECRET, BODY, "", "sha1="),
        ] {
            let result = verify(secret, body, signature256, signature);
            assert!(
                matches!(result, Err(RouteError::BadSignature)),
                "{signature256} {signature}"
            );
        }
    }

    #[test]
    fn an_empty_secret_is_refused_and_a_verifier_does_not_print() {
        assert_eq!(Verifier::new(b"").unwrap_err(), EmptySecret);
        let verifier = Verifier::new(SECRET).unwrap();
        assert_eq!(format!("{verifier:?}"), "Verifier(..)");
    }
}

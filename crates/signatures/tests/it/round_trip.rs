//! What is signed here verifies here, whatever the body, and nothing close to it does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookbot_protocol::Headers;
use hookbot_signatures::{Provider, Refusal, Request, Scheme, Secret};
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

/// What one signs with, and what the other verifies with.
fn keys(provider: Provider, asymmetric: bool, seed: [u8; 32]) -> Option<(String, String)> {
    let base64 = STANDARD.encode(seed);
    let ed25519 = || Ed25519KeyPair::from_seed_unchecked(&seed).expect("any seed is a key");
    Some(match provider {
        Provider::AwsSns | Provider::MicrosoftGraph => return None,
        Provider::Discord => {
            let public = hex::encode(ed25519().public_key());
            (hex::encode(seed), public)
        }
        Provider::Sendgrid => {
            let random = SystemRandom::new();
            let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
            let private = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("randomness");
            let private = private.as_ref();
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, private, &random).expect("a key");
            let spki = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
            let mut spki = hex::decode(spki).expect("hex");
            spki.extend(pair.public_key().as_ref());
            (STANDARD.encode(private), STANDARD.encode(spki))
        }
        Provider::StandardWebhooks | Provider::Svix if asymmetric => {
            let public = STANDARD.encode(ed25519().public_key());
            (format!("whsk_{base64}"), format!("whpk_{public}"))
        }
        Provider::StandardWebhooks | Provider::Svix => {
            (format!("whsec_{base64}"), format!("whsec_{base64}"))
        }
        Provider::Gitlab if asymmetric => (format!("whsec_{base64}"), format!("whsec_{base64}")),
        _ => (base64.clone(), base64),
    })
}

/// Linear's time is in its body, and X's body is no mere token.
fn sent(provider: Provider, body: &[u8], now: u64) -> Vec<u8> {
    match provider {
        Provider::Linear => {
            let text = String::from_utf8_lossy(body);
            let body = serde_json::json!({ "text": text, "webhookTimestamp": now * 1_000 });
            body.to_string().into_bytes()
        }
        Provider::X => [b"{}", body].concat(),
        _ => body.to_vec(),
    }
}

fn request<'a>(url: &'a str, headers: &'a Headers, body: &'a [u8]) -> Request<'a> {
    Request {
        method: "POST",
        url,
        headers,
        body,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_signed_verifies_and_nothing_close_to_it(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        seed in any::<[u8; 32]>(),
        asymmetric in any::<bool>(),
        query in "[a-z]{0,5}",
        now in 1_000_u64..1 << 40,
        at in any::<prop::sample::Index>(),
    ) {
        for provider in Provider::all() {
            let Some((private, public)) = keys(provider, asymmetric, seed) else { continue };
            let scheme = Scheme::from(provider);
            let mut body = sent(provider, &body, now);
            let url = format!("https://h/p?{query}");
            let mut headers: Headers =
                [("webhook-id", &b"i"[..]), ("svix-id", b"i")].into_iter().collect();

            let private = Secret::new(private).expect("not empty");
            let signed = scheme.sign(&private, &request(&url, &headers, &body), now);
            headers = Headers::default();
            for (name, value) in signed.expect("a key that signs") {
                headers.push(&name, value.as_bytes());
            }
            let secrets = ["x", &public].map(|text| Secret::new(text).expect("not empty"));
            let matched = scheme.verify(&secrets, &request(&url, &headers, &body), now);
            prop_assert_eq!(matched.map(|own| own.secret), Ok(1), "{}", provider);

            let is_token = provider == Provider::Gitlab && !asymmetric;
            // In a form, some bytes are written in several ways.
            let is_form = matches!(provider, Provider::Twilio | Provider::Mandrill);
            if !body.is_empty() && !is_token && !is_form {
                let at = at.index(body.len());
                body[at] ^= 0x10;
                let changed = scheme.verify(&secrets, &request(&url, &headers, &body), now);
                prop_assert_eq!(changed, Err(Refusal::NoMatch), "{}", provider);
            }
        }
    }
}

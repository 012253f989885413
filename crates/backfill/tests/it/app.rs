//! A GitHub App, which proves who it is with its private key.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hookbot_backfill::{Account, Api, AppKey, Credential, Delivery, Error, Hook, Provider};
use ring::rsa::KeyPair;
use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;

use crate::stand_in::{Fault, Sent, StandIn};

/// One key, for tests alone, in both forms.
const PKCS1: &[u8] = include_bytes!("../data/app-pkcs1.pem");
const PKCS8: &[u8] = include_bytes!("../data/app-pkcs8.pem");

fn app(server: &StandIn, pem: &[u8]) -> Hook {
    let key = AppKey::new("12345", pem).unwrap();
    let api = Api::new(
        Provider::Github,
        &server.url(),
        Credential::App(Box::new(key)),
    );
    Hook::new(api.unwrap(), Account::App, None)
}

#[tokio::test]
async fn an_app_signs_each_request_and_github_can_check_it() {
    let key = PrivatePkcs8KeyDer::from_pem_slice(PKCS8).unwrap();
    let pair = KeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key());
    for pem in [PKCS1, PKCS8] {
        let server = StandIn::start().await;
        server.state().takes_any_token = true;
        server.state().sent = vec![Sent::new(1, "a", 1)];
        let mut hook = app(&server, pem);
        let deliveries = Delivery::group(hook.attempts(|_| false).await.unwrap());
        assert!(hook.content(&deliveries[0]).await.is_ok());
        hook.redeliver(&deliveries[0]).await.unwrap();
        assert_eq!(hook.siblings().await.unwrap()[0].id, None);
        let paths = [
            "deliveries?per_page=100",
            "deliveries/1",
            "deliveries/1/attempts",
            "config",
        ];
        assert_eq!(
            server.targets(),
            paths.map(|path| format!("/app/hook/{path}"))
        );

        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        for asked in &server.state().asked {
            let token = asked.headers["authorization"].to_str().unwrap();
            let token = token.strip_prefix("Bearer ").unwrap();
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
            public
                .verify(signed.as_bytes(), &decode(signature))
                .unwrap();
            let (header, claims) = signed.split_once('.').unwrap();
            assert_eq!(decode(header), br#"{"alg":"RS256","typ":"JWT"}"#);
            let claims: Value = serde_json::from_slice(&decode(claims)).unwrap();
            let (issued, expires) = (
                claims["iat"].as_u64().unwrap(),
                claims["exp"].as_u64().unwrap(),
            );
            assert_eq!(claims["iss"], "12345");
            assert!(
                issued < now && now < expires && expires - issued <= 600,
                "{claims}"
            );
        }
    }
}

#[tokio::test]
async fn neither_the_key_nor_what_it_signed_is_printed() {
    let server = StandIn::start().await;
    server.state().faults = [Fault::Echo].into();
    let mut hook = app(&server, PKCS8);
    let error = hook.attempts(|_| false).await.unwrap_err();
    let token = server.state().asked[0].headers["authorization"].clone();
    let token = token.to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let shown = format!("{error} {error:?} {hook:?} {:?}", AppKey::new("1", PKCS1));
    assert!(shown.contains("not with Bearer ***"), "{shown}");
    assert!(!shown.contains(token) && !shown.contains("MII"), "{shown}");
}

#[test]
fn what_is_no_rsa_key_is_refused() {
    let elliptic = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2\nOF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQRWz+jn65BtOMvdyHKcvjBeBSDZH2r\n1RTwjmYSi9R/zpBnuQ4EiMnCqfMPWiZqB4QdbAd0E7oH50VpuZ1P087G\n-----END PRIVATE KEY-----\n";
    let public = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    for pem in ["", "key", elliptic, public] {
        assert!(
            matches!(AppKey::new("1", pem.as_bytes()), Err(Error::Key(_))),
            "{pem}"
        );
    }
}

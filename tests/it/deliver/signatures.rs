//! Deliveries that are signed.

use std::time::SystemTime;

use hookbot_signatures::{Provider, Request, Scheme, Secret};

use super::{deliver, publish, reload, with};
use crate::target::{Answer, Asked, Target};

const SECRETS: [&str; 2] = [
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "whsec_c2Vjb25kc2VjcmV0",
];

/// Which of the secrets a delivery is signed with, now.
fn signers(asked: &Asked) -> Vec<&'static str> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let request = Request {
        method: "POST",
        url: "",
        headers: &asked.headers,
        body: &asked.body,
    };
    let scheme = Scheme::from(Provider::StandardWebhooks);
    let signs = |text: &&str| {
        let secret = [Secret::new(*text).unwrap()];
        scheme.verify(&secret, &request, now.as_secs()).is_ok()
    };
    SECRETS.into_iter().filter(signs).collect()
}

#[tokio::test]
async fn deliveries_are_signed_with_every_secret_and_a_message_has_one_id() {
    let mut target = Target::with(|asked| match asked.header("hookbot-attempt") {
        Some("1") => Answer::Reply(503, ""),
        _ => Answer::OK,
    })
    .await;
    let config = |secrets: &[&str]| {
        deliver(
            "d",
            "in/",
            &target.url("/"),
            &format!("secrets = {secrets:?}"),
        )
    };
    let (old, both, new) = (
        config(&SECRETS[..1]),
        config(&SECRETS),
        config(&SECRETS[1..]),
    );
    let (folder, server) = with(&old).await;
    let mut ids = Vec::new();
    for (config, expected) in [(old, &SECRETS[..1]), (both, &SECRETS), (new, &SECRETS[1..])] {
        reload(&server, folder.path(), &config).await;
        publish(&server, "in/x", 0..1).await;
        let attempts = [target.next().await, target.next().await];
        for asked in &attempts {
            assert_eq!(signers(asked), expected);
        }
        let [first, second] = attempts.each_ref().map(|asked| asked.header("webhook-id"));
        assert!(first.is_some() && first == second);
        ids.push(first.unwrap().to_owned());
    }
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

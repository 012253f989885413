//! Which messages are delivered, and as what.

use hookbot_protocol::Headers;
use hookbot_signatures::{Provider, Request, Scheme, Secret};

use super::{deliver, reload, wait_for, with};
use crate::metrics::{metrics, value};
use crate::target::Target;

#[tokio::test]
async fn conditions_and_templates_choose_and_change_and_their_failures_are_put_aside() {
    let mut target = Target::start().await;
    let more = "when = 'body.n is not odd'\ntransform = '{\"more\":{{ body.n + 2 }}}'";
    let config = deliver("d", "in/", &target.url("/"), more);
    let (_folder, server) = with(&config).await;
    for body in [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":"x"}"#, r#"{"n":4}"#] {
        server.publish("in/x", body).await;
    }
    assert_eq!(target.next().await.text(), r#"{"more":4}"#);
    assert_eq!(target.next().await.text(), r#"{"more":6}"#);
    wait_for(&server, r#"hookbot_delivered_total{delivery="d"}"#, 2.0).await;
    let metrics = metrics(&server).await;
    let count = |name: &str| value(&metrics, &format!("hookbot_{name}{{delivery=\"d\"}}"));
    assert_eq!(count("delivery_skipped_total"), Some(1.0));
    assert_eq!(count("delivery_parked_total"), Some(1.0));
}

#[tokio::test]
async fn nothing_unverified_is_delivered_unless_that_is_said() {
    let mut target = Target::start().await;
    let config = format!(
        "[[source]]\ntopic = '/unsafe/signed/'\nprovider = 'github'\nsecrets = ['s']\n\
         on_fail = 'quarantine'\n{}{}",
        deliver("verified", "/unsafe/", &target.url("/verified"), ""),
        deliver("all", "/unsafe/", &target.url("/all"), "unverified = true"),
    );
    let (folder, server) = with("").await;
    reload(&server, folder.path(), &config).await;
    let (scheme, secret) = (Scheme::from(Provider::Github), Secret::new("s").unwrap());
    let request = Request {
        method: "POST",
        url: "",
        headers: &Headers::default(),
        body: b"signed",
    };
    let signed = scheme.sign(&secret, &request, 0).unwrap();
    let signed: Vec<_> = signed
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    for (line, headers, body) in [
        ("POST /unsafe/pub/open", &[][..], &b"open"[..]),
        ("POST /unsafe/pub/signed/x", &[], b"forged"),
        ("POST /unsafe/pub/signed/x", &signed, b"signed"),
    ] {
        assert_eq!(server.request(line, headers, body).await.status, 200);
    }
    let mut all = Vec::new();
    for _ in 0..3 {
        let asked = target.next().await;
        all.push(format!("{} {}", asked.line, asked.text()));
    }
    all.sort();
    // Neither gets what is in quarantine.
    assert_eq!(
        all,
        [
            "POST /all HTTP/1.1 open",
            "POST /all HTTP/1.1 signed",
            "POST /verified HTTP/1.1 signed",
        ]
    );
}

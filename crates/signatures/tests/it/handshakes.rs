//! What the broker answers by itself, and what it must not be made to sign.

use hookbot_protocol::Headers;
use hookbot_signatures::{Answer, Provider, Refusal, Request, Scheme, Secret};

const NOW: u64 = 1_700_000_000;

/// A request as a provider would send it, signed where that is asked for.
struct Asked {
    scheme: Scheme,
    method: &'static str,
    url: String,
    headers: Headers,
    body: String,
}

fn asked(provider: Provider, method: &'static str, query: &str, body: &str) -> Asked {
    Asked {
        scheme: provider.into(),
        method,
        url: format!("https://hooks.example.com/pub/topic{query}"),
        headers: Headers::default(),
        body: body.to_owned(),
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text).expect("not empty")
}

impl Asked {
    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(name, value.as_bytes());
        self
    }

    fn signed(self, with: &str) -> Self {
        let signed = self.scheme.sign(&secret(with), &self.request(), NOW);
        let signed = signed.expect("a secret that signs");
        let add = |own: Self, (name, value): &(String, String)| own.header(name, value);
        signed.iter().fold(self, add)
    }

    fn request(&self) -> Request<'_> {
        Request {
            method: self.method,
            url: &self.url,
            headers: &self.headers,
            body: self.body.as_bytes(),
        }
    }

    fn answer(&self, secrets: &[&str]) -> Option<Answer> {
        let secrets: Vec<_> = secrets.iter().map(|text| secret(text)).collect();
        self.scheme.handshake(&secrets, &self.request(), NOW)
    }

    fn body(&self, secrets: &[&str]) -> Option<String> {
        let answer = self.answer(secrets)?;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.confirm, None);
        Some(String::from_utf8(answer.body).expect("text"))
    }
}

#[test]
fn slack_gets_its_challenge_back_once_it_has_signed_it() {
    let body = r#"{"token":"t","challenge":"3eZbrw1a","type":"url_verification"}"#;
    let ask = || asked(Provider::Slack, "POST", "", body);
    assert_eq!(ask().signed("s").body(&["s"]).as_deref(), Some("3eZbrw1a"));
    assert_eq!(ask().signed("s").body(&["other"]), None);
    assert_eq!(ask().body(&["s"]), None);
    let event = body.replace("url_verification", "event_callback");
    assert_eq!(
        asked(Provider::Slack, "POST", "", &event)
            .signed("s")
            .body(&["s"]),
        None
    );
}

/// Computed with OpenSSL from what Zoom documents.
#[test]
fn zoom_gets_its_token_signed_with_the_secret_it_signed_with() {
    let body =
        r#"{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}"#;
    let ask = |body: &str| asked(Provider::Zoom, "POST", "", body);
    let answer = ask(body)
        .signed("zoom_secret")
        .body(&["new", "zoom_secret"])
        .unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let mac = "46a324cfb7c2ec760e4cd561586a53aadb6fc7561eb8d626d6ee1b71d808b3c0";
    assert_eq!(answer["plainToken"], "qgg8vlvZRS6UYooatFL8Aw");
    assert_eq!(answer["encryptedToken"], mac);
    assert_eq!(ask(body).body(&["zoom_secret"]), None);
    // Its answer would be the signature of a message.
    let forged = body.replace("qgg8vlvZRS6UYooatFL8Aw", "v0:1700000000:x");
    assert_eq!(ask(&forged).signed("s").body(&["s"]), None);
}

/// Computed with OpenSSL from what X documents.
#[test]
fn x_gets_its_token_signed_and_nobody_gets_a_message_signed() {
    let ask = |token: &str| asked(Provider::X, "GET", &format!("?crc_token={token}"), "");
    assert_eq!(
        ask("tok").body(&["cs", "old"]).as_deref(),
        Some(r#"{"response_token":"sha256=7KpAAJl8dT6Fa56wLL/sxlSTZruWmVGnJlmv91LypX4="}"#)
    );
    for token in [
        "",
        "%7B%22for_user_id%22%3A1%7D",
        "%5B%5D",
        "%22a%22",
        "a%20b",
        "%00",
    ] {
        assert_eq!(ask(token).body(&["cs"]), None, "{token}");
    }
    assert_eq!(ask(&"a".repeat(257)).body(&["cs"]), None);
    // What was signed for the asking is not taken for a message.
    for token in ["tok", "true", "12345", &"a".repeat(256)] {
        let answer = ask(token).body(&["cs"]).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let signature = answer["response_token"].as_str().unwrap();
        let message =
            asked(Provider::X, "POST", "", token).header("x-twitter-webhooks-signature", signature);
        let verified = message
            .scheme
            .verify(&[secret("cs")], &message.request(), NOW);
        assert_eq!(verified, Err(Refusal::MalformedBody), "{token}");
        let signed = message.scheme.sign(&secret("cs"), &message.request(), NOW);
        assert_eq!(signed, Err(Refusal::MalformedBody.into()), "{token}");
    }
    assert_eq!(ask("a&crc_token=b").body(&["cs"]), None);
    assert_eq!(ask("tok").body(&[]), None);
    assert_eq!(
        asked(Provider::X, "POST", "?crc_token=tok", "").body(&["cs"]),
        None
    );
}

#[test]
fn meta_has_to_know_the_verify_token_which_verifies_nothing_else() {
    let query =
        |mode, token| format!("?hub.mode={mode}&hub.challenge=115&hub.verify_token={token}");
    let ask = |mode, token| {
        let mut asked = asked(Provider::Meta, "GET", &query(mode, token), "");
        asked.scheme = asked.scheme.with_verify_token(secret("meatyhamhock"));
        asked
    };
    let secrets = &["app secret"];
    assert_eq!(
        ask("subscribe", "meatyhamhock").body(secrets).as_deref(),
        Some("115")
    );
    assert_eq!(ask("unsubscribe", "meatyhamhock").body(secrets), None);
    assert_eq!(ask("subscribe", "app secret").body(secrets), None);
    assert_eq!(ask("subscribe", "").body(secrets), None);
    let without = asked(Provider::Meta, "GET", &query("subscribe", "app secret"), "");
    assert_eq!(without.body(secrets), None);
    let posted = asked(Provider::Meta, "POST", "", "{}").signed("meatyhamhock");
    assert!(
        posted
            .scheme
            .verify(&[secret("app secret")], &posted.request(), NOW)
            .is_err()
    );
}

#[test]
fn what_a_stranger_has_echoed_is_plain_text() {
    for (provider, method, query, echoed) in [
        (
            Provider::Dropbox,
            "GET",
            "?challenge=a%3Cb%3E+c",
            Some("a<b> c"),
        ),
        (Provider::Dropbox, "POST", "?challenge=abc", None),
        (Provider::Dropbox, "GET", "", None),
        (Provider::Dropbox, "GET", "?challenge=%ff", None),
        (
            Provider::MicrosoftGraph,
            "POST",
            "?validationToken=a%3Cb",
            Some("a<b"),
        ),
        (Provider::MicrosoftGraph, "POST", "", None),
        (Provider::Trello, "HEAD", "", Some("")),
        (Provider::Trello, "GET", "", None),
        (Provider::Mandrill, "HEAD", "", Some("")),
        (Provider::Stripe, "HEAD", "", None),
        (Provider::Github, "GET", "?challenge=abc", None),
    ] {
        let answer = asked(provider, method, query, "").answer(&["s"]);
        let text = answer
            .as_ref()
            .map(|own| str::from_utf8(&own.body).unwrap());
        assert_eq!(text, echoed, "{provider} {query}");
        let is_plain = |own: &Answer| own.content_type == "text/plain; charset=utf-8";
        assert!(answer.as_ref().is_none_or(is_plain));
    }
}

/// The signature is computed with OpenSSL from what Mandrill documents.
#[test]
fn mandrills_test_is_answered_and_holds_no_event() {
    let ask = |events: &str| {
        let mut asked = asked(
            Provider::Mandrill,
            "POST",
            "",
            &format!("mandrill_events={events}"),
        );
        asked.url = "https://hooks.example.com/pub/mandrill".to_owned();
        asked
    };
    let test = ask("%5B%5D").header("x-mandrill-signature", "UOlvxjnNxVdpGf49lugnltcwpGY=");
    assert_eq!(test.body(&["key"]).as_deref(), Some(""));
    assert!(
        test.scheme
            .verify(&[secret("key")], &test.request(), NOW)
            .is_err()
    );
    assert_eq!(ask("%5B%5D").body(&["key"]), None);
    let event = ask("%5B%7B%22event%22%3A%22send%22%7D%5D");
    assert_eq!(event.signed("test-webhook").body(&["key"]), None);
}

#[test]
fn discords_ping_is_answered_once_it_verifies() {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let ask = |body| asked(Provider::Discord, "POST", "", body);
    let ping = ask(r#"{"type":1}"#).signed(seed);
    assert_eq!(ping.body(&[public]).as_deref(), Some(r#"{"type":1}"#));
    assert_eq!(ask(r#"{"type":2}"#).signed(seed).body(&[public]), None);
    assert_eq!(ask(r#"{"type":1}"#).body(&[public]), None);
    assert_eq!(ping.body(&[seed]), None);
}

/// The numbers mean something else here than among interactions.
#[test]
fn a_ping_of_discords_webhook_events_is_answered_without_a_body_and_an_event_is_published() {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let ask = |body| asked(Provider::Discord, "POST", "", body);
    let ping = r#"{"version":1,"application_id":"1234560123453231555","type":0}"#;
    let answer = ask(ping).signed(seed).answer(&[public]).unwrap();
    assert_eq!((answer.status, &*answer.body), (204, &b""[..]));
    assert_eq!(ask(ping).answer(&[public]), None);
    let event = r#"{"version":1,"application_id":"1234560123453231555","type":1,"event":{"type":"APPLICATION_AUTHORIZED","timestamp":"2024-10-18T14:42:53.064834","data":{"integration_type":1}}}"#;
    assert_eq!(ask(event).signed(seed).answer(&[public]), None);
}

#[test]
fn githubs_ping_is_answered_once_it_verifies() {
    let ask = |event| {
        asked(Provider::Github, "POST", "", r#"{"zen":""}"#).header("x-github-event", event)
    };
    assert_eq!(
        ask("ping").signed("s").body(&["s"]).as_deref(),
        Some("pong\n")
    );
    assert_eq!(ask("ping").signed("other").body(&["s"]), None);
    assert_eq!(ask("push").signed("s").body(&["s"]), None);
}

#[test]
fn a_subscription_to_sns_is_confirmed_where_amazon_says() {
    let certificate = include_str!("../data/sns-certificate.pem");
    let body = include_str!("../data/sns-confirmation-2.json");
    let ask = |body: &str| asked(Provider::AwsSns, "POST", "", body);
    let answer = ask(body).answer(&[certificate]).unwrap();
    let url = answer.confirm.unwrap();
    assert!(url.starts_with("https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription"));

    let other = include_str!("../data/sns-other-certificate.pem");
    assert_eq!(ask(body).answer(&[other]), None);
    assert_eq!(
        ask(&body.replace("us-west-2", "us-west-1")).answer(&[certificate]),
        None
    );
    let notification = include_str!("../data/sns-notification-2.json");
    assert_eq!(ask(notification).answer(&[certificate]), None);
    let mut strangers = ask(body);
    strangers.scheme = strangers.scheme.with_topics(vec!["arn:own".to_owned()]);
    assert_eq!(strangers.answer(&[certificate]), None);

    let url = hookbot_signatures::sns::certificate_url(body.as_bytes()).unwrap();
    assert!(url.ends_with("-f3ecfb7224c7233fe7bb5f59f96de52f.pem"));
    let elsewhere = body.replace("sns.us-west-2.amazonaws.com/Simple", "example.com/Simple");
    assert_eq!(
        hookbot_signatures::sns::certificate_url(elsewhere.as_bytes()),
        None
    );
}

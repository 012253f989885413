//! Which of several proofs counts, and what is no proof at all.

use hookbot_protocol::Headers;
use hookbot_signatures::{CannotSign, Match, Provider, Refusal, Request, Scheme, Secret};

const NOW: u64 = 1_700_000_000;

fn secret(text: &str) -> Secret {
    Secret::new(text).expect("not empty")
}

fn request<'a>(headers: &'a Headers, body: &'a str) -> Request<'a> {
    Request {
        method: "POST",
        url: "https://h/",
        headers,
        body: body.as_bytes(),
    }
}

fn headers(all: &[(&str, &str)]) -> Headers {
    all.iter()
        .map(|(name, value)| (*name, value.as_bytes()))
        .collect()
}

fn verify(
    provider: Provider,
    own: &[&str],
    all: &[(&str, &str)],
    body: &str,
) -> Result<usize, Refusal> {
    let secrets: Vec<_> = own.iter().map(|text| secret(text)).collect();
    let headers = headers(all);
    let matched = Scheme::from(provider).verify(&secrets, &request(&headers, body), NOW);
    matched.map(|Match { secret, .. }| secret)
}

/// The value of the last header that `provider` would sign this with.
fn sign(provider: Provider, with: &str, sent: &[(&str, &str)], body: &str) -> String {
    let headers = headers(sent);
    let signed = Scheme::from(provider).sign(&secret(with), &request(&headers, body), NOW);
    let (_, value) = signed
        .expect("a secret that signs")
        .pop()
        .expect("a header");
    value
}

#[test]
fn a_weaker_signature_does_not_make_good_for_a_wrong_one() {
    let good = sign(Provider::Github, "s", &[], "b");
    let sha1 = "sha1=a9cf52ba50f8bc9a7e2f90b7d2f2b3a5fd5a7e4e";
    let strong = ("x-hub-signature-256", &*good);
    assert_eq!(verify(Provider::Github, &["s"], &[strong], "b"), Ok(0));
    // One that is not looked at may be anything, and come as often as it likes.
    let weak = ("x-hub-signature", sha1);
    assert_eq!(
        verify(Provider::Github, &["s"], &[weak, strong, weak], "b"),
        Ok(0)
    );

    let everybody = "It's a Secret to Everybody";
    let weak = (
        "x-hub-signature",
        "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59",
    );
    let check = |strong| {
        let sent = [("x-hub-signature-256", strong), weak];
        verify(Provider::Github, &[everybody], &sent, "Hello, World!")
    };
    assert_eq!(check(&*good), Err(Refusal::NoMatch));
    let malformed = Refusal::Malformed("x-hub-signature-256".to_owned());
    for wrong in ["", "sha256=", "sha256=zz", "sha1=00", weak.1] {
        assert!([Refusal::NoMatch, malformed.clone()].contains(&check(wrong).unwrap_err()));
    }
}

#[test]
fn the_method_in_an_atlassian_signature_is_read() {
    let sha1 = "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59";
    let everybody = "It's a Secret to Everybody";
    for provider in [Provider::Bitbucket, Provider::Jira] {
        let result = verify(
            provider,
            &[everybody],
            &[("x-hub-signature", sha1)],
            "Hello, World!",
        );
        assert_eq!(
            result,
            Err(Refusal::Malformed("x-hub-signature".to_owned()))
        );
    }
}

#[test]
fn gitlabs_plain_token_does_not_count_beside_a_signature() {
    let token = ("x-gitlab-token", "whsec_c2VjcmV0");
    let own = &["whsec_c2VjcmV0"];
    assert_eq!(verify(Provider::Gitlab, own, &[token], "b"), Ok(0));
    let id = ("webhook-id", "i");
    let time = ("webhook-timestamp", "1700000000");
    let good = sign(Provider::Gitlab, own[0], &[id], "b");
    let signed = |signature| verify(Provider::Gitlab, own, &[token, id, time, signature], "b");
    assert_eq!(signed(("webhook-signature", &good)), Ok(0));
    for wrong in ["", "v1", "v1,", "v1,AAAA", "v2,AAAA"] {
        assert!(signed(("webhook-signature", wrong)).is_err(), "{wrong}");
    }
    let unsigned = [token, ("webhook-signature", &*good)];
    let missing = Refusal::Missing("webhook-id".to_owned());
    assert_eq!(verify(Provider::Gitlab, own, &unsigned, "b"), Err(missing));
    // Any text may be a token of the plain kind, and is sent as it is.
    assert_eq!(sign(Provider::Gitlab, "plain", &[id], "b"), "plain");
}

#[test]
fn one_good_signature_among_others_is_enough() {
    let own = &["whsec_c2VjcmV0"];
    let id = ("webhook-id", "i");
    let time = ("webhook-timestamp", "1700000000");
    let good = sign(Provider::StandardWebhooks, own[0], &[id], "b");
    let check = |signatures: &str| {
        let sent = [id, time, ("webhook-signature", signatures)];
        verify(Provider::StandardWebhooks, own, &sent, "b")
    };
    let other = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=";
    assert_eq!(check(&format!("{other} v2,x v1a,{other} {good}")), Ok(0));
    assert_eq!(check(&format!("v1,not-base64 {good}")), Ok(0));
    assert_eq!(check(other), Err(Refusal::NoMatch));
    let elsewhere = good.replace("v1,", "v2,");
    assert_eq!(
        check(&elsewhere),
        Err(Refusal::Malformed("webhook-signature".to_owned()))
    );
    assert_eq!(check(&good.replace("v1,", "v1a,")), Err(Refusal::NoMatch));
    assert_eq!(
        check(&format!("{}{good}", format!("{other} ").repeat(15))),
        Ok(0)
    );
    let many = format!("{}{good}", format!("{other} ").repeat(16));
    assert_eq!(
        check(&many),
        Err(Refusal::Malformed("webhook-signature".to_owned()))
    );
}

#[test]
fn public_and_symmetric_keys_of_standard_webhooks_go_together() {
    let own = &[
        "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        "whsec_c2VjcmV0",
    ];
    let id = ("webhook-id", "i");
    let time = ("webhook-timestamp", "1700000000");
    let private = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    let asymmetric = sign(Provider::StandardWebhooks, private, &[id], "b");
    assert!(asymmetric.starts_with("v1a,"));
    let symmetric = sign(Provider::StandardWebhooks, own[1], &[id], "b");
    for (signature, place) in [(&asymmetric, Ok(0)), (&symmetric, Ok(1))] {
        let sent = [id, time, ("webhook-signature", signature)];
        assert_eq!(verify(Provider::StandardWebhooks, own, &sent, "b"), place);
    }
    let scheme = Scheme::from(Provider::StandardWebhooks);
    let none = Headers::default();
    let missing = Refusal::Missing("webhook-id".to_owned());
    let error = scheme
        .sign(&secret(own[1]), &request(&none, "b"), NOW)
        .unwrap_err();
    assert_eq!(error, CannotSign::Request(missing));
    let error = scheme
        .sign(&secret(own[0]), &request(&none, "b"), NOW)
        .unwrap_err();
    assert_eq!(error, CannotSign::Secret);
}

#[test]
fn pairs_are_found_by_name_and_a_second_time_is_malformed() {
    let good = sign(Provider::Stripe, "s", &[], "b");
    let (time, signature) = good.split_once(',').unwrap();
    let check = |value: &str| {
        verify(
            Provider::Stripe,
            &["s"],
            &[("stripe-signature", value)],
            "b",
        )
    };
    assert_eq!(check(&format!("{time},v1=00,{signature},v0=00")), Ok(0));
    assert_eq!(check(&format!("{signature}, {time}")), Ok(0));
    let malformed = Err(Refusal::Malformed("stripe-signature".to_owned()));
    for wrong in [
        &format!("{good},{time}"),
        &format!("{good},t=1"),
        signature,
        time,
        &signature.replace("v1", "v0"),
        &good.replace("t=", "t=+"),
        &good.replace("t=", "t= "),
        &good.replace("t=", "t=99999999999"),
        "",
    ] {
        assert_eq!(check(wrong), malformed, "{wrong}");
    }
    let many = format!("v1=00,{}", sign(Provider::Pagerduty, "s", &[], "b"));
    assert_eq!(
        verify(
            Provider::Pagerduty,
            &["s"],
            &[("x-pagerduty-signature", &many)],
            "b"
        ),
        Ok(0)
    );
    // Only the version that is known counts.
    let newer = sign(Provider::Circleci, "s", &[], "b").replace("v1=", "v2=");
    let refused = verify(
        Provider::Circleci,
        &["s"],
        &[("circleci-signature", &newer)],
        "b",
    );
    assert_eq!(
        refused,
        Err(Refusal::Malformed("circleci-signature".to_owned()))
    );
}

#[test]
fn a_signed_body_without_its_time_is_refused() {
    for body in [
        "{}",
        "b",
        r#"{"webhookTimestamp":"soon"}"#,
        r#"{"webhookTimestamp":-1}"#,
    ] {
        let signature = sign(Provider::Linear, "s", &[], body);
        let result = verify(
            Provider::Linear,
            &["s"],
            &[("linear-signature", &signature)],
            body,
        );
        assert_eq!(result, Err(Refusal::Undated), "{body}");
    }
}

#[test]
fn a_secret_that_everybody_knows_or_that_is_none_never_matches() {
    for (provider, wrong) in [
        (Provider::StandardWebhooks, "whsec_"),
        (Provider::StandardWebhooks, "not base64"),
        (Provider::StandardWebhooks, "whpk_AAAA"),
        (Provider::Svix, "whsec_"),
        (Provider::Discord, "d75a98"),
        (Provider::Discord, "not hex"),
        (Provider::Sendgrid, "AAAA"),
        (Provider::AwsSns, "a secret"),
        (
            Provider::AwsSns,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ),
    ] {
        assert!(
            Scheme::from(provider).accepts(&secret(wrong)).is_err(),
            "{provider} {wrong}"
        );
    }
    // What everybody could compute with an empty key.
    let sent = [
        ("webhook-id", "i"),
        ("webhook-timestamp", "1700000000"),
        (
            "webhook-signature",
            "v1,SdqsGkwLIPFqvbbugQiOgNaS1gs4P/ckC0Pmny+s8Qo=",
        ),
    ];
    for provider in [Provider::StandardWebhooks, Provider::Gitlab] {
        assert_eq!(
            verify(provider, &["whsec_"], &sent, "b"),
            Err(Refusal::NoMatch)
        );
    }
}

#[test]
fn all_notifications_of_microsoft_graph_have_to_know_the_state() {
    let check = |body: &str| verify(Provider::MicrosoftGraph, &["other", "s"], &[], body);
    assert_eq!(
        check(r#"{"value":[{"clientState":"s"},{"clientState":"s"}]}"#),
        Ok(1)
    );
    assert_eq!(
        check(r#"{"value":[{"clientState":"t"}]}"#),
        Err(Refusal::NoMatch)
    );
    for wrong in [
        r#"{"value":[]}"#,
        r#"{"value":[{}]}"#,
        r#"{"value":[{"clientState":"s"},{"clientState":"t"}]}"#,
        r#"{"value":[{"clientState":"s"},{}]}"#,
        r#"{"value":[{"clientState":null}]}"#,
        r#"{"value":{"clientState":"s"}}"#,
        r#"{"value":[{"clientState":"s"}],"value":[{"clientState":"s"}]}"#,
        "{}",
        "",
    ] {
        assert_eq!(check(wrong), Err(Refusal::MalformedBody), "{wrong}");
    }
}

#[test]
fn an_sns_message_of_another_form_or_topic_is_refused() {
    let body = include_str!("../data/sns-notification-2.json");
    let certificate = include_str!("../data/sns-certificate.pem");
    let check = |body: &str| verify(Provider::AwsSns, &[certificate], &[], body);
    assert_eq!(check(body), Ok(0));
    for (from, to, error) in [
        (
            r#""SignatureVersion": "2""#,
            r#""SignatureVersion": "1""#,
            Refusal::NoMatch,
        ),
        (
            r#""SignatureVersion": "2""#,
            r#""SignatureVersion": "3""#,
            Refusal::MalformedBody,
        ),
        (r#""Notification""#, r#""Other""#, Refusal::MalformedBody),
        (
            r#""Notification""#,
            r#""SubscriptionConfirmation""#,
            Refusal::MalformedBody,
        ),
        (r#""Subject""#, r#""Topic""#, Refusal::NoMatch),
        (r#""Subject""#, r#""Message""#, Refusal::MalformedBody),
        (
            r#""Signature": ""#,
            r#""Signature": "@"#,
            Refusal::MalformedBody,
        ),
    ] {
        assert!(body.contains(from), "{from}");
        assert_eq!(check(&body.replacen(from, to, 1)), Err(error), "{to}");
    }
    let strangers = Scheme::from(Provider::AwsSns).with_topics(vec!["arn:own".to_owned()]);
    let headers = Headers::default();
    let result = strangers.verify(&[secret(certificate)], &request(&headers, body), NOW);
    assert_eq!(result, Err(Refusal::Stranger));
}

#[test]
fn a_tolerance_is_refused_where_nothing_tells_the_time() {
    let second = Some(std::time::Duration::from_secs(1));
    for provider in Provider::all() {
        let is_timed = Scheme::from(provider).with_tolerance(second).is_ok();
        let body = [
            Provider::Github,
            Provider::Twilio,
            Provider::Gitea,
            Provider::MicrosoftGraph,
        ];
        assert!(!is_timed || !body.contains(&provider), "{provider}");
        assert!(Scheme::from(provider).with_tolerance(None).is_ok());
    }
}

#[test]
fn a_form_of_very_many_fields_is_refused_before_it_is_sorted() {
    for (provider, header) in [
        (Provider::Twilio, "x-twilio-signature"),
        (Provider::Mandrill, "x-mandrill-signature"),
    ] {
        let most = "a&".repeat(4_096);
        let good = sign(provider, "s", &[], &most);
        assert_eq!(verify(provider, &["s"], &[(header, &good)], &most), Ok(0));
        let more = format!("{most}a");
        let result = verify(provider, &["s"], &[(header, &good)], &more);
        assert_eq!(result, Err(Refusal::MalformedBody));
    }

    // A body that is signed by its hash is no form, whatever is in it.
    let body = "a&".repeat(5_000);
    let hash = "a594beb29356396eb54495b4b16bf8b9265a8ff339b46c829e0a80c035660d82";
    let url = format!("https://h/?bodySHA256={hash}");
    let scheme = Scheme::from(Provider::Twilio);
    let none = Headers::default();
    let unsigned = Request {
        url: &url,
        ..request(&none, &body)
    };
    let signed = scheme.sign(&secret("s"), &unsigned, NOW).unwrap();
    let signed = headers(&[(&*signed[0].0, &*signed[0].1)]);
    let request = Request {
        headers: &signed,
        ..unsigned
    };
    assert!(scheme.verify(&[secret("s")], &request, NOW).is_ok());
}

//! `hookbot reconcile`: what a stand-in for an API says was sent, beside what a server has.

use std::time::Duration;

use hookbot::server::{Promotion, Rules, Source, SourceSecret, Sources};
use hookbot_protocol::{Filter, Keys};
use hookbot_signatures::Provider;
use serde_json::Value;

use crate::api_stand_in::{Sent, StandIn};
use crate::backfill::{SECRET, deduplicating, hookbot, lines, numbered, published, signed, url};
use crate::support::{Options, TestServer, key, token};

/// Publishes a delivery as its provider would have.
async fn deliver(server: &TestServer, topic: &str, id: (&str, &str), sent: &Sent) {
    let bearer = format!("Bearer {}", token("/"));
    let headers = [("Authorization", &*bearer), id];
    let line = format!("POST /pub/{topic}");
    let reply = server
        .request(&line, &headers, sent.payload.as_bytes())
        .await;
    assert_eq!(reply.status, 200);
}

fn states(lines: &[String]) -> Vec<(String, String)> {
    let objects = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let deliveries = objects.filter(|object| object.get("state").is_some());
    deliveries
        .map(|one| (text(&one["delivery"]), text(&one["state"])))
        .collect()
}

fn summary(lines: &[String]) -> Value {
    let last: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    last["summary"].clone()
}

/// A server whose pings come soon, so that its log is read soon.
async fn server() -> TestServer {
    TestServer::start_with(Options::settings(|settings| {
        settings.ping_interval = Duration::from_millis(100);
    }))
    .await
}

#[tokio::test]
async fn exactly_what_is_missing_is_published_and_the_second_time_nothing() {
    let api = StandIn::start().await;
    let sent: Vec<_> = numbered(1..=120).into_iter().map(signed).collect();
    api.state().sent = sent.clone();
    let server = server().await;
    let is_missing = |n: u64| n % 7 == 3;
    for sent in sent.iter().filter(|sent| !is_missing(sent.id)) {
        deliver(&server, "site", ("x-github-delivery", &sent.delivery), sent).await;
        // Others publish, too, there and elsewhere.
        server.publish("site", "without an id").await;
        server.publish("elsewhere", "x").await;
    }
    let (from, to) = (url(&server, "/sub/site"), url(&server, "/pub/site"));
    let arguments = [
        "reconcile",
        "github",
        "acme/site",
        "7",
        &from,
        &to,
        "--json",
    ];

    let output = hookbot(&api, &[&arguments[..], &["--dry-run"]].concat()).await;
    assert_eq!(output.status.code(), Some(8), "{output:?}");
    let expected = |missing: &str| -> Vec<_> {
        let state = |n| if is_missing(n) { missing } else { "present" };
        (1..=120)
            .map(|n| (format!("d{n}"), state(n).to_owned()))
            .collect()
    };
    assert_eq!(states(&lines(&output)), expected("missing"));

    let output = hookbot(&api, &arguments).await;
    assert_eq!(output.status.code(), Some(8), "{output:?}");
    assert_eq!(states(&lines(&output)), expected("published"));
    let counts = summary(&lines(&output));
    assert_eq!(
        (&counts["sent"], &counts["published"]),
        (&120.into(), &17.into())
    );

    let output = hookbot(&api, &arguments).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        states(&lines(&output))
            .iter()
            .all(|(_, state)| state == "present")
    );

    let payloads = published(&server, "site", 103 * 2 + 17).await;
    let missing = sent.iter().filter(|sent| is_missing(sent.id));
    let missing: Vec<_> = missing.map(|sent| sent.payload.clone()).collect();
    assert_eq!(payloads[103 * 2..], missing);
}

#[tokio::test]
async fn people_get_a_table_and_a_sentence() {
    let api = StandIn::start().await;
    let sent: Vec<_> = numbered(1..=3);
    api.state().sent = sent.clone();
    api.state().gone = [3].into();
    let server = server().await;
    deliver(&server, "site", ("x-github-delivery", "d1"), &sent[0]).await;
    let (from, to) = (url(&server, "/sub/"), url(&server, "/pub/site"));
    let arguments = ["reconcile", "github", "acme/site", "7", &from, &to];
    let output = hookbot(&api, &arguments).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let expected = [
        "2026-01-31T00:00:01Z  push                      d1  there",
        "2026-01-31T00:00:02Z  push                      d2  published now (signature not checked)",
        "2026-01-31T00:00:03Z  push                      d3  missing; lost: GitHub no longer has it",
    ];
    assert_eq!(lines(&output), expected);
    let told = String::from_utf8(output.stderr).unwrap();
    let sentence = "3 sent, 1 there, 1 published now, 1 missing and not to be had";
    assert!(told.contains(sentence), "{told}");
}

#[tokio::test]
async fn what_the_log_had_to_forget_is_not_taken_for_missing() {
    let api = StandIn::start().await;
    api.state().sent = numbered(1..=3);
    let server = TestServer::start_with(Options {
        log_bytes: Some(64 << 10),
        ..Options::settings(|settings| settings.ping_interval = Duration::from_millis(100))
    })
    .await;
    for _ in 0..40 {
        server.publish("site", &"x".repeat(8 << 10)).await;
    }
    let (from, to) = (url(&server, "/sub/site"), url(&server, "/pub/site"));
    let arguments = [
        "reconcile",
        "github",
        "acme/site",
        "7",
        &from,
        &to,
        "--json",
    ];
    let output = hookbot(&api, &arguments).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(summary(&lines(&output))["unknown"], 3);
}

#[tokio::test]
async fn nothing_sent_is_nothing_missing() {
    let api = StandIn::start().await;
    let server = server().await;
    let from = url(&server, "/sub/site");
    let arguments = ["reconcile", "github", "acme/site", "7", "--dry-run", &from];
    let output = hookbot(&api, &arguments).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "0 sent, 0 there\n"
    );
}

#[tokio::test]
async fn a_delivery_that_was_first_tried_long_ago_is_looked_for_there() {
    let api = StandIn::start().await;
    // To this delivery's last attempt, now is long ago.
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(3);
    let sent = Sent {
        is_repeated: true,
        at: later.to_string(),
        ..Sent::new(2, "d", 0)
    };
    api.state().sent = vec![sent.clone()];
    let server = server().await;
    deliver(&server, "site", ("x-github-delivery", "d"), &sent).await;
    let from = url(&server, "/sub/site");
    let arguments = ["reconcile", "github", "acme/site", "7", "--dry-run", &from];
    let output = hookbot(&api, &arguments).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[tokio::test]
async fn gitlab_is_reconciled_by_its_own_ids_below_unsafe_too() {
    let api = StandIn::start().await;
    let sent: Vec<_> = numbered(1..=30);
    api.state().sent = sent.clone();
    let server = server().await;
    for sent in &sent[..12] {
        let id = [("idempotency-key", &*sent.delivery)];
        let reply = server
            .request("POST /unsafe/pub/site", &id, sent.payload.as_bytes())
            .await;
        assert_eq!(reply.status, 200);
    }
    let from = url(&server, "/unsafe/sub/site");
    let to = format!("http://{}/unsafe/pub/site", server.address);
    let arguments = [
        "reconcile",
        "gitlab",
        "acme/web/site",
        "7",
        &from,
        &to,
        "--unsafe-is-ok",
        "--json",
    ];
    let output = hookbot(&api, &arguments).await;
    assert_eq!(output.status.code(), Some(8), "{output:?}");
    assert_eq!(summary(&lines(&output))["published"], 18);
    let output = hookbot(&api, &arguments).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[tokio::test]
async fn what_a_source_promotes_is_looked_for_where_it_goes() {
    let api = StandIn::start().await;
    // As the API shows a payload that was not sent in its compact form, nobody can verify it.
    let changed = |sent: Sent| Sent {
        payload: sent.payload.replace("<&>", "x"),
        ..sent
    };
    let sent: Vec<_> = numbered(1..=6).into_iter().map(signed).collect();
    api.state().sent = sent.iter().cloned().map(changed).collect();
    let server = TestServer::start_with(Options::settings(|settings| {
        let secret = SourceSecret::new("env:S", SECRET.as_bytes().to_vec()).unwrap();
        let source = Source {
            scheme: Some(Provider::Github.into()),
            secrets: vec![secret],
            promote: Some(Promotion::new(Filter::parse("github/").unwrap()).unwrap()),
            ..Source::new(Filter::parse("/unsafe/github/").unwrap())
        };
        settings.rules = Rules {
            sources: Sources::new(vec![source]).unwrap(),
            ..Rules::new(Keys::new(key()))
        };
    }))
    .await;
    for sent in &sent[..2] {
        let headers = sent.headers.iter();
        let mut headers: Vec<_> = headers.map(|(name, value)| (&**name, &**value)).collect();
        headers.push(("x-github-delivery", &*sent.delivery));
        let line = "POST /unsafe/pub/github/site";
        let reply = server
            .request(line, &headers, sent.payload.as_bytes())
            .await;
        assert_eq!(reply.status, 200);
    }
    let from = url(&server, "/sub/github/site");
    let to = format!("http://{}/unsafe/pub/github/site", server.address);
    let arguments = [
        "reconcile",
        "github",
        "acme/site",
        "7",
        &from,
        &to,
        "--secret",
        "env:HOOK_SECRET",
    ];
    let output = hookbot(&api, &arguments).await;
    // The first one that is refused is the last one that is tried.
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(lines(&output).len(), 3);
    assert!(
        lines(&output)[2].contains("missing; 401 Unauthorized"),
        "{output:?}"
    );
    let resigned = [&arguments[..], &["--resign"]].concat();
    for code in [8, 0] {
        let output = hookbot(&api, &resigned).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(lines(&output)[1].ends_with("d2  there"), "{output:?}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_or_is_away_is_told_apart_and_gets_nothing() {
    let api = StandIn::start().await;
    api.state().sent = vec![Sent::new(1, "d1", 1)];
    let server = deduplicating().await;
    let wrong = format!("http://wrong@{}/sub/site", server.address);
    let right = url(&server, "/sub/site");
    let unsafe_url = url(&server, "/unsafe/sub/site");
    let nobody = "http://127.0.0.1:9/sub/site".to_owned();
    let to = url(&server, "/pub/site");
    for (from, code) in [(&wrong, 3), (&unsafe_url, 3), (&nobody, 4)] {
        let arguments = ["reconcile", "github", "acme/site", "7", from, &to];
        let output = hookbot(&api, &arguments).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
    let arguments = ["reconcile", "github", "acme/site", "7", &right];
    assert_eq!(hookbot(&api, &arguments).await.status.code(), Some(2));
    assert!(published(&server, "site", 0).await.is_empty());
}

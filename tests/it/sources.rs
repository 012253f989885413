use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use hookbot::server::{FixedReply, Networks, OnFail, Settings, Source, SourceSecret};
use hookbot_protocol::Filter;
use hookbot_signatures::Provider;
use http::StatusCode;

use crate::canaries::Kept;
use crate::providers::{SECRET, event, events, post, promoted, rules, source, start};
use crate::support::{Options, TestServer};

#[tokio::test]
async fn what_verified_is_promoted_and_says_by_whom() {
    let server = start(vec![promoted(
        "/unsafe/github.com/",
        Provider::Github,
        "github.com/",
    )])
    .await;
    let mut safe = events(&server, "/sub/github.com/").await;
    let path = "/unsafe/pub/github.com/org/acme";
    let headers = [("X-GitHub-Event", "push")];
    let reply = post(&server, Provider::Github, path, "a guess", &headers, b"{0}").await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (401, "401 Unauthorized: no secret matches\n")
    );
    let reply = server
        .request(&format!("POST {path}"), &headers, b"{1}")
        .await;
    assert_eq!(reply.status, 401, "{}", reply.body);
    let reply = post(&server, Provider::Github, path, SECRET, &headers, b"{2}").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "OK\n"));
    assert_eq!(reply.header("hookbot-cursor"), None);

    let message = event(&mut safe).await;
    assert_eq!(message["topic"], "github.com/org/acme");
    assert_eq!(message["verified_by"], "github");
    assert_eq!(message["source"], "/unsafe/github.com/");
    assert_eq!(message["body"], "{2}");
}

#[tokio::test]
async fn the_log_says_why_a_request_was_refused() {
    let lines = Kept::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(lines.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let server = start(vec![source("/unsafe/gh", Provider::Github)]).await;
    let path = "/unsafe/pub/gh";
    for (secret, status) in [(SECRET, 200), ("a guess", 401)] {
        let reply = post(&server, Provider::Github, path, secret, &[], b"{}").await;
        assert_eq!(reply.status, status);
    }
    assert_eq!(server.request("POST /pub/a", &[], b"").await.status, 401);
    let log = lines.text();
    let refusals = log.lines().filter_map(|line| line.split_once("refused="));
    let refusals: Vec<_> = refusals.map(|(_, why)| why).collect();
    assert_eq!(refusals, ["\"no secret matches\"", "\"token\""], "{log}");
}

#[tokio::test]
async fn what_does_not_verify_can_be_kept_with_the_reason() {
    let server = start(vec![Source {
        on_fail: OnFail::Quarantine,
        ..promoted("/unsafe/gh/", Provider::Github, "gh/")
    }])
    .await;
    let (mut kept, mut safe) = (
        events(&server, "/unsafe/sub/quarantine/").await,
        events(&server, "/sub/").await,
    );
    let path = "/unsafe/pub/gh/a";
    assert_eq!(
        server
            .request(&format!("POST {path}"), &[], b"forged")
            .await
            .status,
        200
    );
    let message = event(&mut kept).await;
    assert_eq!(message["topic"], "/unsafe/quarantine/gh/a");
    assert_eq!(message["source"], "/unsafe/gh/");
    assert_eq!(
        message["refused"],
        "no x-hub-signature-256 or x-hub-signature header"
    );
    assert_eq!(message.get("verified_by"), None);
    assert_eq!(
        post(&server, Provider::Github, path, SECRET, &[], b"real")
            .await
            .status,
        200
    );
    assert_eq!(event(&mut safe).await["body"], "real");
    // Nobody writes there but the broker.
    let reply = server
        .request("POST /unsafe/pub/quarantine/gh/a", &[], b"")
        .await;
    assert_eq!(reply.status, 400);
}

#[tokio::test]
async fn a_sender_cannot_say_that_it_was_verified() {
    let server = start(vec![source("/unsafe/gh/", Provider::Github)]).await;
    let mut all = events(&server, "/unsafe/sub/").await;
    let forged = [
        ("verified_by", "github"),
        ("Verified-By", "github"),
        ("source", "x"),
    ];
    let query = "POST /unsafe/pub/elsewhere?verified_by=github";
    assert_eq!(server.request(query, &forged, b"forged").await.status, 200);
    let message = event(&mut all).await;
    assert_eq!(
        (message.get("verified_by"), message.get("source")),
        (None, None)
    );
}

#[tokio::test]
async fn the_longest_prefix_decides_whose_rules_hold() {
    let server = start(vec![
        source("/unsafe/", Provider::Slack),
        source("/unsafe/gh/", Provider::Github),
        Source::new(Filter::parse("/unsafe/gh/open").unwrap()),
    ])
    .await;
    for (path, provider, status) in [
        ("/unsafe/pub/gh/a", Provider::Github, 200),
        ("/unsafe/pub/gh/a", Provider::Slack, 401),
        ("/unsafe/pub/gha", Provider::Github, 401),
        ("/unsafe/pub/gha", Provider::Slack, 200),
    ] {
        let reply = post(&server, provider, path, SECRET, &[], b"{}").await;
        assert_eq!(reply.status, status, "{path} {provider}: {}", reply.body);
    }
    assert_eq!(
        server
            .request("POST /unsafe/pub/gh/open", &[], b"")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_source_on_a_safe_topic_asks_for_token_and_signature() {
    let server = start(vec![source("gh/", Provider::Github)]).await;
    let bearer = format!("Bearer {}", crate::support::token("/pub/gh/a"));
    let with_token = [("Authorization", bearer.as_str())];
    let line = "POST /pub/gh/a";
    assert_eq!(server.request(line, &with_token, b"").await.status, 401);
    let post = |secret, headers| post(&server, Provider::Github, "/pub/gh/a", secret, headers, b"");
    assert_eq!(post(SECRET, &[]).await.status, 401);
    assert_eq!(post("guess", &with_token).await.status, 401);
    let reply = post(SECRET, &with_token).await;
    assert_eq!(reply.status, 200);
    assert!(reply.header("hookbot-cursor").is_some());
}

#[tokio::test]
async fn a_delivery_that_verified_is_published_once_and_a_forgery_takes_nobody_s_place() {
    let server = start(vec![Source {
        deduplicate: Some(Duration::from_secs(3_600)),
        ..promoted("/unsafe/gh/", Provider::Github, "gh/")
    }])
    .await;
    let mut safe = events(&server, "/sub/gh/").await;
    let path = "/unsafe/pub/gh/a";
    let post = |secret, id, body| {
        let server = &server;
        async move {
            let headers = [("X-GitHub-Delivery", id)];
            post(server, Provider::Github, path, secret, &headers, body)
                .await
                .status
        }
    };
    assert_eq!(post("guess", "1", b"one").await, 401);
    for _ in 0..3 {
        assert_eq!(post(SECRET, "1", b"one").await, 200);
    }
    assert_eq!(post(SECRET, "2", b"two").await, 200);
    assert_eq!(event(&mut safe).await["body"], "one");
    assert_eq!(event(&mut safe).await["body"], "two");
}

#[tokio::test]
async fn a_source_takes_what_it_says_and_says_what_it_takes() {
    let open = |on: &str| Source::new(Filter::parse(on).unwrap());
    let server = start(vec![
        Source {
            max_body: Some(10),
            content_types: vec!["application/json".to_owned()],
            reply: Some(FixedReply {
                status: StatusCode::ACCEPTED,
                body: Bytes::from_static(b"{\"taken\":true}"),
            }),
            ..open("/unsafe/a/")
        },
        Source {
            addresses: Some(Networks::parse(["10.0.0.0/8"]).unwrap()),
            ..open("/unsafe/b/")
        },
        Source {
            rate: Some("2/h".parse().unwrap()),
            ..open("/unsafe/c/")
        },
    ])
    .await;
    let json = [("Content-Type", "application/json")];
    let reply = server.request("POST /unsafe/pub/a/x", &json, b"{}").await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (202, "{\"taken\":true}")
    );
    let reply = server
        .request("POST /unsafe/pub/a/x", &json, &[b' '; 11])
        .await;
    assert_eq!(reply.status, 413);
    assert!(reply.body.contains("10 bytes"), "{}", reply.body);
    let reply = server.request("POST /unsafe/pub/a/x", &[], b"{}").await;
    assert_eq!(reply.status, 415);
    assert!(reply.body.contains("application/json"), "{}", reply.body);
    assert_eq!(
        server
            .request("POST /unsafe/pub/b/x", &[], b"")
            .await
            .status,
        403
    );
    for status in [200, 200, 429] {
        let reply = server.request("POST /unsafe/pub/c/x", &[], b"").await;
        assert_eq!(reply.status, status);
        assert_eq!(reply.header("retry-after").is_some(), status == 429);
    }
}

#[tokio::test]
async fn forgeries_use_up_nothing_that_is_the_provider_s() {
    let server = TestServer::start_with(Options::settings(|settings: &mut Settings| {
        settings.rules = rules(vec![Source {
            rate: Some("2/h".parse().unwrap()),
            ..source("/unsafe/gh/", Provider::Github)
        }]);
        settings.rules.topic_rate = Some("2/h".parse().unwrap());
        settings.unsafe_rate = NonZeroU32::MIN;
        settings.unsafe_share = NonZeroU32::new(1_000);
    }))
    .await;
    let path = "/unsafe/pub/gh/a";
    let post = |secret| post(&server, Provider::Github, path, secret, &[], b"{}");
    for _ in 0..5 {
        assert_eq!(post("guess").await.status, 401);
    }
    for status in [200, 200, 429] {
        assert_eq!(post(SECRET).await.status, status);
    }
}

#[tokio::test]
async fn counters_tell_which_secret_is_still_in_use() {
    let old = || SourceSecret::new("file:old", b"the old one".to_vec()).unwrap();
    let both = Source {
        secrets: vec![SourceSecret::new("env:NEW", SECRET.into()).unwrap(), old()],
        ..source("/unsafe/gh/", Provider::Github)
    };
    let server = start(vec![both.clone()]).await;
    let path = "/unsafe/pub/gh/a";
    for (secret, status) in [
        ("the old one", 200),
        (SECRET, 200),
        (SECRET, 200),
        ("x", 401),
    ] {
        let reply = post(&server, Provider::Github, path, secret, &[], b"").await;
        assert_eq!(reply.status, status);
    }
    let uses = |secret: &str, number: u64| {
        let labels = format!("{{source=\"/unsafe/gh/\",secret=\"{secret}\"}}");
        format!("hookbot_source_secret_uses_total{labels} {number}\n")
    };
    let line = format!("GET /metrics?token={}", crate::support::token("/metrics"));
    let shown = server.request(&line, &[], b"").await.body;
    assert!(shown.contains(&uses("env:NEW", 2)), "{shown}");
    assert!(shown.contains(&uses("file:old", 1)), "{shown}");
    let rejected = "{source=\"/unsafe/gh/\",outcome=\"rejected\"} 1\n";
    assert!(shown.contains(rejected), "{shown}");

    // A reload forgets nothing that is still there, and what is gone is gone.
    server
        .control
        .replace(rules(vec![source("/unsafe/gh/", Provider::Github)]))
        .await;
    assert_eq!(
        post(&server, Provider::Github, path, SECRET, &[], b"")
            .await
            .status,
        200
    );
    let reply = post(&server, Provider::Github, path, "the old one", &[], b"").await;
    assert_eq!(reply.status, 401);
    let shown = server.request(&line, &[], b"").await.body;
    assert!(shown.contains(&uses("env:NEW", 3)), "{shown}");
    assert!(!shown.contains("file:old"), "{shown}");
    for secret in [SECRET, "the old one"] {
        assert!(!shown.contains(secret));
    }
}

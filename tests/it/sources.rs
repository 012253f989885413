use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hookbot::server::{
    FixedReply, Networks, OnFail, Promotion, Rules, Settings, Source, SourceSecret, Sources,
};
use hookbot_protocol::{Filter, Headers, Keys};
use hookbot_signatures::{Provider, Request, Scheme, Secret};
use http::StatusCode;

use crate::support::{Options, Reply, TestServer, key};

const SECRET: &str = "the provider's secret";

fn source(on: &str, provider: Provider) -> Source {
    let secret = SourceSecret::new("env:NEW", SECRET.as_bytes().to_vec()).unwrap();
    Source {
        scheme: Some(provider.into()),
        secrets: vec![secret],
        ..Source::new(Filter::parse(on).unwrap())
    }
}

fn rules(sources: Vec<Source>) -> Rules {
    Rules {
        sources: Sources::new(sources).unwrap(),
        ..Rules::new(Keys::new(key()))
    }
}

async fn start(sources: Vec<Source>) -> TestServer {
    TestServer::start_with(Options::settings(|settings: &mut Settings| {
        settings.rules = rules(sources);
        settings.public_url = Some("https://hooks.example.com/".to_owned());
    }))
    .await
}

fn promoted(on: &str, provider: Provider, to: &str) -> Source {
    Source {
        promote: Some(Promotion::new(Filter::parse(to).unwrap()).unwrap()),
        ..source(on, provider)
    }
}

/// Posts a body as the provider would, signed with a secret.
async fn post(
    server: &TestServer,
    provider: Provider,
    path: &str,
    secret: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let given: Headers = headers
        .iter()
        .map(|(name, value)| (*name, value.as_bytes()))
        .collect();
    let url = format!("https://hooks.example.com{path}");
    let request = Request {
        method: "POST",
        url: &url,
        headers: &given,
        body,
    };
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let secret = Secret::new(secret).unwrap();
    let signed = Scheme::from(provider).sign(&secret, &request, now).unwrap();
    let signed = signed.iter().map(|(name, value)| (&**name, &**value));
    let headers: Vec<_> = headers.iter().copied().chain(signed).collect();
    server
        .request(&format!("POST {path}"), &headers, body)
        .await
}

/// The next event as JSON, of a subscriber to events.
async fn event(events: &mut crate::support::Socket) -> serde_json::Value {
    loop {
        let frame = events.next().await;
        let (json, body) = frame.split_once('\0').unwrap();
        let mut json: serde_json::Value = serde_json::from_str(json).unwrap();
        if json.get("cursor").is_some() {
            json["body"] = body.into();
            return json;
        }
    }
}

async fn events(server: &TestServer, path: &str) -> crate::support::Socket {
    let bearer = format!("Bearer {}", crate::support::token("/"));
    let headers = [
        ("Authorization", bearer.as_str()),
        crate::support::UNSAFE_IS_OK,
        ("Sec-WebSocket-Protocol", "hookbot.events.v1"),
    ];
    server.try_subscribe(path, &headers).await.unwrap()
}

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
async fn a_provider_that_asks_whether_anybody_is_there_is_answered_and_nobody_hears_of_it() {
    let on = |name: &str| format!("/unsafe/{name}");
    let providers = [
        Provider::Github,
        Provider::Slack,
        Provider::Zoom,
        Provider::X,
        Provider::Dropbox,
        Provider::MicrosoftGraph,
        Provider::Trello,
        Provider::Mandrill,
    ];
    let mut sources: Vec<_> = providers.map(|own| source(&on(own.name()), own)).into();
    let verify_token = Secret::new("meta's word").unwrap();
    let meta = Scheme::from(Provider::Meta).with_verify_token(verify_token);
    sources.push(Source {
        scheme: Some(meta),
        ..source(&on("meta"), Provider::Meta)
    });
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    sources.push(Source {
        secrets: vec![SourceSecret::new("literal 1", public.into()).unwrap()],
        ..source(&on("discord"), Provider::Discord)
    });
    let server = start(sources).await;
    let mut all = server.subscribe("/unsafe/sub/").await;

    let get = |line: &str| {
        let line = line.to_owned();
        let server = &server;
        async move { server.request(&line, &[], b"").await }
    };
    for (line, status, body) in [
        ("GET /unsafe/pub/dropbox?challenge=abc", 200, "abc"),
        (
            "GET /unsafe/pub/dropbox",
            405,
            "405 Method Not Allowed: use POST, PUT\n",
        ),
        (
            "GET /unsafe/pub/meta?hub.mode=subscribe&hub.verify_token=meta%27s+word&hub.challenge=7",
            200,
            "7",
        ),
        (
            "POST /unsafe/pub/microsoft-graph?validationToken=v",
            200,
            "v",
        ),
        ("HEAD /unsafe/pub/trello", 200, ""),
        ("HEAD /unsafe/pub/mandrill", 200, ""),
        ("HEAD /unsafe/pub/elsewhere", 405, ""),
        (
            "GET /unsafe/pub/github",
            405,
            "405 Method Not Allowed: use POST, PUT\n",
        ),
    ] {
        let reply = get(line).await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (status, body),
            "{line}"
        );
    }
    let wrong = "GET /unsafe/pub/meta?hub.mode=subscribe&hub.verify_token=x&hub.challenge=7";
    assert_eq!(get(wrong).await.status, 405);
    let reply = get("GET /unsafe/pub/x?crc_token=tok").await;
    assert!(
        reply.body.contains("\"response_token\":\"sha256="),
        "{}",
        reply.body
    );

    let slack = br#"{"type":"url_verification","challenge":"c"}"#;
    let zoom = br#"{"event":"endpoint.url_validation","payload":{"plainToken":"p"}}"#;
    let ping = [("X-GitHub-Event", "ping")];
    for (provider, headers, body, answer) in [
        (Provider::Github, &ping[..], &b"{}"[..], "pong\n"),
        (Provider::Slack, &[], slack, "c"),
        (Provider::Zoom, &[], zoom, "\"plainToken\":\"p\""),
    ] {
        let path = format!("/unsafe/pub/{provider}");
        let reply = post(&server, provider, &path, SECRET, headers, body).await;
        assert_eq!(reply.status, 200);
        assert!(reply.body.contains(answer), "{provider}: {}", reply.body);
        let reply = post(&server, provider, &path, "guess", headers, body).await;
        assert_eq!(reply.status, 401, "{provider}");
    }
    // Discord looks whether a wrong signature is refused, before it believes the right one.
    assert_eq!(get("POST /unsafe/pub/discord").await.status, 401);

    let last = server.request("POST /unsafe/pub/last", &[], b"last").await;
    assert_eq!(last.status, 200);
    assert_eq!(
        all.next().await,
        "/unsafe/last\0last",
        "nothing was published before"
    );
}

#[tokio::test]
async fn a_subscription_of_amazon_s_is_answered_and_its_messages_are_believed() {
    let data = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/signatures/tests/data/");
        std::fs::read(format!("{folder}{name}")).unwrap()
    };
    let certificate = SourceSecret::new("file:certificate", data("sns-certificate.pem")).unwrap();
    let server = start(vec![Source {
        secrets: vec![certificate],
        ..promoted("/unsafe/sns", Provider::AwsSns, "sns")
    }])
    .await;
    let mut safe = events(&server, "/sub/").await;
    let line = "POST /unsafe/pub/sns";
    for (body, status) in [
        (data("sns-confirmation-2.json"), 200),
        (b"{}".to_vec(), 401),
        (data("sns-notification-2.json"), 200),
    ] {
        let reply = server.request(line, &[], &body).await;
        assert_eq!(reply.status, status, "{}", reply.body);
    }
    let message = event(&mut safe).await;
    assert_eq!(
        (&message["topic"], &message["verified_by"]),
        (&"sns".into(), &"aws-sns".into())
    );
    let body = message["body"].as_str().unwrap();
    assert!(
        body.contains("\"Notification\""),
        "the confirmation is not published: {body}"
    );
}

#[tokio::test]
async fn a_url_that_is_signed_is_the_public_one_as_it_was_sent() {
    let server = start(vec![source("/unsafe/sms/", Provider::Twilio)]).await;
    let path = "/unsafe/pub/sms/a%20b?x=1&y=%2F&token=theirs";
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    let reply = post(
        &server,
        Provider::Twilio,
        path,
        SECRET,
        &headers,
        b"To=1&From=2",
    )
    .await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    // The same path in another spelling is not what was signed.
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let request = Request {
        method: "POST",
        url: "https://hooks.example.com/unsafe/pub/sms/a",
        headers: &Headers::default(),
        body: b"",
    };
    let secret = Secret::new(SECRET).unwrap();
    let signed = Scheme::from(Provider::Twilio)
        .sign(&secret, &request, now)
        .unwrap();
    let signed = [(&*signed[0].0, &*signed[0].1)];
    assert_eq!(
        server
            .request("POST /unsafe/pub/sms/%61", &signed, b"")
            .await
            .status,
        401
    );
    assert_eq!(
        server
            .request("POST /unsafe/pub/sms/a", &signed, b"")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_large_body_is_verified_like_a_small_one() {
    let server = start(vec![source("/unsafe/gh", Provider::Github)]).await;
    let body = vec![b'x'; 1 << 20];
    let path = "/unsafe/pub/gh";
    assert_eq!(
        post(&server, Provider::Github, path, SECRET, &[], &body)
            .await
            .status,
        200
    );
    assert_eq!(
        post(&server, Provider::Github, path, "guess", &[], &body)
            .await
            .status,
        401
    );
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

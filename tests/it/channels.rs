use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookbot::server::{Networks, Settings, Source, SourceSecret, Sources};
use hookbot_log::{DiskLog, OpenError, Options as LogOptions};
use hookbot_protocol::{Filter, Key, Keys};
use hookbot_signatures::Provider;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error;

use crate::stream::{Event, Stream};
use crate::support::{Options, PATIENCE, TestServer, UNSAFE_IS_OK, key, token};

/// A server with open doors.
pub(crate) async fn open(change: impl FnOnce(&mut Settings) + Send + 'static) -> TestServer {
    TestServer::start_with(Options::settings(|settings| {
        settings.open_channels = true;
        change(settings);
    }))
    .await
}

/// A new channel's id, for smee or, by another path, for others.
pub(crate) async fn mint(server: &TestServer) -> String {
    let reply = server.request("GET /smee/new", &[], b"").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let url = reply.body.strip_suffix('\n').unwrap();
    let id = url.strip_prefix(&format!("http://{}/smee/", server.address));
    id.unwrap_or_else(|| panic!("{url}")).to_owned()
}

async fn post(server: &TestServer, id: &str, headers: &[(&str, &str)], body: &[u8]) -> u16 {
    let reply = server
        .request(&format!("POST /smee/{id}"), headers, body)
        .await;
    reply.status
}

async fn smee(server: &TestServer, id: &str, headers: &str) -> Stream {
    let (mut stream, head) = Stream::open(server, &format!("/smee/{id}"), headers).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let ready = stream.next().await.unwrap();
    assert_eq!((&*ready.name, &*ready.data), ("ready", "{}"));
    assert_ne!(ready.id, "");
    stream
}

async fn gosmee(server: &TestServer, id: &str, headers: &str) -> Stream {
    let (mut stream, head) = Stream::open(server, &format!("/smee/events/{id}"), headers).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    for message in ["connected", "ready"] {
        let expected = Event {
            data: format!("{{\"message\":\"{message}\"}}"),
            ..Event::default()
        };
        assert_eq!(stream.next().await.unwrap(), expected);
    }
    stream
}

/// The next message, and its id.
async fn message(stream: &mut Stream) -> (String, Value) {
    loop {
        let event = stream.next().await.unwrap();
        if event.name.is_empty() {
            return (event.id, serde_json::from_str(&event.data).unwrap());
        }
        assert_eq!(event.name, "ping");
    }
}

#[tokio::test]
async fn doors_are_closed_until_they_are_opened() {
    let server = TestServer::start().await;
    let bearer = format!("Bearer {}", token("/"));
    for auth in [&[][..], &[("Authorization", bearer.as_str())]] {
        for line in [
            "GET /smee/new",
            "HEAD /smee/new",
            "POST /smee/some-channel",
            "GET /smee/some-channel",
            "GET /smee/version",
            "GET /new",
            "GET /ws/some-channel",
            "POST /webhook/some-channel",
            "GET /traefik-config",
            "GET /internal/channels",
        ] {
            let reply = server.request(line, auth, b"").await;
            assert_eq!(reply.status, 404, "{line}");
        }
    }
    let reply = server.request("GET /version", &[], b"").await;
    assert_eq!(reply.header("x-gosmee-version"), None);
}

#[tokio::test]
async fn a_new_channel_is_a_url_of_this_server() {
    let server = open(|settings| {
        settings.rules.proxies.networks = Networks::parse(["127.0.0.1"]).unwrap();
    })
    .await;
    let reply = server.request("GET /smee/new", &[], b"").await;
    let near = format!("http://{}/smee/hbc_", server.address);
    assert!(reply.body.starts_with(&near), "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-cache, no-store"));
    assert_eq!(reply.header("location"), None);

    let proxied = [("X-Forwarded-Proto", "https")];
    let reply = server.request("HEAD /smee/new", &proxied, b"").await;
    let location = reply.header("location").unwrap();
    assert_eq!((reply.status, &*reply.body), (307, ""));
    let far = format!("https://{}/smee/hbc_", server.address);
    assert!(location.starts_with(&far), "{location}");

    let server = open(|settings| {
        settings.public_url = Some("https://hooks.example.com/".to_owned());
    })
    .await;
    let reply = server.request("GET /smee/new", &[], b"").await;
    let named = "https://hooks.example.com/smee/hbc_";
    assert!(reply.body.starts_with(named), "{reply:?}");
}

#[tokio::test]
async fn new_channels_take_a_token_where_that_is_wanted() {
    let server = open(|settings| settings.channels_token = true).await;
    for path in ["/smee/new", "/new"] {
        let line = format!("GET {path}");
        assert_eq!(server.request(&line, &[], b"").await.status, 401);
        let wrong = format!("Bearer {}", token("/pub/"));
        let wrong = [("Authorization", wrong.as_str())];
        assert_eq!(server.request(&line, &wrong, b"").await.status, 401);
        let query = format!("{line}?token={}", token(path));
        assert_eq!(server.request(&query, &[], b"").await.status, 200);
    }
    let url = format!("GET /smee/new?token={}", token("/smee/"));
    let url = server.request(&url, &[], b"").await.body;
    // Its id is all that a channel takes.
    let id = url.trim_end().rsplit('/').next().unwrap();
    assert_eq!(post(&server, id, &[], b"x").await, 200);
}

#[tokio::test]
async fn smees_client_gets_whatever_is_posted() {
    let server = open(|_| {}).await;
    let id = mint(&server).await;
    let mut stream = smee(&server, &id, "").await;
    let form = "application/x-www-form-urlencoded";
    for (kind, sent, body) in [
        (
            "application/json",
            &b"{\"a\": [1, 2.0]}"[..],
            json!({ "a": [1, 2.0] }),
        ),
        (
            form,
            b"text=hello+world&user=u",
            json!({ "text": "hello world", "user": "u" }),
        ),
        ("text/plain", "grüße".as_bytes(), json!("grüße")),
        ("application/octet-stream", b"\0\xff", json!("AP8=")),
    ] {
        let headers = [("Content-Type", kind), ("X-A", "1"), ("X-A", "2")];
        let path = format!("POST /smee/{id}?q=1&q=2&extra-metadata=none");
        let reply = server.request(&path, &headers, sent).await;
        assert_eq!((reply.status, &*reply.body), (200, ""));
        assert_eq!(reply.header("hookbot-cursor"), None);
        let (event, data) = message(&mut stream).await;
        assert_ne!(event, "");
        assert_eq!(data["body"], body);
        assert_eq!(data["content-type"], kind);
        assert_eq!(data["x-a"], "1, 2");
        assert_eq!(
            data["query"],
            json!({ "q": ["1", "2"], "extra-metadata": "none" })
        );
        assert!(data["timestamp"].as_u64().unwrap() > 1_700_000_000_000);
    }
}

#[tokio::test]
async fn gosmees_client_gets_the_bytes_that_were_posted() {
    let server = open(|_| {}).await;
    let id = mint(&server).await;
    let mut stream = gosmee(&server, &id, "").await;
    for sent in [&b"{\"a\" : 1}"[..], b"a=1&b=2", b"\0\xff", b""] {
        assert_eq!(
            post(&server, &id, &[("X-GitHub-Event", "push")], sent).await,
            200
        );
        let (event, data) = message(&mut stream).await;
        let (epoch, offset) = event.split_once('-').unwrap();
        assert!(epoch.parse::<u64>().is_ok() && offset.parse::<u64>().is_ok());
        assert_eq!(data["bodyB"], STANDARD.encode(sent));
        assert_eq!(data["x-github-event"], "push");
        assert!(data["timestamp"].as_str().unwrap().parse::<u64>().is_ok());
        assert!(data.get("body").is_none());
    }
    let wanted = format!("GET /smee/events/{id}?pubkey=abc");
    assert_eq!(server.request(&wanted, &[], b"").await.status, 400);
}

#[tokio::test]
async fn gosmees_client_finds_the_version_it_looks_for() {
    let server = open(|_| {}).await;
    for path in ["/version", "/smee/version"] {
        let reply = server.request(&format!("GET {path}"), &[], b"").await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("x-gosmee-version"), Some("0.32.0"));
        let body: Value = serde_json::from_str(&reply.body).unwrap();
        assert!(body["version"].is_string());
    }
}

#[tokio::test]
async fn no_header_of_a_sender_takes_the_place_of_the_body() {
    let server = open(|_| {}).await;
    let id = mint(&server).await;
    let (mut one, mut other) = (smee(&server, &id, "").await, gosmee(&server, &id, "").await);
    let names = [
        "Body",
        "body",
        "bodyB",
        "BODYB",
        "query",
        "Timestamp",
        "x-hookbot-body-encoding",
    ];
    for name in names {
        let headers = [("Content-Type", "application/json"), (name, "forged")];
        assert_eq!(post(&server, &id, &headers, b"\"true\"").await, 200);
        let (_, data) = message(&mut one).await;
        assert_eq!(
            (&data["body"], &data["query"]),
            (&json!("true"), &json!({}))
        );
        assert!(!data.to_string().contains("forged"), "{name}: {data}");
        let (_, data) = message(&mut other).await;
        assert_eq!(data["bodyB"], STANDARD.encode("\"true\""));
        assert!(!data.to_string().contains("forged"), "{name}: {data}");
    }
}

#[tokio::test]
async fn nothing_in_a_message_breaks_a_line_of_the_stream() {
    let server = open(|_| {}).await;
    let id = mint(&server).await;
    let mut stream = smee(&server, &id, "").await;
    let sly = "a\r\n\r\nid: x\ndata: y\n\n\u{85}\u{2028}";
    let json = format!("[ \n\r\n {} ]", json!(sly));
    for (kind, sent, body) in [
        ("text/plain", sly, json!(sly)),
        ("application/json", &json, json!([sly])),
    ] {
        let query = format!("POST /smee/{id}?%0a%0adata:=%0d");
        let headers = [("Content-Type", kind)];
        let reply = server.request(&query, &headers, sent.as_bytes()).await;
        assert_eq!(reply.status, 200);
        let (_, data) = message(&mut stream).await;
        assert_eq!(
            (&data["body"], &data["query"]),
            (&body, &json!({ "\n\ndata:": "\r" }))
        );
    }
}

#[tokio::test]
async fn the_same_messages_are_on_a_topic() {
    let server = open(|_| {}).await;
    let id = mint(&server).await;
    let path = format!("/unsafe/sub/smee/{id}");
    let refused = server.try_subscribe(&path, &[UNSAFE_IS_OK]).await;
    assert!(matches!(refused, Err(Error::Http(reply)) if reply.status() == 401));
    let bearer = format!("Bearer {}", token(&path));
    let refused = server
        .try_subscribe(&path, &[("Authorization", &bearer)])
        .await;
    assert!(matches!(refused, Err(Error::Http(reply)) if reply.status() == 400));

    let mut listener = server.subscribe(&path).await;
    let mut below = server.subscribe("/unsafe/sub/smee/").await;
    assert_eq!(post(&server, &id, &[], b"raw \0 bytes").await, 200);
    assert_eq!(listener.next().await, "raw \0 bytes");
    assert_eq!(
        below.next().await,
        format!("/unsafe/smee/{id}\0raw \0 bytes")
    );
    // Nobody gets there by another way.
    let pub_line = format!("POST /unsafe/pub/smee/{id}");
    let master = format!("Bearer {}", token("/"));
    let master = [("Authorization", master.as_str())];
    assert_eq!(server.request(&pub_line, &master, b"").await.status, 400);
}

#[tokio::test]
async fn whoever_has_a_token_for_it_sends_a_message_again() {
    let server = open(|_| {}).await;
    let id = mint(&server).await;
    let mut stream = gosmee(&server, &id, "").await;
    let path = format!("/smee/replay/{id}");
    let line = format!("POST {path}");
    assert_eq!(server.request(&line, &[], b"{}").await.status, 401);
    let other = format!("Bearer {}", token("/smee/replay/other"));
    let other = [("Authorization", other.as_str())];
    assert_eq!(server.request(&line, &other, b"{}").await.status, 401);
    for scope in [&*path, "/smee/"] {
        let bearer = format!("Bearer {}", token(scope));
        let headers = [("Authorization", &*bearer), ("X-GitHub-Event", "push")];
        let reply = server.request(&line, &headers, b"{\"again\":1}").await;
        assert_eq!((reply.status, &*reply.body), (202, "replayed\n"));
        assert!(reply.header("hookbot-cursor").is_some());
        let (_, data) = message(&mut stream).await;
        assert_eq!(data["bodyB"], STANDARD.encode("{\"again\":1}"));
        assert_eq!(data.get("authorization"), None);
    }
}

#[tokio::test]
async fn a_person_is_told_what_to_do() {
    let server = open(|_| {}).await;
    let id = mint(&server).await;
    let browser = [("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")];
    let reply = server
        .request(&format!("GET /smee/{id}"), &browser, b"")
        .await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
    let url = format!("http://{}/smee/{id}", server.address);
    assert!(reply.body.contains(&url), "{}", reply.body);
    let reply = server.request(&format!("HEAD /smee/{id}"), &[], b"").await;
    assert_eq!((reply.status, &*reply.body), (200, ""));
}

#[tokio::test]
async fn a_door_says_which_methods_it_has() {
    let server = open(|settings| settings.cors_origin = Some("https://a.example".to_owned())).await;
    let id = mint(&server).await;
    for (line, allowed) in [
        (format!("DELETE /smee/{id}"), "get, head, post"),
        (format!("PUT /smee/{id}"), "get, head, post"),
        (format!("POST /smee/events/{id}"), "get"),
        (
            format!("GET /smee/replay/{id}?token={}", token("/")),
            "post",
        ),
        ("POST /smee/new".to_owned(), "get, head"),
        ("POST /new".to_owned(), "get"),
        (format!("OPTIONS /smee/{id}"), "get, head, post"),
    ] {
        let reply = server.request(&line, &[], b"").await;
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, Some(allowed)),
            "{line}"
        );
    }
    // A browser asks whether a page elsewhere may listen.
    let origin = [("Origin", "https://a.example")];
    let reply = server
        .request(&format!("OPTIONS /smee/events/{id}"), &origin, b"")
        .await;
    assert_eq!(reply.status, 204);
}

#[tokio::test]
async fn an_idle_stream_is_pinged_as_each_client_expects() {
    let server = open(|settings| {
        settings.ping_interval = std::time::Duration::from_millis(20);
    })
    .await;
    let id = mint(&server).await;
    let mut stream = smee(&server, &id, "").await;
    let ping = stream.next().await.unwrap();
    assert_eq!((&*ping.name, &*ping.data), ("ping", "{}"));
    // It is a place to go on from.
    assert_eq!(post(&server, &id, &[], b"1").await, 200);
    drop(stream);
    let mut resumed = smee(&server, &id, &format!("Last-Event-ID: {}\r\n", ping.id)).await;
    assert_eq!(message(&mut resumed).await.1["body"], 1);

    let mut stream = gosmee(&server, &id, "").await;
    let mut comment = String::new();
    while comment.is_empty() {
        comment = stream.text().await.unwrap();
    }
    assert_eq!(comment, ": keepalive");
}

#[tokio::test]
async fn a_gap_is_told_and_everything_left_follows() {
    let server = open(|_| {}).await;
    let id = mint(&server).await;
    assert_eq!(post(&server, &id, &[], b"1").await, 200);
    // The place of another log, as a server with Redis would have had one.
    let elsewhere = "Last-Event-ID: 1700000000000-0\r\n";
    let mut stream = gosmee(&server, &id, elsewhere).await;
    let gap = stream.next().await.unwrap();
    let data: Value = serde_json::from_str(&gap.data).unwrap();
    assert_eq!((&*gap.name, &*gap.id), ("gosmee-gap", ""));
    assert_eq!(data["error"], "missed_history");
    assert_eq!(data["requested_id"], "1700000000000-0");
    assert!(data["oldest_id"].as_str().unwrap().contains('-'));
    assert_eq!(message(&mut stream).await.1["bodyB"], STANDARD.encode("1"));

    let mut stream = smee(&server, &id, elsewhere).await;
    assert_eq!(stream.next().await.unwrap().name, "gap");
    assert_eq!(message(&mut stream).await.1["body"], 1);

    let nonsense = [("Accept", "text/event-stream"), ("Last-Event-ID", "17")];
    for path in [format!("/smee/{id}"), format!("/smee/events/{id}")] {
        let reply = server.request(&format!("GET {path}"), &nonsense, b"").await;
        assert_eq!(reply.status, 400);
    }
}

/// Posts numbers while the server lives; those that were acknowledged.
async fn keep_posting(server: &TestServer, id: &str, next: &AtomicU64, most: u64) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for _ in 0..most {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if post(server, id, &[], number.to_string().as_bytes()).await == 200 {
            acknowledged.push(number);
        }
    }
    acknowledged
}

/// Opens a log as soon as the server before has let go of it.
async fn reopen(folder: &Path) -> DiskLog {
    let opening = async {
        loop {
            match DiskLog::open(folder, LogOptions::default()) {
                Ok(log) => return log,
                Err(OpenError::InUse { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(PATIENCE, opening).await.unwrap()
}

#[tokio::test]
async fn both_clients_go_on_over_restarts_without_hole_or_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let next = AtomicU64::new(0);
    let mut acknowledged = Vec::new();
    let (mut heard, mut places) = ([Vec::new(), Vec::new()], [String::new(), String::new()]);
    let mut id = None;
    for _ in 0..4 {
        let log = reopen(folder.path()).await;
        let mut server = TestServer::start_with(Options {
            log: Some(Arc::new(log)),
            ..Options::settings(|settings| settings.open_channels = true)
        })
        .await;
        if id.is_none() {
            id = Some(mint(&server).await);
        }
        let id = id.as_deref().unwrap();
        let place = |place: &String| format!("Last-Event-ID: {place}\r\n");
        let mut streams = [
            smee(&server, id, &place(&places[0])).await,
            gosmee(&server, id, &place(&places[1])).await,
        ];
        acknowledged.extend(keep_posting(&server, id, &next, 20).await);
        // Nobody has heard of some of these when they go on.
        for (which, stream) in streams.iter_mut().enumerate() {
            for _ in 0..15 + which {
                let (event, data) = message(stream).await;
                let body = match which {
                    0 => data["body"].clone(),
                    _ => {
                        let body = STANDARD.decode(data["bodyB"].as_str().unwrap()).unwrap();
                        serde_json::from_slice(&body).unwrap()
                    }
                };
                heard[which].push(body.as_u64().unwrap());
                places[which] = event;
            }
        }
        drop(streams);
        server.stop.cancel();
        (&mut server.running).await.unwrap();
    }
    for heard in heard {
        assert_eq!(heard[..], acknowledged[..heard.len()]);
        assert!(heard.len() >= 60);
    }
}

#[tokio::test]
async fn a_source_has_its_say_about_channels() {
    let server = open(|settings| {
        let secret = SourceSecret::new("env:X", b"the secret".to_vec()).unwrap();
        settings.rules.sources = Sources::new(vec![Source {
            scheme: Some(Provider::Github.into()),
            secrets: vec![secret],
            ..Source::new(Filter::parse("/unsafe/smee/").unwrap())
        }])
        .unwrap();
    })
    .await;
    let id = mint(&server).await;
    assert_eq!(post(&server, &id, &[], b"{}").await, 401);
    // printf '{}' | openssl dgst -sha256 -hmac 'the secret'
    let signature = "sha256=cbedf16e2101816b98420bc5dcd9fbafc24b04a7848317fa3cfc40cf09a1b93e";
    let headers = [("X-Hub-Signature-256", signature)];
    assert_eq!(post(&server, &id, &headers, b"{}").await, 200);
}

#[tokio::test]
async fn a_channel_lives_as_long_as_a_key_that_has_made_it() {
    let server = open(|_| {}).await;
    let id = mint(&server).await;
    let mut stream = smee(&server, &id, "").await;
    let new = || Key::new(b"the key that came next").unwrap();
    let update = |keys: Keys| {
        server.control.update(|rules| {
            rules.keys = keys;
            Ok::<_, std::convert::Infallible>(())
        })
    };
    update(Keys::new(new()).with_previous(vec![key()]))
        .await
        .unwrap();
    assert_eq!(post(&server, &id, &[], b"1").await, 200);
    assert_eq!(message(&mut stream).await.1["body"], 1);
    let newer = mint(&server).await;

    update(Keys::new(new())).await.unwrap();
    assert_eq!(stream.next().await, None, "the stream ends");
    assert_eq!(post(&server, &id, &[], b"2").await, 404);
    assert_eq!(post(&server, &newer, &[], b"2").await, 200);
}

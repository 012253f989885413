//! Who may call and who may answer, and what becomes of a call when nobody is there.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookbot::server::{Fallback, FixedReply, Source, Sources};
use hookbot_protocol::{Filter, Scope};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::callers::{AnyBody, answers, call, figure, request, send, target, text, whole};
use crate::support::{Options, RESERVED, Reply, TestServer, UNSAFE_IS_OK, key, token};

/// Answers with all that it has seen: line, headers and body.
async fn mirror(request: Request<Incoming>) -> Response<AnyBody> {
    let seen = format!("{:?}", request);
    let body = request.into_body().collect().await.unwrap().to_bytes();
    Response::new(whole(format!("{seen} {}", String::from_utf8_lossy(&body))))
}

/// Whether a token for `scope` covers a call to `path`, by the rule as it is written, over decoded
/// segments. What is the target's own counts as it is written.
fn covers(scope: &str, path: &str) -> bool {
    let parts = |path: &str| -> Vec<String> {
        let mut is_own = false;
        let mut parts = Vec::new();
        for (at, raw) in path.split('/').skip(1).enumerate() {
            let decoded = percent_encoding::percent_decode_str(raw).decode_utf8_lossy();
            let is_last_empty = raw.is_empty() && at + 1 == path.split('/').count() - 1;
            is_own |= (raw.is_empty() && !is_last_empty) || decoded.contains('/');
            parts.push(match is_own {
                true => format!("own {raw}"),
                false => decoded.into_owned(),
            });
        }
        parts
    };
    let (scope, path) = (parts(scope), parts(path));
    let is_prefix = scope
        .last()
        .is_some_and(|last| last.is_empty() || last == "own ");
    if is_prefix {
        let above = &scope[..scope.len() - 1];
        return path.len() > above.len() && path.starts_with(above);
    }
    path == scope
}

#[tokio::test]
async fn a_token_for_one_call_opens_no_other() {
    let server = TestServer::start().await;
    let _answers = answers(&server, "/answer/", target(mirror).await).await;
    let paths = [
        "/call/a",
        "/call/a/",
        "/call/a/b",
        "/call/a/%62",
        "/call/a/b/c",
        "/call/ab",
        "/call/b",
        "/call/a//b",
        "/call/a/b%2Fc",
        "/call/a/b%252Fc",
        "/call/%61/b",
        "/%63all/a/b",
    ];
    let scopes = [
        "/",
        "/call/",
        "/call/a",
        "/call/a/",
        "/call/a/b",
        "/call/a/b/",
        "/call/ab",
        "/call/b",
        "/call/a//b",
        "/call/a/b%2Fc",
        "/call/a/b%252Fc",
        "/call/a/b/c",
        "/pub/a",
        "/sub/a/",
        "/answer/a",
        "/a",
        "/a/",
        "/answer/",
        "/unsafe/",
        "/unsafe/call/",
    ];
    let (mut opened, mut refused) = (0, 0);
    for path in paths {
        for scope in scopes {
            let own = key().mint(&Scope::parse(scope).unwrap()).expose();
            let reply = server
                .request(&format!("GET {path}"), &[("Hookbot-Token", &own)], b"")
                .await;
            let plain = path.replace("%63all", "call");
            let expected = if covers(scope, &plain) { 200 } else { 401 };
            // After a hundred failures everybody is told to wait.
            let status = if reply.status == 429 {
                401
            } else {
                reply.status
            };
            assert_eq!(status, expected, "a token for {scope} on {path}");
            *(if expected == 200 {
                &mut opened
            } else {
                &mut refused
            }) += 1;
        }
    }
    assert!(opened > 40 && refused > 150, "{opened} and {refused}");
}

#[tokio::test]
async fn a_path_that_two_readers_could_take_for_different_ones_is_refused() {
    let server = TestServer::start().await;
    let _answers = answers(&server, "/answer/a", target(mirror).await).await;
    let bearer = format!("Bearer {}", token("/"));
    let status = async |path: &str| {
        let line = format!("GET {path}");
        let reply = server
            .request(&line, &[("Authorization", &bearer)], b"")
            .await;
        reply.status
    };
    for path in [
        "/call/a/../b",
        "/call/a/%2e%2e/b",
        "/call/a/x%2F..%2Fb",
        "/call/a/..%5Cb",
        "/call/a/.",
        "/call/a/%zz",
        "/call//a",
        "/call/",
        "/call/%2F",
        "/call/a%00/../b",
    ] {
        assert_eq!(status(path).await, 400, "{path}");
    }
    for reserved in RESERVED {
        assert_eq!(
            status(&format!("/call/{reserved}/x")).await,
            400,
            "{reserved}"
        );
        assert_eq!(status(&format!("/unsafe/call/{reserved}")).await, 400);
    }
    for path in [
        "/call/a//b",
        "/call/a/%2F",
        "/call/a/%00%ff",
        "/call/a/...",
        "/call/a/x.y",
    ] {
        assert_eq!(status(path).await, 200, "{path}");
    }
    assert_eq!(status("/call").await, 404);
}

#[tokio::test]
async fn no_token_of_ours_reaches_the_target() {
    let server = TestServer::start().await;
    let _answers = answers(&server, "/answer/a", target(mirror).await).await;
    let own = token("/call/a/x");
    let basic = format!("Basic {}", STANDARD.encode(format!("{own}:")));
    let bearer = format!("Bearer {own}");
    let referer = format!("https://h/call/a/x?token={own}");
    let mut seen = String::new();
    for (query, headers) in [
        ("", vec![("Authorization", &*basic)]),
        ("", vec![("Authorization", &bearer)]),
        ("", vec![("Hookbot-Token", &own), ("Referer", &referer)]),
        (
            "",
            vec![
                ("Hookbot-Token", &own),
                ("X-Original-Authorization", &basic),
            ],
        ),
        ("", vec![("Hookbot-Token", &own), ("Cookie", &own)]),
        (&format!("?a=1&token={own}&b=2"), vec![]),
        (
            &format!("?token={own}&next={own}"),
            vec![("Authorization", "Bearer theirs")],
        ),
    ] {
        let line = format!("POST /call/a/x{query}");
        let reply = server.request(&line, &headers, b"control").await;
        assert_eq!(reply.status, 200, "{line} {headers:?}");
        seen += &reply.body;
    }
    assert!(
        seen.contains("control") && seen.contains("Bearer theirs"),
        "{seen}"
    );
    assert!(seen.contains("a=1&b=2") && seen.contains("***"));
    for canary in [&own, &own[1..], &STANDARD.encode(format!("{own}:"))] {
        assert!(!seen.contains(canary), "{seen}");
    }
}

#[tokio::test]
async fn the_safe_and_the_unsafe_never_answer_for_each_other() {
    let server = TestServer::start().await;
    let safe = answers(&server, "/answer/", target(mirror).await).await;
    let stranger = async || server.request("POST /unsafe/call/t", &[], b"").await;
    assert_eq!(stranger().await.status, 502);
    let _open = answers(&server, "/unsafe/answer/t", target(mirror).await).await;
    assert_eq!(stranger().await.status, 200);
    drop(safe);
    let answer = call(&server, "GET", "/call/t", "").await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);

    // Whoever answers strangers has a token and says that it knows.
    let protocol = ("Sec-WebSocket-Protocol", hookbot_tunnel::TUNNEL_V1);
    let bearer = format!("Bearer {}", token("/unsafe/answer/t"));
    let auth = ("Authorization", &*bearer);
    let status = async |path: &str, headers: &[(&'static str, &str)]| match server
        .try_subscribe(path, headers)
        .await
    {
        Ok(_) => 101,
        Err(tokio_tungstenite::tungstenite::Error::Http(reply)) => reply.status().as_u16(),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(status("/unsafe/answer/t", &[protocol]).await, 401);
    assert_eq!(status("/unsafe/answer/t", &[protocol, auth]).await, 400);
    let all = [protocol, auth, UNSAFE_IS_OK];
    assert_eq!(status("/unsafe/answer/t", &all).await, 101);
    assert_eq!(status("/unsafe/answer/t", &[auth, UNSAFE_IS_OK]).await, 400);
    assert_eq!(status("/answer/t", &[protocol, auth]).await, 401);
}

#[tokio::test]
async fn only_a_websocket_answers() {
    let server = TestServer::start().await;
    let bearer = format!("Bearer {}", token("/"));
    let ask = async |line: &str| {
        server
            .request(line, &[("Authorization", &bearer)], b"")
            .await
    };
    assert_eq!(ask("GET /answer/t").await.status, 426);
    let reply: Reply = ask("POST /answer/t").await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("get")));
}

#[tokio::test]
async fn strangers_who_call_have_a_rate_of_their_own() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.unsafe_rate = std::num::NonZeroU32::MIN;
    }))
    .await;
    let _open = answers(&server, "/unsafe/answer/t", target(mirror).await).await;
    let mut statuses = Vec::new();
    for _ in 0..10 {
        let reply = server.request("POST /unsafe/call/t", &[], b"").await;
        statuses.push(reply.status);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    let bearer = format!("Bearer {}", token("/unsafe/call/"));
    let reply = server
        .request("POST /unsafe/call/t", &[("Authorization", &bearer)], b"")
        .await;
    assert_eq!(reply.status, 200);
}

/// The messages on a topic: query and body of each.
async fn published(server: &TestServer, topic: &str) -> Vec<(String, String)> {
    let limit = hookbot_log::Limit {
        messages: 100,
        bytes: 1 << 20,
    };
    let filter = Filter::parse(topic).unwrap();
    let log = server.broker.log();
    let page = log.read(filter, hookbot_protocol::Offset(0), limit).await;
    let messages = page.unwrap().messages.into_iter();
    messages
        .map(|message| {
            let own = &message.publication;
            let body = String::from_utf8(own.body.to_vec()).unwrap();
            (own.query.to_string(), body)
        })
        .collect()
}

#[tokio::test]
async fn a_call_that_nobody_answers_is_published_if_it_says_so_and_may() {
    let server = TestServer::start().await;
    let both = [token("/call/t"), token("/pub/t")];
    let post = async |line: &str, own: &[&String], body: &[u8]| {
        let bearer = own.first().map(|own| format!("Bearer {own}"));
        let mut headers = Vec::new();
        headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
        headers.extend(own.get(1).map(|own| ("Hookbot-Token", own.as_str())));
        server.request(line, &headers, body).await
    };
    let [to_call, to_publish] = &both;
    let path = "POST /call/t?fallback=publish&x=1";
    let reply = post(path, &[to_call, to_publish], b"one").await;
    assert_eq!((reply.status, reply.body.as_str()), (202, "OK\n"));
    assert!(reply.header("hookbot-cursor").is_some());
    // The token has to grant both.
    assert_eq!(post(path, &[to_call], b"two").await.status, 401);
    assert_eq!(post(path, &[to_publish], b"two").await.status, 401);
    assert_eq!(
        post("POST /call/t", &[to_call, to_publish], b"two")
            .await
            .status,
        502
    );
    assert_eq!(
        post("GET /call/t?fallback=publish", &[to_call, to_publish], b"")
            .await
            .status,
        502
    );
    assert_eq!(
        post("POST /call/t?fallback=drop", &[to_call], b"two")
            .await
            .status,
        400
    );
    let kept = published(&server, "t").await;
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].1, "one");
    // A path that is no topic can't be published.
    let master = token("/");
    assert_eq!(
        post("POST /call/t//a?fallback=publish", &[&master], b"")
            .await
            .status,
        502
    );

    let reply = post("POST /unsafe/call/t?fallback=publish", &[], b"anybody's").await;
    assert_eq!((reply.status, reply.header("hookbot-cursor")), (202, None));
    assert_eq!(published(&server, "/unsafe/t").await[0].1, "anybody's");

    // With somebody there it is a call like any other, and does not say so any more.
    let _answers = answers(&server, "/answer/t", target(mirror).await).await;
    let reply = post(path, &[to_call], b"two").await;
    assert!(
        reply.status == 200 && reply.body.contains("?x=1"),
        "{}",
        reply.body
    );
    assert!(!reply.body.contains("fallback"), "{}", reply.body);
    assert_eq!(published(&server, "t").await.len(), 1);
}

#[tokio::test]
async fn a_source_may_have_calls_published_that_nobody_answers() {
    let server = TestServer::start_with(Options::settings(|settings| {
        let source = |topic: &str| Source {
            fallback: Fallback::Publish,
            ..Source::new(Filter::parse(topic).unwrap())
        };
        let fixed = Source {
            reply: Some(FixedReply {
                status: StatusCode::OK,
                body: "{\"taken\":true}".into(),
            }),
            ..source("b/")
        };
        settings.rules.sources = Sources::new(vec![source("a/"), fixed]).unwrap();
    }))
    .await;
    let own = token("/call/");
    let status = async |path: &str| {
        let line = format!("POST {path}");
        let reply = server
            .request(&line, &[("Hookbot-Token", &own)], b"x")
            .await;
        (reply.status, reply.body)
    };
    assert_eq!(status("/call/a/x").await, (202, "OK\n".to_owned()));
    assert_eq!(
        status("/call/b/x").await,
        (200, "{\"taken\":true}".to_owned())
    );
    assert_eq!(status("/call/c").await.0, 502);
    assert_eq!(published(&server, "a/").await.len(), 1);
    assert_eq!(
        figure(&server, "hookbot_calls_total{outcome=\"published\"}").await,
        2
    );
}

#[tokio::test]
async fn calls_with_a_host_of_their_own_are_served_there_alone() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.calls.host = Some("Calls.example.com".to_owned());
    }))
    .await;
    let cookie = target(async |_: Request<Incoming>| {
        let mut answer = Response::new(whole("hello"));
        let cookie = "a=1; Path=/call/t".parse().unwrap();
        answer.headers_mut().insert("set-cookie", cookie);
        answer
    });
    let _answers = answers(&server, "/answer/t", cookie.await).await;
    let at = async |host: &str, path: &str| {
        let mut asked = request(&server, "GET", path).body(whole("")).unwrap();
        asked.headers_mut().insert("host", host.parse().unwrap());
        send(&server, asked).await
    };
    for host in ["calls.example.com", "calls.example.com:8080"] {
        let answer = at(host, "/call/t").await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(!answer.headers().contains_key("content-security-policy"));
        assert!(!answer.headers().contains_key("x-content-type-options"));
        assert_eq!(answer.headers()["set-cookie"], "a=1; Path=/call/t");
        assert_eq!(text(answer.into_body()).await, "hello");
    }
    for (host, path) in [
        ("example.com", "/call/t"),
        ("xcalls.example.com", "/call/t"),
        ("calls.example.com", "/status"),
        ("calls.example.com", "/pub/t"),
        ("calls.example.com", "/answer/t"),
    ] {
        assert_eq!(
            at(host, path).await.status(),
            StatusCode::NOT_FOUND,
            "{host} {path}"
        );
    }
    assert_eq!(at("example.com", "/status").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_page_elsewhere_cannot_call_with_the_browsers_password() {
    let server = TestServer::start().await;
    let _answers = answers(&server, "/answer/t", target(mirror).await).await;
    let basic = format!(
        "Basic {}",
        STANDARD.encode(format!("{}:", token("/call/t")))
    );
    for (origin, status) in [("https://evil.example", 403), ("null", 403)] {
        let headers = [("Authorization", &*basic), ("Origin", origin)];
        let reply = server.request("POST /call/t", &headers, b"").await;
        assert_eq!(reply.status, status, "{origin}");
    }
}

#[tokio::test]
async fn the_address_of_a_caller_is_what_a_trusted_proxy_says() {
    let server = TestServer::start_with(Options::settings(|settings| {
        let networks = hookbot::server::Networks::parse(["127.0.0.0/8"]).unwrap();
        settings.rules.proxies.networks = networks;
        settings.public_url = Some("https://hooks.example.com".to_owned());
    }))
    .await;
    let mut answers = answers(&server, "/answer/t", target(mirror).await).await;
    assert_eq!(
        answers.connected().await,
        "https://hooks.example.com/call/t"
    );
    let own = token("/");
    let headers = [
        ("Hookbot-Token", &*own),
        ("X-Forwarded-For", "6.6.6.6, 2001:db8::1"),
    ];
    let reply = server.request("GET /call/t", &headers, b"").await;
    assert!(
        reply.body.contains("\"x-forwarded-for\": \"2001:db8::1\""),
        "{}",
        reply.body
    );
    assert!(
        reply.body.contains("for=\\\"[2001:db8::1]\\\";proto=https"),
        "{}",
        reply.body
    );
    assert!(!reply.body.contains("6.6.6.6"));
}

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookbot::server::Settings;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::channels::open;
use crate::support::{Reply, Socket, TestServer, read_to_end, token};

/// A new channel for calls.
pub(crate) async fn mint(server: &TestServer) -> String {
    let reply = server.request("GET /new", &[], b"").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let body: Value = serde_json::from_str(&reply.body).unwrap();
    body["channel_id"].as_str().unwrap().to_owned()
}

/// Its client, connected.
struct Client(Socket);

impl Client {
    async fn connect(server: &TestServer, id: &str) -> Self {
        let socket = server.try_subscribe(&format!("/ws/{id}"), &[]).await;
        Self(socket.unwrap())
    }

    /// The next request's id, and its text as it is on the wire.
    async fn request(&mut self) -> (String, String) {
        loop {
            match self.0.receive().await.unwrap() {
                Message::Text(text) => {
                    let packet: Value = serde_json::from_str(&text).unwrap();
                    let payload = STANDARD.decode(packet["payload"].as_str().unwrap());
                    let text = String::from_utf8_lossy(&payload.unwrap()).into_owned();
                    return (packet["req_id"].as_str().unwrap().to_owned(), text);
                }
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn answer(&mut self, id: &str, response: impl AsRef<[u8]>) {
        let packet = json!({ "req_id": id, "payload": STANDARD.encode(response) });
        self.0.send(Message::text(packet.to_string())).await;
    }
}

/// Calls in a task of its own.
fn call(server: &TestServer, line: String, body: &'static [u8]) -> JoinHandle<Reply> {
    call_with(server, line, "", body)
}

fn call_with(
    server: &TestServer,
    line: String,
    headers: &str,
    body: &'static [u8],
) -> JoinHandle<Reply> {
    let address = server.address;
    let head = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    tokio::spawn(async move {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let text = read_to_end(&mut stream).await;
        let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
        Reply::parse(text.strip_prefix(go_on).unwrap_or(&text))
    })
}

#[tokio::test]
async fn a_request_goes_to_the_client_and_its_answer_comes_back() {
    let server = open(|_| {}).await;
    let id = mint(&server).await;
    let mut client = Client::connect(&server, &id).await;
    let line = format!("PATCH /webhook/{id}/a/%C3%BC?x=1&y=%20");
    let headers = "X-A: 1\r\nX-B: b\r\nX-A: 2\r\nTE: gzip\r\nExpect: 100-continue\r\n";
    let calling = call_with(&server, line, headers, b"the \xff body");
    let (number, request) = client.request().await;
    let expected = format!(
        "PATCH /webhook/{id}/a/%C3%BC?x=1&y=%20 HTTP/1.1\r\nhost: {}\r\nx-a: 1\r\nx-a: 2\r\n\
         x-b: b\r\ncontent-length: 10\r\n\r\nthe \u{fffd} body",
        server.address
    );
    assert_eq!(request, expected);
    let response =
        "HTTP/1.1 418 I'm a teapot\r\nX-C: 1\r\nX-C: 2\r\nContent-Length: 5\r\n\r\nhello";
    client.answer(&number, response).await;
    let reply = calling.await.unwrap();
    assert_eq!((reply.status, &*reply.body), (418, "hello"));
    assert_eq!(reply.head.matches("x-c: ").count(), 2);
    assert_eq!(reply.header("content-length"), Some("5"));
}

#[tokio::test]
async fn nothing_is_added_to_a_request_without_a_body() {
    let server = open(|_| {}).await;
    let id = mint(&server).await;
    let mut client = Client::connect(&server, &id).await;
    let calling = call(&server, format!("GET /webhook/{id}"), b"");
    let (number, request) = client.request().await;
    let address = server.address;
    assert_eq!(
        request,
        format!("GET /webhook/{id} HTTP/1.1\r\nhost: {address}\r\n\r\n")
    );
    client
        .answer(&number, "HTTP/1.1 204 No Content\r\n\r\n")
        .await;
    assert_eq!(calling.await.unwrap().status, 204);
}

#[tokio::test]
async fn many_calls_are_under_way_at_once_and_answered_in_any_order() {
    let server = open(|settings| {
        settings.rules.channel_rate = "1000/s".parse().unwrap();
    })
    .await;
    let id = mint(&server).await;
    let mut client = Client::connect(&server, &id).await;
    let calls: Vec<_> = (0..200)
        .map(|number| call(&server, format!("POST /webhook/{id}/{number}"), b"x"))
        .collect();
    let mut requests = Vec::new();
    for _ in 0..200 {
        let (number, request) = client.request().await;
        let path = request.split(' ').nth(1).unwrap();
        let own = path.rsplit('/').next().unwrap().to_owned();
        requests.push((number, own));
    }
    while !requests.is_empty() {
        let (number, own) = requests.swap_remove(fastrand::usize(..requests.len()));
        let response = format!("HTTP/1.1 200 OK\r\n\r\nanswer to {own}");
        client.answer(&number, response).await;
    }
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().body, format!("answer to {number}"));
    }
}

#[tokio::test]
async fn a_channel_has_one_client_or_none() {
    let server = open(|_| {}).await;
    let id = mint(&server).await;
    let line = format!("POST /webhook/{id}");
    let reply = server.request(&line, &[], b"x").await;
    assert_eq!(
        (reply.status, &*reply.body),
        (404, "404 Not Found: Client not connected\n")
    );

    let client = Client::connect(&server, &id).await;
    let path = format!("/ws/{id}");
    let second = server.try_subscribe(&path, &[]).await;
    assert!(matches!(second, Err(Error::Http(reply)) if reply.status() == 409));
    let reply = server.request(&format!("GET {path}"), &[], b"").await;
    assert_eq!(reply.status, 426);

    drop(client);
    // It is free again as soon as the server has noticed.
    loop {
        match server.try_subscribe(&path, &[]).await {
            Ok(_) => return,
            Err(Error::Http(reply)) if reply.status() == 409 => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn who_does_not_answer_in_time_holds_up_nobody() {
    let server = open(|settings| settings.answer_timeout = Duration::from_secs(1)).await;
    let id = mint(&server).await;
    let mut client = Client::connect(&server, &id).await;
    let mut late = Vec::new();
    for _ in 0..3 {
        let calling = call(&server, format!("POST /webhook/{id}"), b"x");
        late.push(client.request().await.0);
        assert_eq!(calling.await.unwrap().status, 504);
    }
    // Too late, and what was never asked.
    for number in late.iter().map(String::as_str).chain(["17", "x", "-1"]) {
        client.answer(number, "HTTP/1.1 200 OK\r\n\r\nlate").await;
    }
    client.0.send(Message::text("no JSON")).await;
    client
        .0
        .send(Message::text("{\"req_id\":\"1\",\"payload\":null}"))
        .await;
    let calling = call(&server, format!("POST /webhook/{id}"), b"x");
    let (number, _) = client.request().await;
    client
        .answer(&number, "HTTP/1.1 200 OK\r\n\r\nin time")
        .await;
    assert_eq!(calling.await.unwrap().body, "in time");
}

#[tokio::test]
async fn what_is_no_answer_is_a_bad_gateway() {
    let server = open(|settings| settings.max_body = 1_000).await;
    let id = mint(&server).await;
    let mut client = Client::connect(&server, &id).await;
    let large = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1_001));
    for response in [
        "",
        "hello",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nshort"[..].trim_end_matches("ort"),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx",
        &large,
    ] {
        let calling = call(&server, format!("POST /webhook/{id}"), b"x");
        let (number, _) = client.request().await;
        client.answer(&number, response).await;
        assert_eq!(calling.await.unwrap().status, 502, "{response}");
    }
    // Not even base64.
    let calling = call(&server, format!("POST /webhook/{id}"), b"x");
    let (number, _) = client.request().await;
    let packet = json!({ "req_id": number, "payload": "***" }).to_string();
    client.0.send(Message::text(packet)).await;
    assert_eq!(calling.await.unwrap().status, 502);
    // It is still there.
    let calling = call(&server, format!("POST /webhook/{id}"), b"x");
    let (number, _) = client.request().await;
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nin\r\n3\r\n it\r\n0\r\n\r\n";
    client.answer(&number, chunked).await;
    let reply = calling.await.unwrap();
    assert_eq!((reply.status, &*reply.body), (200, "in it"));
    assert_eq!(reply.header("transfer-encoding"), None);
    // Who leaves, leaves its callers.
    let calling = call(&server, format!("POST /webhook/{id}"), b"x");
    client.request().await;
    drop(client);
    assert_eq!(calling.await.unwrap().status, 502);
}

#[tokio::test]
async fn an_answer_to_head_has_no_body() {
    let server = open(|_| {}).await;
    let id = mint(&server).await;
    let mut client = Client::connect(&server, &id).await;
    let calling = call(&server, format!("HEAD /webhook/{id}"), b"");
    let (number, _) = client.request().await;
    client
        .answer(&number, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
        .await;
    let reply = calling.await.unwrap();
    assert_eq!(
        (reply.status, reply.header("content-length")),
        (200, Some("99"))
    );
}

#[tokio::test]
async fn an_answer_changes_nothing_about_this_host() {
    let server = open(|_| {}).await;
    let id = mint(&server).await;
    let mut client = Client::connect(&server, &id).await;
    let calling = call(&server, format!("GET /webhook/{id}"), b"");
    let (number, _) = client.request().await;
    let response = "HTTP/1.1 401 Unauthorized\r\nContent-Type: text/html\r\nSet-Cookie: a=b\r\n\
        Strict-Transport-Security: max-age=1\r\nClear-Site-Data: *\r\nAlt-Svc: h3\r\n\
        WWW-Authenticate: Basic realm=\"hookbot\"\r\nContent-Security-Policy: default-src *\r\n\
        Connection: X-Hop, close\r\nX-Hop: 1\r\nKeep-Alive: x\r\nX-Kept: 1\r\n\r\n<script></script>";
    client.answer(&number, response).await;
    let reply = calling.await.unwrap();
    assert_eq!(reply.header("x-kept"), Some("1"));
    assert_eq!(reply.header("content-security-policy"), Some("sandbox"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    for name in [
        "set-cookie",
        "strict-transport-security",
        "clear-site-data",
        "alt-svc",
        "www-authenticate",
        "x-hop",
        "keep-alive",
    ] {
        assert_eq!(reply.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_client_gets_no_token_of_ours() {
    let server = open(|_| {}).await;
    let id = mint(&server).await;
    let mut client = Client::connect(&server, &id).await;
    let (master, other) = (token("/"), token("/sub/other"));
    let basic = STANDARD.encode(format!("{other}:"));
    for (query, headers) in [
        (format!("?a=1&token={master}"), String::new()),
        (
            "?a=1".to_owned(),
            format!("Authorization: Bearer {master}\r\n"),
        ),
        // Good for something else: a browser sends it by itself.
        (
            "?a=1".to_owned(),
            format!("Authorization: Basic {basic}\r\n"),
        ),
        (
            "?a=1".to_owned(),
            format!("Hookbot-Token: {other}\r\nCookie: {other}\r\n"),
        ),
    ] {
        let calling = call_with(&server, format!("GET /webhook/{id}{query}"), &headers, b"");
        let (number, request) = client.request().await;
        assert!(
            request.starts_with(&format!("GET /webhook/{id}?a=1 HTTP/1.1\r\n")),
            "{request}"
        );
        for secret in [&master, &other, &basic] {
            assert!(!request.contains(secret.as_str()), "{request}");
        }
        client.answer(&number, "HTTP/1.1 200 OK\r\n\r\n").await;
        assert_eq!(calling.await.unwrap().status, 200);
    }
    // The sender's own business passes.
    let headers = "Authorization: Basic dXNlcjpwYXNz\r\n";
    let calling = call_with(&server, format!("GET /webhook/{id}"), headers, b"");
    let (number, request) = client.request().await;
    assert!(
        request.contains("authorization: Basic dXNlcjpwYXNz\r\n"),
        "{request}"
    );
    client.answer(&number, "HTTP/1.1 200 OK\r\n\r\n").await;
    calling.await.unwrap();
}

#[tokio::test]
async fn the_lists_of_channels_are_for_those_with_a_token() {
    let server = open(|settings| {
        settings.public_url = Some("https://hooks.example.com".to_owned());
    })
    .await;
    let paths = ["/traefik-config", "/internal/channels"];
    for path in paths {
        let line = format!("GET {path}");
        assert_eq!(server.request(&line, &[], b"").await.status, 401);
        let wrong = format!("{line}?token={}", token("/metrics"));
        assert_eq!(server.request(&wrong, &[], b"").await.status, 401);
    }
    let read = async |path: &str| -> Value {
        let line = format!("GET {path}?token={}", token(path));
        let reply = server.request(&line, &[], b"").await;
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        serde_json::from_str(&reply.body).unwrap()
    };
    // A channel without a client is none that anything is known of.
    let id = mint(&server).await;
    assert_eq!(read("/traefik-config").await, json!({}));
    let _client = Client::connect(&server, &id).await;
    // Where this server is, which is not where the world sees all of them.
    let url = format!("http://{}", server.address);
    assert_eq!(
        read("/internal/channels").await,
        json!({ "ws_channels": [id], "webhook_channels": [id], "server_url": url })
    );
    let service = format!("service-{id}");
    assert_eq!(
        read("/traefik-config").await,
        json!({ "http": {
            "routers": {
                format!("ws-{id}"): { "rule": format!("PathPrefix(`/ws/{id}`)"), "service": service },
                format!("webhook-{id}"):
                    { "rule": format!("PathPrefix(`/webhook/{id}`)"), "service": service },
            },
            "services": { &service: { "loadBalancer": { "servers": [{ "url": url }] } } },
        } })
    );
}

#[tokio::test]
async fn a_client_that_is_silent_is_dropped_and_one_that_answers_pings_is_not() {
    let patient = |settings: &mut Settings| {
        settings.ping_interval = Duration::from_millis(20);
        settings.write_timeout = Duration::from_secs(1);
    };
    let server = open(patient).await;
    let (silent, lively) = (mint(&server).await, mint(&server).await);
    let _silent = Client::connect(&server, &silent).await;
    let mut client = Client::connect(&server, &lively).await;
    let answering = tokio::spawn(async move {
        let (number, _) = client.request().await;
        client.answer(&number, "HTTP/1.1 200 OK\r\n\r\n").await;
        client
    });
    // Answered with 404 once the silent one is gone, which takes longer than the patience.
    let line = format!("POST /webhook/{silent}");
    while server.request(&line, &[], b"").await.status != 404 {}
    let reply = server
        .request(&format!("POST /webhook/{lively}"), &[], b"")
        .await;
    assert_eq!(reply.status, 200);
    answering.await.unwrap();
}

#[tokio::test]
async fn a_client_is_told_that_the_server_stops_after_its_last_answer() {
    let server = open(|_| {}).await;
    let id = mint(&server).await;
    let mut client = Client::connect(&server, &id).await;
    let calling = call(&server, format!("POST /webhook/{id}"), b"x");
    let (number, _) = client.request().await;
    server.stop.cancel();
    client
        .answer(&number, "HTTP/1.1 200 OK\r\n\r\nthe last")
        .await;
    assert_eq!(calling.await.unwrap().body, "the last");
    assert_eq!(client.0.close_code().await, 1001);
}

#[tokio::test]
async fn calls_with_one_client_and_their_bytes_are_bounded() {
    let server = open(|settings| {
        settings.max_in_flight = 4 << 20;
        settings.rules.channel_rate = "10000/s".parse().unwrap();
    })
    .await;
    let id = mint(&server).await;
    let mut client = Client::connect(&server, &id).await;
    let calls: Vec<_> = (0..300)
        .map(|_| call(&server, format!("POST /webhook/{id}"), b"x"))
        .collect();
    let mut refused = 0;
    let mut answered = 0;
    // Those that are let in are answered only once all others have been refused.
    let mut waiting = Vec::new();
    while waiting.len() < 256 {
        waiting.push(client.request().await.0);
    }
    let mut calls: Vec<_> = calls.into_iter().collect();
    while calls.len() > 256 {
        for at in (0..calls.len()).rev() {
            if calls[at].is_finished() {
                let reply = calls.swap_remove(at).await.unwrap();
                assert_eq!(reply.status, 503);
                assert!(reply.header("retry-after").is_some());
                refused += 1;
            }
        }
        tokio::task::yield_now().await;
    }
    for number in waiting {
        client.answer(&number, "HTTP/1.1 200 OK\r\n\r\n").await;
    }
    for call in calls {
        assert_eq!(call.await.unwrap().status, 200);
        answered += 1;
    }
    assert_eq!((answered, refused), (256, 44));

    // Strangers have a quarter of the bytes; an answer that takes more closes the channel.
    let calling = call(&server, format!("POST /webhook/{id}"), b"x");
    let (number, _) = client.request().await;
    let large = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(2 << 20));
    let packet = json!({ "req_id": number, "payload": STANDARD.encode(large) }).to_string();
    let (mut sending, _) = futures_util::StreamExt::split(client.0.0);
    let _ = futures_util::SinkExt::send(&mut sending, Message::text(packet)).await;
    assert_eq!(calling.await.unwrap().status, 502);
}

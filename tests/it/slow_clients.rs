use std::time::{Duration, Instant};

use hookbot_protocol::{Publication, Topic};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Options, Reply, TestServer, read_to_end, token};

const SHORT: Duration = Duration::from_millis(300);

/// Sends a byte now and then, until the server has had enough.
async fn drip(stream: &mut TcpStream) {
    let mut pace = tokio::time::interval(SHORT / 20);
    while stream.write_all(b"x").await.is_ok() {
        pace.tick().await;
    }
}

/// What comes back while bytes drip in, and after how long the server closed.
async fn answer_to_a_drip(server: &TestServer, start: String) -> (String, Duration) {
    let mut stream = server.connect().await;
    let began = Instant::now();
    stream.write_all(start.as_bytes()).await.unwrap();
    let std = stream.into_std().unwrap();
    let mut reader = TcpStream::from_std(std.try_clone().unwrap()).unwrap();
    let mut writer = TcpStream::from_std(std).unwrap();
    let reply = tokio::select! {
        reply = read_to_end(&mut reader) => reply,
        () = async { drip(&mut writer).await; std::future::pending().await } => unreachable!(),
    };
    (reply, began.elapsed())
}

#[tokio::test]
async fn a_head_has_a_deadline_that_more_bytes_do_not_move() {
    let server =
        TestServer::start_with(Options::settings(|settings| settings.patience.head = SHORT)).await;
    for start in ["G", "GET /status HTTP/1.1\r\nHost: h\r\nX-A: "] {
        let (reply, after) = answer_to_a_drip(&server, start.to_owned()).await;
        assert_eq!(Reply::parse(&reply).status, 408);
        assert!(after >= SHORT, "{after:?}");
    }
}

#[tokio::test]
async fn a_second_head_has_a_deadline_too() {
    let server =
        TestServer::start_with(Options::settings(|settings| settings.patience.head = SHORT)).await;
    let first = "GET /status HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut stream = server.connect().await;
    stream.write_all(first.as_bytes()).await.unwrap();
    stream.readable().await.unwrap();
    stream.write_all(b"GET /status HT").await.unwrap();
    let replies = read_to_end(&mut stream).await;
    assert!(
        replies.contains("200 OK") && replies.contains("408 Request Timeout"),
        "{replies}"
    );
}

#[tokio::test]
async fn a_request_that_was_sent_ahead_is_judged_by_itself_alone() {
    let server =
        TestServer::start_with(Options::settings(|settings| settings.patience.head = SHORT)).await;
    let auth = format!("Host: h\r\nAuthorization: Bearer {}\r\n", token("/"));
    let ahead = format!(
        "GET /status HTTP/1.1\r\nHost: h\r\n\r\nPOST /pub/t HTTP/1.1\r\n{auth}Content-Length: 8\r\n\r\n"
    );
    let mut stream = server.connect().await;
    stream.write_all(ahead.as_bytes()).await.unwrap();
    // Longer than a head may take; this is a body, and no line of it is a head's.
    tokio::time::sleep(SHORT * 2).await;
    let last = format!("GET /status HTTP/1.1\r\n{auth}Connection: close\r\n\r\n");
    stream
        .write_all(format!("a\n\nbcdef{last}").as_bytes())
        .await
        .unwrap();
    let replies = read_to_end(&mut stream).await;
    assert_eq!(replies.matches("HTTP/1.1 200 OK").count(), 3, "{replies}");
    assert_eq!(replies.matches("HTTP/1.1").count(), 3, "{replies}");
}

#[tokio::test]
async fn an_event_subscriber_that_neither_sends_nor_reads_is_let_go() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.write_timeout = SHORT;
        settings.ping_interval = SHORT / 3;
        // So that another connection is served only once this one is gone.
        settings.max_connections = 1;
    }))
    .await;
    let bearer = format!("Bearer {}", token("/sub/t"));
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Sec-WebSocket-Protocol", "hookbot.events.v1"),
    ];
    // It is never polled, so that it answers no ping.
    let silent = server.try_subscribe("/sub/t", &headers).await.unwrap();
    server.until_there_is_a_place().await;
    drop(silent);
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_in_the_end() {
    let server =
        TestServer::start_with(Options::settings(|settings| settings.patience.idle = SHORT)).await;
    let began = Instant::now();
    assert_eq!(read_to_end(&mut server.connect().await).await, "");
    assert!(began.elapsed() >= SHORT);
    let kept = server.raw("GET /status HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(Reply::parse(&kept).status, 200);
}

#[tokio::test]
async fn a_body_has_a_deadline_that_more_bytes_do_not_move() {
    let server =
        TestServer::start_with(Options::settings(|settings| settings.body_timeout = SHORT)).await;
    let start = format!(
        "POST /pub/t HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nContent-Length: 9999\r\n\r\n",
        token("/pub/t")
    );
    let (reply, after) = answer_to_a_drip(&server, start).await;
    assert_eq!(Reply::parse(&reply).status, 408);
    assert!(after >= SHORT, "{after:?}");
}

#[tokio::test]
async fn a_body_that_ends_early_is_not_published() {
    let server = TestServer::start().await;
    let mut socket = server.subscribe("/sub/t").await;
    let mut stream = server.connect().await;
    let head = format!(
        "POST /pub/t HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nContent-Length: 10\r\n\r\nhalf",
        token("/pub/t")
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let reply = read_to_end(&mut stream).await;
    assert!(!reply.contains("200 OK"), "{reply}");
    server.publish("t", "whole").await;
    assert_eq!(socket.next().await, "whole");
}

#[tokio::test]
async fn a_subscriber_that_neither_sends_nor_reads_is_let_go() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.write_timeout = SHORT;
        // So that another connection is served only once this one is gone.
        settings.max_connections = 1;
    }))
    .await;
    let stalled = server.subscribe("/sub/t").await;
    let body = "x".repeat(1 << 20);
    for _ in 0..32 {
        let publication = Publication::new(Topic::parse("t").unwrap(), body.clone());
        server.broker.publish(publication).await.unwrap();
    }
    server.until_there_is_a_place().await;
    drop(stalled);
}

#[tokio::test]
async fn a_subscriber_that_only_answers_pings_stays() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.ping_interval = SHORT / 10
    }))
    .await;
    let mut socket = server.subscribe("/sub/t").await;
    for _ in 0..10 {
        assert!(socket.receive().await.unwrap().is_ping());
    }
    server.publish("t", "hello").await;
    assert_eq!(socket.next().await, "hello");
}

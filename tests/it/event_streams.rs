use std::time::Duration;

use crate::stream::Stream;
use crate::support::{Options, PATIENCE, TestServer, token};
use hookbot_protocol::{Publication, Topic};
use tokio::time::timeout;

/// Opens a stream with a token that is good everywhere.
async fn open(server: &TestServer, path: &str, headers: &str) -> (Stream, String) {
    let authorization = format!("Authorization: Bearer {}\r\n{headers}", token("/"));
    Stream::open(server, path, &authorization).await
}

/// The next message's id and body, passing over pings.
async fn message(stream: &mut Stream) -> (String, String) {
    loop {
        let event = stream.next().await.unwrap();
        if event.name.is_empty() {
            let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
            assert_eq!(data["cursor"], event.id.as_str());
            return (event.id, data["body"].as_str().unwrap().to_owned());
        }
        assert_eq!(event.name, "ping");
    }
}

async fn publish(server: &TestServer, body: impl Into<String>) {
    let publication = Publication::new(Topic::parse("t").unwrap(), body.into());
    server.broker.publish(publication).await.unwrap();
}

#[tokio::test]
async fn messages_come_as_events_and_resume_by_their_ids() {
    let server = TestServer::start().await;
    let (mut stream, head) = open(&server, "/sub/t", "").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    for header in [
        "content-type: text/event-stream",
        "cache-control: no-cache",
        "x-accel-buffering: no",
    ] {
        assert!(head.contains(header), "{head}");
    }
    assert!(!head.contains("access-control-allow-origin"), "{head}");
    let mut ids = Vec::new();
    for body in ["1", "a\r\nid: x\ndata: y\n\n", "3"] {
        publish(&server, body).await;
        let (id, received) = message(&mut stream).await;
        assert_eq!(received, body);
        ids.push(id);
    }
    let resumed = format!("Last-Event-ID: {}\r\n", ids[0]);
    // A browser comes back with the query it began with.
    let (mut stream, _) = open(&server, "/sub/t?after=start", &resumed).await;
    assert_eq!(message(&mut stream).await.0, ids[1]);
    assert_eq!(message(&mut stream).await.0, ids[2]);
}

#[tokio::test]
async fn an_idle_stream_is_kept_open_by_what_proxies_and_what_scripts_see() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.ping_interval = Duration::from_millis(20);
    }))
    .await;
    let (mut stream, _) = open(&server, "/sub/t", "").await;
    assert_eq!(stream.text().await.unwrap(), ": connected");
    assert_eq!(stream.text().await.unwrap(), "");
    assert_eq!(stream.text().await.unwrap(), ": ping");
    let ping = stream.next().await.unwrap();
    assert_eq!((ping.name.as_str(), ping.data.as_str()), ("ping", "{}"));
    publish(&server, "after the ping").await;
    let resumed = format!("Last-Event-ID: {}\r\n", ping.id);
    let (mut stream, _) = open(&server, "/sub/t", &resumed).await;
    assert_eq!(message(&mut stream).await.1, "after the ping");
}

#[tokio::test]
async fn a_gap_is_an_event_without_an_id() {
    let options = Options {
        log_bytes: Some(4_000),
        ..Options::default()
    };
    let server = TestServer::start_with(options).await;
    let (mut stream, _) = open(&server, "/sub/t", "").await;
    publish(&server, "0").await;
    let (first, _) = message(&mut stream).await;
    for number in 1..100 {
        publish(&server, number.to_string()).await;
    }
    server.broker.flushed().await;
    let (mut stream, _) = open(&server, &format!("/sub/t?after={first}"), "").await;
    let gap = stream.next().await.unwrap();
    assert_eq!((gap.name.as_str(), gap.id.as_str()), ("gap", ""));
    assert!(
        gap.data.contains("trimmed") && gap.data.contains(&first),
        "{}",
        gap.data
    );
    message(&mut stream).await;
}

#[tokio::test]
async fn pages_of_a_configured_origin_may_read_and_others_may_not() {
    let friend = "https://friend.example";
    let server = TestServer::start_with(Options::settings(move |settings| {
        settings.cors_origin = Some(friend.to_owned());
    }))
    .await;
    let (_, head) = open(&server, "/sub/t", "Origin: https://friend.example\r\n").await;
    assert!(
        head.contains("access-control-allow-origin: https://friend.example"),
        "{head}"
    );
    let (_, head) = open(&server, "/sub/t", "Origin: https://evil.example\r\n").await;
    assert!(!head.contains("access-control-allow-origin"), "{head}");
    let asked = server
        .request("OPTIONS /sub/t", &[("Origin", friend)], b"")
        .await;
    assert_eq!(asked.status, 204);
    assert!(
        asked
            .header("access-control-allow-headers")
            .unwrap()
            .contains("authorization")
    );
    let asked = server
        .request("OPTIONS /sub/t", &[("Origin", "https://evil.example")], b"")
        .await;
    assert_eq!(asked.status, 401);
}

#[tokio::test]
async fn a_stream_ends_when_the_server_stops_with_everything_delivered() {
    let mut server = TestServer::start().await;
    let (mut stream, _) = open(&server, "/sub/t", "").await;
    for number in 0..50 {
        publish(&server, number.to_string()).await;
    }
    server.stop.cancel();
    for number in 0..50 {
        assert_eq!(message(&mut stream).await.1, number.to_string());
    }
    assert_eq!(stream.next().await, None);
    timeout(PATIENCE, &mut server.running)
        .await
        .expect("it stops")
        .unwrap();
}

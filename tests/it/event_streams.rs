use std::time::Duration;

use hookbot_protocol::{Publication, Topic};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Options, PATIENCE, TestServer, token};

/// A client of an event stream that reads line by line, as the standard says.
struct Stream(BufReader<TcpStream>);

#[derive(Debug, Default, PartialEq)]
struct Event {
    name: String,
    id: String,
    data: String,
}

impl Stream {
    /// Asks for events; returns the response's head as well.
    async fn open(server: &TestServer, path: &str, headers: &str) -> (Self, String) {
        let mut stream = server.connect().await;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\
             Authorization: Bearer {}\r\n{headers}\r\n",
            token("/")
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Self(BufReader::new(stream));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head += &stream.line().await.unwrap();
        }
        (stream, head.to_ascii_lowercase())
    }

    /// A line as it comes; `None` at the end.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.0.read_line(&mut line))
            .await
            .expect("nothing came");
        (read.unwrap() > 0).then_some(line)
    }

    /// A line of the stream, which comes in chunks of its own.
    async fn text(&mut self) -> Option<String> {
        loop {
            let line = self.line().await?;
            // A chunk's size or end; everything of ours ends in a bare line feed.
            match line.strip_suffix("\r\n") {
                Some("0") => return None,
                Some(_) => {}
                None => return Some(line.trim_end_matches('\n').to_owned()),
            }
        }
    }

    async fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        loop {
            let line = self.text().await?;
            match line.split_once(": ") {
                Some(("event", name)) => name.clone_into(&mut event.name),
                Some(("id", id)) => id.clone_into(&mut event.id),
                Some(("data", data)) => event.data += data,
                _ if line.is_empty() && event != Event::default() => return Some(event),
                _ => assert!(line.is_empty() || line.starts_with(':'), "{line:?}"),
            }
        }
    }

    /// The next message's id and body, passing over pings.
    async fn message(&mut self) -> (String, String) {
        loop {
            let event = self.next().await.unwrap();
            if event.name.is_empty() {
                let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
                assert_eq!(data["cursor"], event.id.as_str());
                return (event.id, data["body"].as_str().unwrap().to_owned());
            }
            assert_eq!(event.name, "ping");
        }
    }
}

async fn publish(server: &TestServer, body: impl Into<String>) {
    let publication = Publication::new(Topic::parse("t").unwrap(), body.into());
    server.broker.publish(publication).await.unwrap();
}

#[tokio::test]
async fn messages_come_as_events_and_resume_by_their_ids() {
    let server = TestServer::start().await;
    let (mut stream, head) = Stream::open(&server, "/sub/t", "").await;
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
        let (id, received) = stream.message().await;
        assert_eq!(received, body);
        ids.push(id);
    }
    let resumed = format!("Last-Event-ID: {}\r\n", ids[0]);
    // A browser comes back with the query it began with.
    let (mut stream, _) = Stream::open(&server, "/sub/t?after=start", &resumed).await;
    assert_eq!(stream.message().await.0, ids[1]);
    assert_eq!(stream.message().await.0, ids[2]);
}

#[tokio::test]
async fn an_idle_stream_is_kept_open_by_what_proxies_and_what_scripts_see() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.ping_interval = Duration::from_millis(20);
    }))
    .await;
    let (mut stream, _) = Stream::open(&server, "/sub/t", "").await;
    assert_eq!(stream.text().await.unwrap(), ": connected");
    assert_eq!(stream.text().await.unwrap(), "");
    assert_eq!(stream.text().await.unwrap(), ": ping");
    let ping = stream.next().await.unwrap();
    assert_eq!((ping.name.as_str(), ping.data.as_str()), ("ping", "{}"));
    publish(&server, "after the ping").await;
    let resumed = format!("Last-Event-ID: {}\r\n", ping.id);
    let (mut stream, _) = Stream::open(&server, "/sub/t", &resumed).await;
    assert_eq!(stream.message().await.1, "after the ping");
}

#[tokio::test]
async fn a_gap_is_an_event_without_an_id() {
    let options = Options {
        log_bytes: Some(4_000),
        ..Options::default()
    };
    let server = TestServer::start_with(options).await;
    let (mut stream, _) = Stream::open(&server, "/sub/t", "").await;
    publish(&server, "0").await;
    let (first, _) = stream.message().await;
    for number in 1..100 {
        publish(&server, number.to_string()).await;
    }
    server.broker.flushed().await;
    let (mut stream, _) = Stream::open(&server, &format!("/sub/t?after={first}"), "").await;
    let gap = stream.next().await.unwrap();
    assert_eq!((gap.name.as_str(), gap.id.as_str()), ("gap", ""));
    assert!(
        gap.data.contains("trimmed") && gap.data.contains(&first),
        "{}",
        gap.data
    );
    stream.message().await;
}

#[tokio::test]
async fn pages_of_a_configured_origin_may_read_and_others_may_not() {
    let friend = "https://friend.example";
    let server = TestServer::start_with(Options::settings(move |settings| {
        settings.cors_origin = Some(friend.to_owned());
    }))
    .await;
    let (_, head) = Stream::open(&server, "/sub/t", "Origin: https://friend.example\r\n").await;
    assert!(
        head.contains("access-control-allow-origin: https://friend.example"),
        "{head}"
    );
    let (_, head) = Stream::open(&server, "/sub/t", "Origin: https://evil.example\r\n").await;
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
    let (mut stream, _) = Stream::open(&server, "/sub/t", "").await;
    for number in 0..50 {
        publish(&server, number.to_string()).await;
    }
    server.stop.cancel();
    for number in 0..50 {
        assert_eq!(stream.message().await.1, number.to_string());
    }
    assert_eq!(stream.next().await, None);
    timeout(PATIENCE, &mut server.running)
        .await
        .expect("it stops")
        .unwrap();
}

use std::time::Duration;

use crate::support::{Options, TestServer, token};

/// The metrics page, read with the token for it.
pub(crate) async fn metrics(server: &TestServer) -> String {
    let bearer = format!("Bearer {}", token("/metrics"));
    let reply = server
        .request("GET /metrics", &[("Authorization", &bearer)], b"")
        .await;
    assert_eq!(reply.status, 200);
    reply.body
}

/// The value of a line.
pub(crate) fn value(metrics: &str, name: &str) -> Option<f64> {
    let mut lines = metrics.lines().filter_map(|line| line.rsplit_once(' '));
    lines
        .find(|(own, _)| *own == name)
        .and_then(|(_, value)| value.parse().ok())
}

#[tokio::test]
async fn what_happens_is_counted_and_nothing_secret_is_shown() {
    let server = TestServer::start().await;
    assert_eq!(server.request("GET /metrics", &[], b"").await.status, 401);
    let mut first = server.subscribe("/sub/a-topic").await;
    let _second = server.subscribe("/sub/").await;
    server.publish("a-topic", "12345").await;
    server.request("POST /unsafe/pub/a-topic", &[], b"1").await;
    first.next().await;
    // The other's delivery may be on its way still.
    let text = loop {
        let text = metrics(&server).await;
        if value(&text, "hookbot_deliveries_total") == Some(2.0) {
            break text;
        }
    };
    for (name, expected) in [
        ("hookbot_publishes_total{trusted=\"Yes\"}", 1.0),
        ("hookbot_publishes_total{trusted=\"No\"}", 1.0),
        ("hookbot_published_bytes_total", 6.0),
        ("hookbot_refusals_total{reason=\"token\"}", 1.0),
        ("hookbot_subscribers{by=\"Websocket\"}", 2.0),
        ("hookbot_log_next_offset", 3.0),
        ("hookbot_log_writable", 1.0),
    ] {
        assert_eq!(value(&text, name), Some(expected), "{name} in {text}");
    }
    assert!(!text.contains("a-topic") && !text.contains(&token("/")));
    drop(first);
    while value(
        &metrics(&server).await,
        "hookbot_subscribers{by=\"Websocket\"}",
    ) != Some(1.0)
    {}
}

#[tokio::test]
async fn a_delivery_is_published_once_however_often_it_is_sent() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.deduplicate = Some(Duration::from_secs(3_600));
    }))
    .await;
    let bearer = format!("Bearer {}", token("/"));
    let send = async |topic: &str, id: &str, body: &str| {
        let headers = [
            ("Authorization", bearer.as_str()),
            ("X-GitHub-Delivery", id),
        ];
        let reply = server
            .request(&format!("POST /pub/{topic}"), &headers, body.as_bytes())
            .await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "OK\n"));
        reply.header("hookbot-cursor").unwrap().to_owned()
    };
    let mut socket = server.subscribe("/sub/").await;
    let first = send("t", "1", "x").await;
    assert_eq!(send("t", "1", "x").await, first);
    for (topic, id, body) in [("t", "2", "x"), ("t", "1", "y"), ("u", "1", "x")] {
        assert_ne!(send(topic, id, body).await, first);
    }
    for expected in ["t\0x", "t\0x", "t\0y", "u\0x"] {
        assert_eq!(socket.next().await, expected);
    }
    assert_eq!(
        value(&metrics(&server).await, "hookbot_duplicates_total"),
        Some(1.0)
    );
}

#[tokio::test]
async fn a_server_that_can_keep_messages_is_ready() {
    let server = TestServer::start().await;
    assert_eq!(server.request("GET /readyz", &[], b"").await.status, 200);
}

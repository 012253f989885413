use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::support::{Options, Reply, TestServer, read_to_end, token};

#[tokio::test]
async fn who_comes_when_there_is_no_place_is_told_so_and_counted() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.max_connections = 2;
        settings.max_connections_per_address = Some(2);
    }))
    .await;
    let first = server.subscribe("/sub/t").await;
    let mut second = server.connect().await;
    for _ in 0..100 {
        // Whatever it sends; a body that is not read is no reason to miss the answer.
        let reply = server.request("POST /pub/t", &[], &[b'x'; 100 << 10]).await;
        assert_eq!(reply.status, 503, "{reply:?}");
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert_eq!(reply.header("connection"), Some("close"));
        assert!(reply.body.contains("connections"), "{}", reply.body);
    }
    let bearer = token("/metrics");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: h\r\nHookbot-Token: {bearer}\r\n\r\n");
    second.write_all(request.as_bytes()).await.unwrap();
    let mut metrics = String::new();
    while !metrics.contains("# EOF") {
        let mut buffer = [0; 4 << 10];
        let read = second.read(&mut buffer).await.unwrap();
        metrics += std::str::from_utf8(&buffer[..read]).unwrap();
    }
    let counted = "hookbot_refusals_total{reason=\"connections\"} 100\n";
    assert!(metrics.contains(counted), "{metrics}");
    drop(first);
    server.until_there_is_a_place().await;
}

#[tokio::test]
async fn those_who_are_told_and_do_not_listen_are_few_at_a_time() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.max_connections = 1;
    }))
    .await;
    let _only = server.subscribe("/sub/t").await;
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(server.connect().await);
    }
    // It is looked at once one of the first has been given up.
    assert_eq!(server.request("GET /status", &[], b"").await.status, 503);
    assert!(began.elapsed() >= Duration::from_secs(1));
    for mut silent in silent {
        assert_eq!(read_to_end(&mut silent).await, "");
    }
}

#[tokio::test]
async fn one_address_leaves_places_for_the_others() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.max_connections = 4;
        settings.max_connections_per_address = Some(2);
    }))
    .await;
    let first = server.subscribe("/sub/t").await;
    let _second = server.subscribe("/sub/t").await;
    let reply = server.request("GET /status", &[], b"").await;
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (429, Some("1"))
    );
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let mut other = socket.connect(server.address).await.unwrap();
    let request = b"GET /status HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    other.write_all(request).await.unwrap();
    assert_eq!(Reply::parse(&read_to_end(&mut other).await).status, 200);
    drop(first);
    server.until_there_is_a_place().await;
}

#[tokio::test]
async fn strangers_have_a_rate_of_their_own() {
    let one = NonZeroU32::MIN;
    let server = TestServer::start_with(Options::settings(move |settings| {
        settings.unsafe_rate = one
    }))
    .await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let reply = server.request("POST /unsafe/pub/t", &[], b"").await;
        assert_eq!(reply.status == 429, reply.header("retry-after").is_some());
        statuses.push(reply.status);
    }
    assert_eq!(statuses[0], 200, "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    for _ in 0..5 {
        assert_eq!(server.publish("t", "").await.status, 200);
    }
}

#[tokio::test]
async fn strangers_who_stall_leave_room_for_the_trusted() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.max_in_flight = 64 << 10
    }))
    .await;
    let mut stalled = server.connect().await;
    let half = "x".repeat(15 << 10);
    let head =
        format!("POST /unsafe/pub/t HTTP/1.1\r\nHost: h\r\nContent-Length: 99999\r\n\r\n{half}");
    stalled.write_all(head.as_bytes()).await.unwrap();
    // It is held once another stranger finds no room.
    loop {
        let reply = server
            .request("POST /unsafe/pub/t", &[], &[b'x'; 4 << 10])
            .await;
        if reply.status == 503 {
            assert_eq!(reply.header("retry-after"), Some("1"));
            break;
        }
    }
    assert_eq!(server.publish("t", &"x".repeat(40 << 10)).await.status, 200);
    assert_eq!(server.publish("t", &"x".repeat(65 << 10)).await.status, 503);
    drop(stalled);
    while server
        .request("POST /unsafe/pub/t", &[], &[b'x'; 4 << 10])
        .await
        .status
        != 200
    {}
}

#[tokio::test]
async fn a_message_that_the_log_can_never_hold_is_refused_for_good() {
    let options = Options {
        log_bytes: Some(10_000),
        ..Options::default()
    };
    let server = TestServer::start_with(options).await;
    let reply = server.publish("t", &"x".repeat(20_000)).await;
    assert_eq!(reply.status, 413);
    assert!(reply.body.contains("7500 bytes"), "{}", reply.body);
    assert_eq!(server.publish("t", "small").await.status, 200);
}

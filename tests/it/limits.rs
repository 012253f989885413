use std::num::NonZeroU32;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Options, TestServer};

#[tokio::test]
async fn beyond_the_limit_a_connection_waits_for_a_place() {
    let server =
        TestServer::start_with(Options::settings(|settings| settings.max_connections = 2)).await;
    let (first, _second) = (
        server.subscribe("/sub/t").await,
        server.subscribe("/sub/t").await,
    );
    let mut third = server.connect().await;
    third
        .write_all(b"GET /status HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    drop(first);
    let mut reply = [0; 12];
    third.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b"HTTP/1.1 200");
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
    assert_eq!((statuses[0], statuses[4]), (200, 429), "{statuses:?}");
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

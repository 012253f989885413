use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Options, PATIENCE, Reply, TestServer, read_to_end, token};

/// A server that waits until everything has ended, however long the machine takes.
async fn patient() -> TestServer {
    TestServer::start_with(Options::settings(|settings| settings.grace = 3 * PATIENCE)).await
}

#[tokio::test]
async fn open_work_ends_before_the_server_does() {
    let mut server = patient().await;
    let mut subscriber = server.subscribe("/sub/t").await;
    let mut idle = server.connect().await;
    let mut publisher = server.connect().await;
    let head = format!(
        "POST /pub/t HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nExpect: 100-continue\r\n\
         Content-Length: 4\r\n\r\n",
        token("/pub/t")
    );
    publisher.write_all(head.as_bytes()).await.unwrap();
    // The request has been taken on once its body is asked for.
    publisher.readable().await.unwrap();

    server.stop.cancel();
    assert_eq!(read_to_end(&mut idle).await, "");
    // Once the idle connection is closed, the listener is, too.
    assert!(TcpStream::connect(server.address).await.is_err());

    publisher.write_all(b"last").await.unwrap();
    let replies = read_to_end(&mut publisher).await;
    let reply = replies.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(Reply::parse(reply).status, 200, "{replies}");
    assert_eq!(subscriber.next().await, "last");
    assert_eq!(subscriber.close_code().await, 1001);
    // The client's answer to the close.
    drop(subscriber);
    timeout(PATIENCE, &mut server.running)
        .await
        .expect("it stops")
        .unwrap();
}

#[tokio::test]
async fn what_does_not_end_is_cut_off() {
    let grace = Duration::from_millis(300);
    let mut server =
        TestServer::start_with(Options::settings(move |settings| settings.grace = grace)).await;
    let mut publisher = server.connect().await;
    let head = format!(
        "POST /pub/t HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nContent-Length: 4\r\n\r\n",
        token("/pub/t")
    );
    publisher.write_all(head.as_bytes()).await.unwrap();
    let _stalled = server.subscribe("/sub/t").await;
    server.stop.cancel();
    timeout(PATIENCE, &mut server.running)
        .await
        .expect("it stops")
        .unwrap();
}

#[tokio::test]
async fn one_who_never_ends_a_request_does_not_cost_the_others_their_goodbye() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.grace = Duration::from_secs(3);
    }))
    .await;
    let mut subscriber = server.subscribe("/sub/t").await;
    let mut half = server.connect().await;
    half.write_all(b"GET /status HT").await.unwrap();
    server.publish("t", "last").await;
    server.stop.cancel();
    assert_eq!(subscriber.next().await, "last");
    assert_eq!(subscriber.close_code().await, 1001);
}

#[tokio::test]
async fn one_who_is_still_reading_the_log_gets_what_was_there() {
    let server = patient().await;
    for number in 0..5_000 {
        let topic = hookbot_protocol::Topic::parse("elsewhere").unwrap();
        let publication = hookbot_protocol::Publication::new(topic, number.to_string());
        server.broker.publish(publication).await.unwrap();
    }
    server.publish("t", "rare").await;
    let mut subscriber = server.subscribe("/sub/t?after=start").await;
    server.stop.cancel();
    assert_eq!(subscriber.next().await, "rare");
    assert_eq!(subscriber.close_code().await, 1001);
}

#[tokio::test]
async fn a_subscriber_with_a_backlog_gets_all_of_it_before_the_close() {
    let server = patient().await;
    let mut subscriber = server.subscribe("/sub/t").await;
    let body = "x".repeat(100 << 10);
    for _ in 0..200 {
        server.publish("t", &body).await;
    }
    server.stop.cancel();
    for _ in 0..200 {
        assert_eq!(subscriber.next().await.len(), body.len());
    }
    assert_eq!(subscriber.close_code().await, 1001);
}

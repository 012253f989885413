use std::net::SocketAddr;
use std::time::Duration;

use hookbot_listen::{Endpoint, Error, retrying_watch};
use hookbot_protocol::{Publication, Topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::{Options, PATIENCE, TestServer, token};

async fn publish(server: &TestServer, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let publication = Publication::new(Topic::parse("t").unwrap(), number.to_string());
        server.broker.publish(publication).await.unwrap();
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    let url = format!("ws://{}@{address}/sub/t", token("/sub/t"));
    Endpoint::new(&url).unwrap().no_proxy()
}

/// A line to the server that is cut after ever so many bytes.
async fn unreliable_line(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(to).await.unwrap();
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                let mut from_server = from_server.take(fastrand::u64(200..20_000));
                tokio::select! {
                    _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                    _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_cut_all_the_time_loses_and_repeats_nothing() {
    let server = TestServer::start().await;
    let line = unreliable_line(server.address).await;
    let total = 3_000;
    publish(&server, 0..total / 2).await;
    let mut messages = retrying_watch(
        endpoint(line)
            .after("start")
            .retry_within(Duration::from_millis(5)),
    );
    let (mut expected, mut cuts) = (0, 0);
    while expected < total {
        match timeout(PATIENCE, messages.next()).await.unwrap().unwrap() {
            Ok(message) => {
                assert_eq!(message.payload, expected.to_string());
                expected += 1;
                if expected == total / 2 {
                    publish(&server, total / 2..total).await;
                }
            }
            Err(error) => {
                assert!(!error.is_passing(), "{error}");
                cuts += 1;
            }
        }
    }
    assert!(cuts > 10, "{cuts} cuts prove little");
    messages.finish().await;
}

#[tokio::test]
async fn a_gap_is_an_item_and_messages_go_on_behind_it() {
    let options = Options {
        log_bytes: Some(4_000),
        ..Options::default()
    };
    let server = TestServer::start_with(options).await;
    publish(&server, 0..100).await;
    let cursor = "0000000000000000.3";
    let mut messages = retrying_watch(endpoint(server.address).after(cursor));
    let Some(Err(Error::Gap { asked, .. })) = messages.next().await else {
        panic!("the cursor is another log's");
    };
    assert_eq!(asked, cursor);
    let first = messages.next().await.unwrap().unwrap();
    let number: usize = str::from_utf8(&first.payload).unwrap().parse().unwrap();
    assert!(number > 0);
    let event = first.event.as_deref().unwrap();
    assert_eq!((first.topic.as_str(), event.method.as_str()), ("t", ""));
    for number in number + 1..100 {
        assert_eq!(
            messages.next().await.unwrap().unwrap().payload,
            number.to_string()
        );
    }
}

#[tokio::test]
async fn one_that_is_cut_off_before_its_first_message_still_gets_it() {
    let server = TestServer::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = endpoint(listener.local_addr().unwrap()).retry_within(Duration::from_millis(5));
    let mut messages = retrying_watch(endpoint);
    let (mut client, _) = listener.accept().await.unwrap();
    let mut upstream = TcpStream::connect(server.address).await.unwrap();
    {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = upstream.split();
        // The handshake and the place, and then the line goes dead.
        let first_words = async {
            let mut seen = Vec::new();
            while !seen.ends_with(b"}\0") {
                let before = seen.len();
                from_server.read_buf(&mut seen).await.unwrap();
                to_client.write_all(&seen[before..]).await.unwrap();
            }
        };
        tokio::select! {
            _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
            () = first_words => {}
        }
    }
    drop((client, upstream));
    publish(&server, 0..1).await;
    let serve = async {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut upstream = TcpStream::connect(server.address).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
        }
    };
    let receive = async {
        loop {
            if let Ok(message) = messages.next().await.unwrap() {
                return message;
            }
        }
    };
    tokio::select! {
        () = serve => unreachable!("it serves for ever"),
        message = timeout(PATIENCE, receive) => assert_eq!(message.unwrap().payload, "0"),
    }
}

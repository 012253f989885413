use std::time::Duration;

use hookbot_protocol::{Publication, Topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::many_subscribers::{connect, subscribe};
use crate::program::Program;
use crate::support::{Options, PATIENCE, TestServer, token};

/// How many messages, and how far apart: 8 s at 100 a second.
const MESSAGES: usize = 800;
const PACE: Duration = Duration::from_millis(10);

/// A payload of 32 KiB that begins with its number.
fn payload(number: usize) -> Vec<u8> {
    let mut payload = vec![b'.'; 32 << 10];
    payload[..8].copy_from_slice(format!("{number:08}").as_bytes());
    payload
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_that_never_read_cost_twenty_that_do_nothing_and_lose_nothing_themselves() {
    let server = TestServer::start().await;
    let mut stalled = Vec::new();
    for _ in 0..5 {
        stalled.push(server.subscribe("/sub/t").await);
    }
    let mut readers = Vec::new();
    for _ in 0..20 {
        let mut socket = server.subscribe("/sub/t").await;
        readers.push(tokio::spawn(async move {
            for number in 0..MESSAGES {
                let Ok(Message::Binary(received)) = socket.receive().await else {
                    panic!("closed at message {number}");
                };
                assert!(
                    received == payload(number),
                    "message {number} is lost or damaged"
                );
            }
        }));
    }
    let mut pace = tokio::time::interval(PACE);
    for number in 0..MESSAGES {
        pace.tick().await;
        let publication = Publication::new(Topic::parse("t").unwrap(), payload(number));
        server
            .broker
            .publish(publication)
            .await
            .expect("nothing is refused");
    }
    for reader in readers {
        reader.await.unwrap();
    }
    for mut socket in stalled {
        let mut number = 0;
        while number < MESSAGES {
            match socket.receive().await.unwrap() {
                Message::Binary(received) => {
                    assert!(
                        received == payload(number),
                        "message {number} is lost or damaged"
                    );
                    number += 1;
                }
                Message::Ping(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stalls_gets_all_it_missed_and_the_server_stays_small() {
    let (count, size) = (600, 64 << 10);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data").display().to_string();
    let program = Program::start(&["--data-dir", &path]);
    let token = token("/");
    let mut stalled = subscribe(connect(&program.address, None).await, &token).await;
    let mut publisher = connect(&program.address, None).await;
    let body = |number: usize| format!("{number:08}{}", "x".repeat(size - 8));
    for number in 0..count {
        let head = format!(
            "POST /pub/t?token={token} HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n"
        );
        publisher
            .write_all((head + &body(number)).as_bytes())
            .await
            .unwrap();
        let mut reply = Vec::new();
        while !reply.ends_with(b"\r\n\r\nOK\n") {
            assert_ne!(publisher.read_buf(&mut reply).await.unwrap(), 0, "refused");
        }
    }
    let memory = program.memory();
    assert!(memory < 200 << 20, "{memory} bytes");
    for number in 0..count {
        let mut frame = vec![0; 10 + size];
        timeout(PATIENCE, stalled.read_exact(&mut frame))
            .await
            .unwrap()
            .unwrap();
        assert!(
            frame[10..] == *body(number).as_bytes(),
            "message {number} is lost or damaged"
        );
    }
    let memory = program.memory();
    assert!(memory < 200 << 20, "{memory} bytes");
    println!(
        "{} MiB resident after {count} messages of {size} bytes",
        memory >> 20
    );
}

/// The control: where the log is too small to keep what a stalled subscriber missed, it is told.
#[tokio::test]
async fn one_that_retention_has_passed_is_closed_with_a_code_of_its_own_or_goes_on() {
    let options = Options {
        log_bytes: Some(1 << 20),
        ..Options::default()
    };
    let server = TestServer::start_with(options).await;
    let mut strict = server.subscribe("/sub/t").await;
    let mut skipping = server.subscribe("/sub/t?gap=skip").await;
    let total = 2_000;
    for number in 0..total {
        let publication = Publication::new(Topic::parse("t").unwrap(), payload(number));
        server.broker.publish(publication).await.unwrap();
    }
    let mut last = 0;
    let code = loop {
        match strict.receive().await.unwrap() {
            Message::Binary(received) => {
                assert!(received == payload(last), "in order up to the gap");
                last += 1;
            }
            Message::Close(frame) => break u16::from(frame.unwrap().code),
            _ => {}
        }
    };
    assert_eq!(code, 4410);
    assert!(last < total);
    loop {
        if let Message::Binary(received) = skipping.receive().await.unwrap()
            && received == payload(total - 1)
        {
            break;
        }
    }
    let refused = server.try_subscribe("/sub/t?gap=fill", &[]).await;
    assert!(refused.is_err());
}

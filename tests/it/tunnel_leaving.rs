//! Responders that leave, however many calls are just on their way to them.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use hookbot_tunnel::Endpoint;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::callers::{Answers, caller, request, serves_at, wait_for, whole};
use crate::support::{PATIENCE, TestServer, token};

/// A responder that answers with the body it was sent.
async fn responder(address: std::net::SocketAddr) -> Answers {
    let echo = service_fn(async |request: Request<Incoming>| {
        let body = request.into_body().collect().await;
        Ok::<_, Infallible>(Response::new(whole(body.unwrap().to_bytes())))
    });
    let url = format!("ws://{}@{address}/answer/t", token("/"));
    serves_at(Endpoint::new(&url).unwrap(), echo, |own| own).await
}

/// What callers and whoever exchanges responders tell each other.
#[derive(Default)]
struct Load {
    answered: AtomicUsize,
    refused: AtomicUsize,
    stop: AtomicBool,
}

impl Load {
    /// Calls with bodies of many lengths, one after the other, until it is to stop.
    async fn call(self: Arc<Self>, server: Arc<TestServer>, seed: usize) {
        let mut requests = caller(&server).await;
        for round in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let length = (seed * 7_919 + round * 104_729) % 200_000;
            let body: Bytes = format!("<{seed} {round}>")
                .bytes()
                .cycle()
                .take(length)
                .collect();
            let asked = request(&server, "POST", "/call/t").body(whole(body.clone()));
            let answer = timeout(PATIENCE, requests.send_request(asked.unwrap())).await;
            let answer = answer.expect("an answer").unwrap();
            let status = answer.status();
            let told = timeout(PATIENCE, answer.into_body().collect()).await;
            let told = told.expect("an end").unwrap().to_bytes();
            if status == StatusCode::OK {
                assert!(told == body);
                self.answered.fetch_add(1, Ordering::Relaxed);
            } else {
                assert_eq!(status, StatusCode::BAD_GATEWAY);
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            if requests.ready().await.is_err() {
                requests = caller(&server).await;
            }
        }
    }
}

/// Has a responder that is reached at `address` take the other one's place, again and again, while
/// many call. How many of them were refused, and answered.
async fn exchange(server: TestServer, address: std::net::SocketAddr) -> [usize; 2] {
    let long = std::env::var_os("HOOKBOT_TEST_LONG").is_some();
    let (server, load) = (Arc::new(server), Arc::new(Load::default()));
    let mut own = responder(address).await;
    let mut callers = JoinSet::new();
    for seed in 0..16 {
        callers.spawn(load.clone().call(server.clone(), seed));
    }
    for _ in 0..if long { 300 } else { 20 } {
        let next = responder(address).await;
        let before = load.answered.load(Ordering::Relaxed);
        own.stop.cancel();
        let left = timeout(PATIENCE, &mut own.running).await;
        left.expect("gone").unwrap().unwrap();
        own = next;
        // The next one is there long enough to have something to do.
        while load.answered.load(Ordering::Relaxed) == before && callers.try_join_next().is_none() {
            tokio::task::yield_now().await;
        }
    }
    load.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    wait_for(&server, "hookbot_calls_in_flight", 0).await;
    [&load.refused, &load.answered].map(|count| count.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_when_a_responder_takes_another_one_s_place() {
    let server = TestServer::start().await;
    let address = server.address;
    let [refused, answered] = exchange(server, address).await;
    assert_eq!(refused, 0, "and {answered} were answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_word_is_not_known_a_responder_leaves_all_the_same() {
    let server = TestServer::start().await;
    let address = without_words(server.address).await;
    let [refused, answered] = exchange(server, address).await;
    // How many cross its leaving is chance.
    eprintln!("{refused} refused, {answered} answered");
    assert!(refused < answered);
}

/// A server that knows no words, as far as its responders can see.
async fn without_words(server: std::net::SocketAddr) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((responder, _)) = listener.accept().await {
            let server = TcpStream::connect(server).await.unwrap();
            tokio::spawn(async move {
                let (mut from_server, mut to_server) = split(server);
                let (mut from_responder, mut to_responder) = split(responder);
                let up = async { copy(&mut from_responder, &mut to_server).await };
                let down = async {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(from_server.read_u8().await?);
                    }
                    let head = String::from_utf8(head).unwrap();
                    assert!(head.contains("hookbot-words: leaving"), "{head}");
                    let head = head.replace("hookbot-words", "x-words");
                    to_responder.write_all(head.as_bytes()).await?;
                    copy(&mut from_server, &mut to_responder).await
                };
                // Where one side ends, both do.
                tokio::select! { _ = up => {}, _ = down => {} }
            });
        }
    });
    address
}

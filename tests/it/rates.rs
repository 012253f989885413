use std::num::NonZeroU32;

use hookbot::server::{Networks, Rate};
use hookbot_protocol::Scope;
use tokio_tungstenite::tungstenite::Error;

use crate::support::{Options, TestServer, key, token};

fn rate(text: &str) -> Option<Rate> {
    Some(text.parse().unwrap())
}

/// The statuses of as many requests as there are to be, by the token for a path.
async fn statuses(server: &TestServer, line: &str, scope: &str, number: usize) -> Vec<u16> {
    let bearer = format!("Bearer {}", token(scope));
    let mut statuses = Vec::new();
    for _ in 0..number {
        let reply = server
            .request(line, &[("Authorization", &bearer)], b"")
            .await;
        assert_eq!(reply.status == 429, reply.header("retry-after").is_some());
        statuses.push(reply.status);
    }
    statuses
}

#[tokio::test]
async fn a_token_has_a_rate_of_its_own() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.rules.token_rate = rate("2/h");
    }))
    .await;
    assert_eq!(
        statuses(&server, "POST /pub/a", "/pub/a", 3).await,
        [200, 200, 429]
    );
    // Whatever it is used for.
    assert_eq!(statuses(&server, "POST /pub/a", "/pub/", 1).await, [200]);
    assert_eq!(
        statuses(&server, "POST /pub/b", "/pub/", 2).await,
        [200, 429]
    );
}

#[tokio::test]
async fn a_topic_has_a_rate_whoever_publishes() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.rules.topic_rate = rate("2/h");
    }))
    .await;
    assert_eq!(statuses(&server, "POST /pub/a", "/pub/a", 1).await, [200]);
    assert_eq!(statuses(&server, "POST /%61", "/", 2).await, [200, 429]);
    assert_eq!(statuses(&server, "POST /pub/b", "/", 1).await, [200]);
}

#[tokio::test]
async fn an_address_has_a_rate_whatever_it_asks() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.rules.address_rate = rate("2/h");
        settings.rules.proxies.networks = Networks::parse(["127.0.0.1"]).unwrap();
    }))
    .await;
    let from = |address| [("X-Forwarded-For", address)];
    let mut found = Vec::new();
    for (line, address) in [
        ("POST /unsafe/pub/a", "192.0.2.1"),
        ("POST /pub/a", "192.0.2.1"),
        ("POST /unsafe/pub/a", "192.0.2.1"),
        ("POST /unsafe/pub/a", "192.0.2.2"),
        ("GET /status", "192.0.2.1"),
    ] {
        found.push(server.request(line, &from(address), b"").await.status);
    }
    assert_eq!(found, [200, 401, 429, 200, 200]);
}

#[tokio::test]
async fn one_stranger_cannot_use_up_what_all_strangers_have() {
    let number = |number| NonZeroU32::new(number).unwrap();
    let server = TestServer::start_with(Options::settings(move |settings| {
        settings.unsafe_rate = number(20);
        settings.unsafe_share = Some(number(2));
        settings.rules.proxies.networks = Networks::parse(["127.0.0.1"]).unwrap();
    }))
    .await;
    let from = |address| {
        let headers = [("X-Forwarded-For", address)];
        let server = &server;
        async move {
            server
                .request("POST /unsafe/pub/t", &headers, b"")
                .await
                .status
        }
    };
    let mut greedy = Vec::new();
    for _ in 0..8 {
        greedy.push(from("192.0.2.1").await);
    }
    assert_eq!(greedy[0], 200, "{greedy:?}");
    assert!(greedy.contains(&429), "{greedy:?}");
    assert_eq!(from("192.0.2.2").await, 200);
}

#[tokio::test]
async fn there_are_no_more_subscribers_than_there_may_be() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.rules.max_subscribers = Some(3);
        settings.rules.max_subscribers_per_token = Some(2);
    }))
    .await;
    let subscribe = |name: &str| {
        let scope = Scope::parse("/sub/t").unwrap();
        let token = key()
            .mint_named(&scope, &name.parse().unwrap(), None)
            .expose();
        let path = format!("/sub/t?token={token}");
        let server = &server;
        async move {
            match server.try_subscribe(&path, &[]).await {
                Ok(socket) => Ok(socket),
                Err(Error::Http(response)) => Err(response.status().as_u16()),
                Err(error) => panic!("{error}"),
            }
        }
    };
    let first = subscribe("a").await.unwrap();
    let _second = subscribe("a").await.unwrap();
    assert_eq!(subscribe("a").await.err(), Some(429));
    let _third = subscribe("b").await.unwrap();
    assert_eq!(subscribe("c").await.err(), Some(503));
    drop(first);
    while subscribe("a").await.is_err() {}
}

#[tokio::test]
async fn without_memory_to_spare_nothing_new_is_let_in() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.max_memory = Some(1);
    }))
    .await;
    // It is noticed soon.
    while server.publish("t", "").await.status != 503 {}
    let line = format!("GET /sub/t?token={}", token("/sub/t"));
    let events = [("Accept", "text/event-stream")];
    let reply = server.request(&line, &events, b"").await;
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (503, Some("1"))
    );
    assert_eq!(server.request("GET /healthz", &[], b"").await.status, 200);
}

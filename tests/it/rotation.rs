use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hookbot_protocol::{DenyList, Key, Keys, Scope};
use tokio::task::JoinSet;

use crate::support::{Options, TestServer, key};

fn other_key() -> Key {
    Key::new(b"the key that came next").unwrap()
}

fn mint(key: &Key, path: &str, name: &str) -> String {
    let scope = Scope::parse(path).unwrap();
    key.mint_named(&scope, &name.parse().unwrap(), None)
        .expose()
}

#[tokio::test]
async fn who_still_uses_a_previous_key_is_counted() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.rules.keys = Keys::new(other_key()).with_previous(vec![key()]);
    }))
    .await;
    for (key, times) in [(key(), 3), (other_key(), 2)] {
        let bearer = format!("Bearer {}", mint(&key, "/pub/", "ci"));
        for _ in 0..times {
            let auth = [("Authorization", bearer.as_str())];
            assert_eq!(server.request("POST /pub/t", &auth, b"").await.status, 200);
        }
    }
    let metrics = other_key()
        .mint(&Scope::parse("/metrics").unwrap())
        .expose();
    let shown = server
        .request(&format!("GET /metrics?token={metrics}"), &[], b"")
        .await
        .body;
    for line in [
        "hookbot_previous_key_uses_total{key=\"1\"} 3\n",
        "hookbot_token_uses_total{name=\"ci\"} 5\n",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
}

#[tokio::test]
async fn a_key_that_is_dropped_closes_what_its_tokens_opened() {
    let keys = || Keys::new(other_key()).with_previous(vec![key()]);
    let server = TestServer::start_with(Options::settings(move |settings| {
        settings.rules.keys = keys();
    }))
    .await;
    let subscribe = |key| {
        let path = format!("/sub/t?token={}", mint(&key, "/sub/", "a"));
        let server = &server;
        async move { server.try_subscribe(&path, &[]).await }
    };
    let mut old = subscribe(key()).await.unwrap();
    let mut new = subscribe(other_key()).await.unwrap();
    let mut rules = server.control.rules();
    rules.keys = Keys::new(other_key());
    server.control.replace(rules).await;
    assert_eq!(old.close_code().await, 1008);
    assert!(subscribe(key()).await.is_err());
    let bearer = format!("Bearer {}", mint(&other_key(), "/pub/", "a"));
    let auth = [("Authorization", bearer.as_str())];
    assert_eq!(
        server.request("POST /pub/t", &auth, b"on").await.status,
        200
    );
    assert_eq!(new.next().await, "on");
}

/// Publishes with good tokens while keys are rotated, rules reloaded and other tokens revoked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_good_request_is_refused_while_keys_rules_and_lists_change() {
    let server = Arc::new(TestServer::start().await);
    let rotated = |first: Key, second: Key| Keys::new(first).with_previous(vec![second]);
    let mut rules = server.control.rules();
    rules.keys = rotated(key(), other_key());
    server.control.replace(rules.clone()).await;
    let (stop, sent) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut publishers = JoinSet::new();
    for number in 0..4 {
        let (server, stop, sent) = (server.clone(), stop.clone(), sent.clone());
        publishers.spawn(async move {
            // Old tokens and new ones are both good, all the time.
            let key = if number % 2 == 0 { key() } else { other_key() };
            let bearer = format!("Bearer {}", mint(&key, "/pub/", "good"));
            while !stop.load(Ordering::Relaxed) {
                let auth = [("Authorization", bearer.as_str())];
                let reply = server.request("POST /pub/t", &auth, b"x").await;
                assert_eq!(reply.status, 200, "{}", reply.body);
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let until = Instant::now() + Duration::from_secs(2);
    let (mut rounds, mut slowest) = (0, Duration::ZERO);
    while Instant::now() < until || rounds < 5 || sent.load(Ordering::Relaxed) < 100 {
        let name = format!("bad{rounds}");
        let path = format!("/sub/t?token={}", mint(&key(), "/sub/", &name));
        let mut socket = server.try_subscribe(&path, &[]).await.unwrap();
        rules.keys = match rounds % 2 {
            0 => rotated(other_key(), key()),
            _ => rotated(key(), other_key()),
        };
        server.control.replace(rules.clone()).await;
        let began = Instant::now();
        server.control.revoke(DenyList::parse(&name).unwrap()).await;
        assert_eq!(socket.close_code().await, 1008);
        slowest = slowest.max(began.elapsed());
        rounds += 1;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(publisher) = publishers.join_next().await {
        publisher.unwrap();
    }
    let sent = sent.load(Ordering::Relaxed);
    println!("{sent} published in {rounds} rounds; the slowest revocation took {slowest:?}");
}

//! Responders: which one answers a call, how one comes back, and how it leaves.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::callers::{
    MOMENT, answers, call, caller, endless, request, target, text, wait_for_responders, whole,
};
use crate::support::{PATIENCE, TestServer, token};

/// A target that says who it is.
async fn named(name: &'static str) -> std::net::SocketAddr {
    target(move |request| async move {
        let path = request.uri().path().to_owned();
        Response::new(whole(format!("{name} {path}")))
    })
    .await
}

#[tokio::test]
async fn the_responder_at_the_longest_prefix_answers() {
    let server = TestServer::start().await;
    let _root = answers(&server, "/answer/", named("root").await).await;
    let _a = answers(&server, "/answer/a/", named("a").await).await;
    let deep = answers(&server, "/answer/a/b", named("b").await).await;
    let said = async |path: &str| text(call(&server, "GET", path, "").await.into_body()).await;
    assert_eq!(said("/call/a/b/c").await, "b /c");
    assert_eq!(said("/call/a/b").await, "b /");
    assert_eq!(said("/call/a/bc").await, "a /bc");
    assert_eq!(said("/call/x/y").await, "root /x/y");
    drop(deep);
    wait_for_responders(&server, 2).await;
    assert_eq!(said("/call/a/b/c").await, "a /b/c");
}

#[tokio::test]
async fn responders_on_one_topic_share_its_calls() {
    let server = TestServer::start().await;
    let (held, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let mut all = Vec::new();
    for name in ["one", "two", "three"] {
        let (held, release) = (held.clone(), release.clone());
        let target = target(move |_| {
            let (held, release) = (held.clone(), release.clone());
            async move {
                held.fetch_add(1, Ordering::SeqCst);
                release.notified().await;
                Response::new(whole(name))
            }
        });
        all.push(answers(&server, "/answer/t", target.await).await);
    }
    let server = Arc::new(server);
    let mut calls = JoinSet::new();
    for at in 0..3 {
        let server = server.clone();
        calls.spawn(
            async move { text(call(&server, "GET", "/call/t", "").await.into_body()).await },
        );
        // So that one sees the other.
        wait_for(&server_of(&held), at + 1).await;
    }
    release.notify_waiters();
    let names: HashSet<_> = calls.join_all().await.into_iter().collect();
    assert_eq!(names.len(), 3, "{names:?}");

    async fn wait_for(held: &AtomicUsize, number: usize) {
        let waiting = async {
            while held.load(Ordering::SeqCst) < number {
                tokio::time::sleep(MOMENT).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("a call");
    }
    fn server_of(held: &Arc<AtomicUsize>) -> Arc<AtomicUsize> {
        held.clone()
    }
}

#[tokio::test]
async fn a_call_whose_responder_is_lost_fails_and_the_next_goes_to_another() {
    let server = TestServer::start().await;
    let reached = Arc::new(Notify::new());
    let at_target = reached.clone();
    let silent = target(move |_| {
        at_target.notify_one();
        std::future::pending()
    });
    let first = answers(&server, "/answer/t", silent.await).await;
    let mut requests = caller(&server).await;
    let asked = request(&server, "POST", "/call/t")
        .body(whole("x"))
        .unwrap();
    let calling = tokio::spawn(async move { requests.send_request(asked).await.unwrap() });
    timeout(PATIENCE, reached.notified()).await.unwrap();
    let _second = answers(&server, "/answer/t", named("second").await).await;
    first.running.abort();
    let answer = timeout(PATIENCE, calling).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert!(
        text(answer.into_body())
            .await
            .contains("the responder was lost")
    );
    let answer = call(&server, "POST", "/call/t", "x").await;
    assert_eq!(text(answer.into_body()).await, "second /");
}

#[tokio::test]
async fn a_responder_leaves_when_its_token_is_no_longer_good() {
    let server = TestServer::start().await;
    let mut answers = answers(&server, "/answer/t", named("t").await).await;
    answers.connected().await;
    let revoked = hookbot_protocol::DenyList::parse(&token("/")).unwrap();
    server.control.revoke(revoked).await;
    let lost = timeout(PATIENCE, answers.events.recv()).await.unwrap();
    let lost = lost.unwrap().to_string();
    assert!(lost.contains("1008") && lost.contains("revoked"), "{lost}");
}

#[tokio::test]
async fn a_responder_that_leaves_is_closed_all_the_same_when_its_token_is_no_longer_good() {
    let server = TestServer::start().await;
    let (address, _, mut is_given_up) = endless(false).await;
    let answers = answers(&server, "/answer/t", address).await;
    let mut answer = call(&server, "GET", "/call/t", "").await;
    let begun = timeout(PATIENCE, answer.frame()).await.unwrap();
    assert!(begun.unwrap().is_ok());
    answers.stop.cancel();
    wait_for_responders(&server, 0).await;
    assert!(is_given_up.try_recv().is_err());
    let revoked = hookbot_protocol::DenyList::parse(&token("/")).unwrap();
    server.control.revoke(revoked).await;
    let given_up = timeout(PATIENCE, is_given_up.recv()).await;
    given_up.expect("an end");
    let end = timeout(PATIENCE, answer.frame()).await.unwrap();
    assert!(end.unwrap().is_err(), "it does not look whole");
}

#[tokio::test]
async fn a_responder_that_stops_ends_its_calls_first_and_takes_no_new_ones() {
    let server = TestServer::start().await;
    let (address, more, _gone) = endless(false).await;
    let mut first = answers(&server, "/answer/t", address).await;
    let mut answer = call(&server, "GET", "/call/t", "").await;
    first.stop.cancel();
    let refused = async {
        while call(&server, "GET", "/call/t", "").await.status() != StatusCode::BAD_GATEWAY {}
    };
    timeout(PATIENCE, refused).await.expect("no new calls");
    let begun = timeout(PATIENCE, answer.frame()).await.unwrap();
    assert_eq!(begun.unwrap().unwrap().into_data().unwrap(), "begun");
    more.notify_waiters();
    assert_eq!(text(answer.into_body()).await, "");
    let ended = timeout(PATIENCE, &mut first.running).await.unwrap();
    ended.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_stops_ends_open_calls_and_tells_its_responders() {
    let mut server = TestServer::start().await;
    let (address, more, _gone) = endless(false).await;
    let mut answers = answers(&server, "/answer/t", address).await;
    answers.connected().await;
    let answer = call(&server, "GET", "/call/t", "").await;
    server.stop.cancel();
    more.notify_one();
    assert_eq!(text(answer.into_body()).await, "begun");
    let lost = timeout(PATIENCE, answers.events.recv()).await.unwrap();
    let lost = lost.unwrap().to_string();
    assert!(lost.contains("1001"), "{lost}");
    timeout(PATIENCE, &mut server.running)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_responder_comes_back_to_the_same_url_by_itself() {
    let server = TestServer::start().await;
    let mut answers = answers(&server, "/answer/t", named("t").await).await;
    let url = answers.connected().await;
    assert_eq!(url, format!("http://{}/call/t", server.address));
    server
        .control
        .revoke(hookbot_protocol::DenyList::parse(&token("/")).unwrap())
        .await;
    let lost = timeout(PATIENCE, answers.events.recv()).await.unwrap();
    assert!(matches!(lost, Some(hookbot_tunnel::Event::Lost { .. })));
    // What the file says now is what counts.
    server
        .control
        .revoke(hookbot_protocol::DenyList::default())
        .await;
    assert_eq!(answers.connected().await, url);
    let answer = call(&server, "GET", "/call/t", "").await;
    assert_eq!(text(answer.into_body()).await, "t /");
}

#[tokio::test]
async fn a_wrong_token_is_an_error_at_once() {
    let server = TestServer::start().await;
    let url = format!("ws://{}@{}/answer/t", token("/answer/x"), server.address);
    let endpoint = hookbot_tunnel::Endpoint::new(&url).unwrap();
    let target = hookbot_tunnel::Target::new("http://127.0.0.1:1", Default::default()).unwrap();
    let responder = hookbot_tunnel::Responder::new(endpoint);
    let running = responder.run(target, CancellationToken::new(), drop);
    let error = timeout(PATIENCE, running).await.unwrap().unwrap_err();
    assert!(error.is_refusal() && !error.to_string().contains(&token("/answer/x")));
}

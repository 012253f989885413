//! Calls that come to no good end, by whichever side, and what the others see of it.

use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::callers::{
    answers, call, endless, figure, target, text, wait_for, wait_for_responders, whole,
};
use crate::support::{Options, PATIENCE, TestServer, token};

#[tokio::test]
async fn a_failed_call_says_which_side_has_failed() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.calls.timeout = Duration::from_secs(1);
        settings.calls.max_body = 1_000;
    }))
    .await;
    let said = async |path: &str, body: Vec<u8>| {
        let answer = call(&server, "POST", path, body).await;
        let status = answer.status().as_u16();
        (status, text(answer.into_body()).await)
    };
    let (status, reason) = said("/call/t", vec![]).await;
    assert_eq!((status, reason.contains("no responder")), (502, true));

    let _silent = answers(
        &server,
        "/answer/silent",
        target(|_| std::future::pending()).await,
    )
    .await;
    let (status, reason) = said("/call/silent", vec![]).await;
    assert_eq!(
        (status, reason.contains("the responder did not")),
        (504, true)
    );
    let (status, reason) = said("/call/silent", vec![0; 1_001]).await;
    assert_eq!((status, reason.contains("1000 bytes")), (413, true));

    // It is bound, so that nobody else gets it, and does not listen.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = nobody.local_addr().unwrap();
    let _gone = answers(&server, "/answer/gone", address).await;
    let (status, reason) = said("/call/gone", vec![]).await;
    assert_eq!((status, reason.contains("the target")), (502, true));
    assert!(reason.contains(&address.to_string()), "{reason}");
}

#[tokio::test]
async fn an_answer_that_is_cut_off_does_not_look_whole() {
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let server = TestServer::start().await;
        let (address, _, _gone) = endless(false).await;
        let answers = answers(&server, "/answer/t", address).await;
        let mut stream = server.connect().await;
        let bearer = format!("Bearer {}", token("/"));
        let head = format!("GET /call/t {version}\r\nHost: h\r\nAuthorization: {bearer}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"begun") {
            read.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
        }
        // As if it was killed: no goodbye, neither of HTTP/2 nor of the WebSocket.
        answers.running.abort();
        let mut rest = Vec::new();
        let end = timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .unwrap();
        let is_reset = end.is_err();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{version}");
        // Where there are no chunks, the end of the connection is all that tells.
        assert!(is_reset || version == "HTTP/1.1", "{version}");
        wait_for(&server, "hookbot_calls_total{outcome=\"cut\"}", 1).await;
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_takes_its_call_back_from_the_target() {
    let server = TestServer::start().await;
    let (gone, mut is_gone) = mpsc::unbounded_channel();
    let (reached, mut is_reached) = mpsc::unbounded_channel();
    let silent = target(move |_| {
        struct Gone(mpsc::UnboundedSender<()>);
        impl Drop for Gone {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let (guard, reached) = (Gone(gone.clone()), reached.clone());
        async move {
            let _guard = guard;
            reached.send(()).unwrap();
            std::future::pending().await
        }
    });
    let _silent = answers(&server, "/answer/waiting", silent.await).await;
    let (address, _, mut is_given_up) = endless(true).await;
    let _endless = answers(&server, "/answer/reading", address).await;
    let bearer = format!("Bearer {}", token("/"));
    let ask = async |path: &str, body: &str| {
        let mut stream = server.connect().await;
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nAuthorization: {bearer}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    for body in ["", "a whole body"] {
        let stream = ask("/call/waiting", body).await;
        timeout(PATIENCE, is_reached.recv()).await.unwrap();
        drop(stream);
        timeout(PATIENCE, is_gone.recv()).await.expect("given up");
    }
    let mut stream = ask("/call/reading", "").await;
    let mut read = Vec::new();
    while !read.ends_with(b"begun") {
        read.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    drop(stream);
    let given_up = timeout(PATIENCE, is_given_up.recv()).await;
    given_up.expect("given up in the middle of an answer");
    wait_for(&server, "hookbot_calls_in_flight", 0).await;
    assert_eq!(
        figure(&server, "hookbot_calls_total{outcome=\"hung_up\"}").await,
        3
    );
    wait_for_responders(&server, 2).await;
}

#[tokio::test]
async fn a_body_that_ends_early_is_no_whole_body_for_the_target() {
    let server = TestServer::start().await;
    let (told, mut was_told) = mpsc::unbounded_channel();
    let reader = target(move |request| {
        let told = told.clone();
        async move {
            told.send("begun").unwrap();
            let collected = request.into_body().collect().await;
            told.send(if collected.is_ok() { "whole" } else { "broken" })
                .unwrap();
            Response::new(whole(""))
        }
    });
    let _answers = answers(&server, "/answer/t", reader.await).await;
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let mut stream = server.connect().await;
        let head = format!(
            "POST /call/t HTTP/1.1\r\nHost: h\r\nHookbot-Token: {}\r\n{framing}\r\n\r\n5\r\nabcde\r\n",
            token("/")
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let told = timeout(PATIENCE, was_told.recv()).await.unwrap();
        assert_eq!(told, Some("begun"), "{framing}");
        stream.shutdown().await.unwrap();
        let told = timeout(PATIENCE, was_told.recv()).await.unwrap();
        assert_eq!(told, Some("broken"), "{framing}");
    }
}

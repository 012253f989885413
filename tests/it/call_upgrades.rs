//! Calls that become something else than HTTP.

use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::callers::{answers, request, send, target, text, wait_for, whole};
use crate::support::{PATIENCE, TestServer, read_to_end, token};

/// A target that takes WebSockets and echoes, but for `/no`, which it answers like any request.
async fn echoes() -> std::net::SocketAddr {
    target(|mut request| async move {
        if request.uri().path() == "/no" {
            let mut answer = Response::new(whole("none here"));
            *answer.status_mut() = StatusCode::ACCEPTED;
            return answer;
        }
        let request = &mut request;
        let upgrade = hyper::upgrade::on(&mut *request);
        let upgrading = request.headers()["upgrade"].clone();
        let mut answer = if upgrading == "websocket" {
            let bare = Request::from_parts(request_parts(request), ());
            tokio_tungstenite::tungstenite::handshake::server::create_response_with_body(
                &bare,
                || whole(""),
            )
            .unwrap()
        } else {
            let mut answer = Response::new(whole(""));
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = answer.headers_mut();
            headers.insert("upgrade", upgrading);
            headers.insert("connection", "upgrade".parse().unwrap());
            answer
        };
        answer.headers_mut().insert("x-own", "1".parse().unwrap());
        tokio::spawn(async move {
            let upgraded = upgrade.await.unwrap();
            let (mut read, mut write) = tokio::io::split(hyper_util::rt::TokioIo::new(upgraded));
            // Frames of a client are masked, so it is bytes that are echoed, with a mark.
            let mut space = [0; 1_024];
            while let Ok(length @ 1..) = read.read(&mut space).await {
                let _ = write.write_all(&space[..length]).await;
            }
        });
        answer
    })
    .await
}

fn request_parts(request: &Request<Incoming>) -> http::request::Parts {
    let mut bare = Request::new(());
    *bare.method_mut() = request.method().clone();
    *bare.uri_mut() = request.uri().clone();
    *bare.headers_mut() = request.headers().clone();
    bare.into_parts().0
}

#[tokio::test]
async fn a_connection_may_become_something_else() {
    let server = TestServer::start().await;
    let _answers = answers(&server, "/answer/t", echoes().await).await;
    let bearer = format!("Bearer {}", token("/"));
    let mut stream = server.connect().await;
    let head = format!(
        "GET /call/t HTTP/1.1\r\nHost: h\r\nAuthorization: {bearer}\r\n\
         Connection: Upgrade\r\nUpgrade: foo/1\r\n\r\nearly"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\nearly") {
        read.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    let text = String::from_utf8(read).unwrap().to_ascii_lowercase();
    assert!(text.starts_with("http/1.1 101"), "{text}");
    assert!(text.contains("upgrade: foo/1\r\n") && text.contains("x-own: 1\r\n"));
    stream.write_all(b"later").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, "later");
}

#[tokio::test]
async fn websockets_pass_and_close_as_they_should() {
    let server = TestServer::start().await;
    let ws = target(|mut request| async move {
        let bare = Request::from_parts(request_parts(&request), ());
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let stream = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
            let role = tokio_tungstenite::tungstenite::protocol::Role::Server;
            let mut socket =
                tokio_tungstenite::WebSocketStream::from_raw_socket(stream, role, None).await;
            while let Some(Ok(message)) = socket.next().await {
                if message.is_binary() || message.is_text() {
                    let _ = socket.send(message).await;
                }
            }
        });
        tokio_tungstenite::tungstenite::handshake::server::create_response_with_body(&bare, || {
            whole("")
        })
        .unwrap()
    });
    let _answers = answers(&server, "/answer/t", ws.await).await;
    let url = format!("ws://{}/call/t/socket", server.address);
    let mut asked = url.into_client_request().unwrap();
    let bearer = format!("Bearer {}", token("/")).parse().unwrap();
    asked.headers_mut().insert("authorization", bearer);
    let opened = tokio_tungstenite::client_async(asked, server.connect().await).await;
    let (mut socket, _) = opened.unwrap();
    for length in [0, 1, 125, 70_000, 500_000] {
        let message = Message::binary(vec![7; length]);
        socket.send(message.clone()).await.unwrap();
        let echoed = timeout(PATIENCE, socket.next()).await.unwrap();
        assert_eq!(echoed.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    let closed = timeout(PATIENCE, socket.next()).await.unwrap();
    assert!(closed.unwrap().unwrap().is_close());
    assert!(timeout(PATIENCE, socket.next()).await.unwrap().is_none());
    drop(socket);
    wait_for(&server, "hookbot_calls_in_flight", 0).await;
}

#[tokio::test]
async fn a_target_that_stays_with_http_is_answered_with_its_own_status() {
    let server = TestServer::start().await;
    let _answers = answers(&server, "/answer/t", echoes().await).await;
    let asked = request(&server, "GET", "/call/t/no")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .body(whole(""))
        .unwrap();
    let answer = send(&server, asked).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert!(!answer.headers().contains_key("hookbot-status"));
    assert_eq!(text(answer.into_body()).await, "none here");
}

//! A call and its answer: what passes, who answers, and how it ends.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_util::sync::CancellationToken;

use crate::callers::{
    AnyBody, MOMENT, answers, call, caller, data, fed, figure, request, send, target, text,
    wait_for, wait_for_responders, whole,
};
use crate::support::{Options, PATIENCE, TestServer, read_to_end, token};

/// Answers with what it has seen, as text.
async fn mirror(request: Request<Incoming>) -> Response<AnyBody> {
    let (parts, body) = request.into_parts();
    let mut seen = format!("{} {}\n", parts.method, parts.uri);
    for (name, value) in &parts.headers {
        seen += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    let body = body.collect().await.unwrap().to_bytes();
    seen += &format!("\n{}", String::from_utf8_lossy(&body));
    let mut answer = Response::new(whole(seen));
    *answer.status_mut() = StatusCode::IM_A_TEAPOT;
    let headers = answer.headers_mut();
    for (name, value) in [
        ("x-many", "1"),
        ("x-many", "2"),
        ("set-cookie", "a=1"),
        ("keep-alive", "timeout=1"),
        ("content-security-policy", "default-src 'self'"),
    ] {
        headers.append(name, value.parse().unwrap());
    }
    answer
}

#[tokio::test]
async fn a_call_reaches_the_target_and_its_answer_the_caller() {
    let server = TestServer::start().await;
    let _answers = answers(&server, "/answer/shop", target(mirror).await).await;
    let asked = request(&server, "PATCH", "/call/shop/a//b%2Fc?x=%20&y")
        .header("x-a", "1")
        .header("x-a", "2")
        .header("cookie", "c=1")
        .header("connection", "keep-alive, x-hop")
        .header("x-hop", "1")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-real-ip", "6.6.6.6")
        .body(whole("question"))
        .unwrap();
    let answer = send(&server, asked).await;
    assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT);
    let all = |name| answer.headers().get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(all("x-many"), ["1", "2"]);
    let policies = ["default-src 'self'", "sandbox"];
    assert_eq!(all("content-security-policy"), policies);
    assert!(all("set-cookie").is_empty() && all("keep-alive").is_empty());
    let seen = text(answer.into_body()).await;
    let (head, body) = seen.split_once("\n\n").unwrap();
    let lines: Vec<_> = head.lines().collect();
    assert_eq!(lines[0], "PATCH /a//b%2Fc?x=%20&y");
    for line in [
        "x-a: 1",
        "x-a: 2",
        "cookie: c=1",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-prefix: /call/shop",
        &format!("x-forwarded-host: {}", server.address),
        &format!(
            "forwarded: for=127.0.0.1;proto=http;host=\"{}\"",
            server.address
        ),
    ] {
        assert!(lines.contains(&line), "{line} in {head}");
    }
    assert!(!head.contains("x-hop") && !head.contains("6.6.6.6"));
    assert_eq!(body, "question");
}

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
async fn a_body_that_turns_out_too_large_is_refused_and_the_tunnel_lives() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.calls.max_body = 100_000;
    }))
    .await;
    let _answers = answers(&server, "/answer/t", target(mirror).await).await;
    let (sender, body) = fed();
    let feeding =
        tokio::spawn(async move { while sender.send(data(vec![0; 10_000])).await.is_ok() {} });
    let asked = request(&server, "POST", "/call/t").body(body).unwrap();
    let answer = send(&server, asked).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    feeding.abort();
    let answer = call(&server, "GET", "/call/t", "").await;
    assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT);
}

#[tokio::test]
async fn an_early_answer_comes_before_the_body_is_over() {
    let server = TestServer::start().await;
    let early = target(|_| async {
        let mut answer = Response::new(whole("enough"));
        *answer.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        answer
    });
    let _answers = answers(&server, "/answer/t", early.await).await;
    let (sender, body) = fed();
    sender.send(data("a little")).await.unwrap();
    let asked = request(&server, "POST", "/call/t").body(body).unwrap();
    let answer = send(&server, asked).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(text(answer.into_body()).await, "enough");
    drop(sender);
}

#[tokio::test]
async fn both_bodies_stream_and_trailers_follow() {
    let server = TestServer::start().await;
    let echo = target(|request| async {
        let mut answer = Response::new(crate::callers::boxed(request.into_body()));
        answer
            .headers_mut()
            .insert("trailer", "x-sum".parse().unwrap());
        answer
    });
    let _answers = answers(&server, "/answer/t", echo.await).await;
    let (sender, body) = fed();
    let asked = request(&server, "POST", "/call/t")
        .header("te", "trailers")
        .header("trailer", "x-sum")
        .body(body)
        .unwrap();
    let mut answer = send(&server, asked).await;
    for piece in ["one", "two", "three"] {
        sender.send(data(piece)).await.unwrap();
        let frame = timeout(PATIENCE, answer.frame()).await.unwrap();
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), piece);
    }
    let trailers: HeaderMap = [("x-sum".parse().unwrap(), "3".parse().unwrap())]
        .into_iter()
        .collect();
    sender.send(Ok(Frame::trailers(trailers))).await.unwrap();
    drop(sender);
    let frame = timeout(PATIENCE, answer.frame()).await.unwrap();
    let trailers = frame.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["x-sum"], "3");
}

#[tokio::test]
async fn an_answer_without_a_body_has_none() {
    let server = TestServer::start().await;
    let bare = target(|request| async move {
        let mut answer = Response::new(whole(""));
        let headers = answer.headers_mut();
        let status = match request.uri().path() {
            "/204" => StatusCode::NO_CONTENT,
            "/304" => {
                headers.insert("etag", "\"1\"".parse().unwrap());
                StatusCode::NOT_MODIFIED
            }
            _ => {
                headers.insert("content-length", "12345".parse().unwrap());
                StatusCode::OK
            }
        };
        *answer.status_mut() = status;
        answer
    });
    let _answers = answers(&server, "/answer/t", bare.await).await;
    for (line, status, header) in [
        ("HEAD /call/t/200", 200, ("content-length", Some("12345"))),
        ("GET /call/t/204", 204, ("content-length", None)),
        ("GET /call/t/304", 304, ("etag", Some("\"1\""))),
    ] {
        let bearer = format!("Bearer {}", token("/"));
        let reply = server
            .request(line, &[("Authorization", &bearer)], b"")
            .await;
        assert_eq!(reply.status, status, "{line}");
        assert_eq!(reply.header(header.0), header.1, "{line}");
        assert_eq!(reply.body, "", "{line}");
    }
}

#[tokio::test]
async fn server_sent_events_come_one_by_one() {
    let server = TestServer::start().await;
    let (tick, ticks) = mpsc::channel::<u32>(1);
    let ticks = Arc::new(tokio::sync::Mutex::new(ticks));
    let events = target(move |_| {
        let ticks = ticks.clone();
        async move {
            let (sender, body) = fed();
            tokio::spawn(async move {
                while let Some(number) = ticks.lock().await.recv().await {
                    let _ = sender.send(data(format!("data: {number}\n\n"))).await;
                }
            });
            let mut answer = Response::new(body);
            let text = "text/event-stream".parse().unwrap();
            answer.headers_mut().insert("content-type", text);
            answer
        }
    });
    let _answers = answers(&server, "/answer/t", events.await).await;
    let mut answer = call(&server, "GET", "/call/t", "").await;
    for number in 0..20 {
        tick.send(number).await.unwrap();
        let frame = timeout(PATIENCE, answer.frame()).await.unwrap();
        let event = frame.unwrap().unwrap().into_data().unwrap();
        assert_eq!(event, format!("data: {number}\n\n"));
    }
}

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

/// A target whose answer begins and never ends, and what it is told when it is given up.
async fn endless(
    framed: bool,
) -> (
    std::net::SocketAddr,
    Arc<Notify>,
    mpsc::UnboundedReceiver<()>,
) {
    let (gone, is_gone) = mpsc::unbounded_channel();
    let more = Arc::new(Notify::new());
    let wait = more.clone();
    let address = target(move |_| {
        let (gone, more) = (gone.clone(), wait.clone());
        async move {
            let (sender, body) = fed();
            tokio::spawn(async move {
                let _ = sender.send(data("begun")).await;
                tokio::select! {
                    () = sender.closed() => drop(gone.send(())),
                    () = more.notified() => {}
                }
            });
            let mut answer = Response::new(body);
            if framed {
                let length = "100".parse().unwrap();
                answer.headers_mut().insert("content-length", length);
            }
            answer
        }
    })
    .await;
    (address, more, is_gone)
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_goes_to_its_own_caller() {
    let long = std::env::var_os("HOOKBOT_TEST_LONG").is_some();
    let (callers, each) = if long { (200, 50) } else { (200, 5) };
    let server = Arc::new(TestServer::start().await);
    let echo = target(|request| async {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(whole([path.as_bytes(), b" ", &body].concat()))
    });
    let _answers = answers(&server, "/answer/t", echo.await).await;
    let mut all = JoinSet::new();
    for number in 0..callers {
        let server = server.clone();
        all.spawn(async move {
            let mut requests = caller(&server).await;
            for round in 0..each {
                let path = format!("/{number}/{round}");
                // Of different lengths, some in many frames.
                let length = (number * 7_919 + round * 104_729) % 100_000;
                let body: Bytes = path.bytes().cycle().take(length).collect();
                let asked = request(&server, "POST", &format!("/call/t{path}"))
                    .body(whole(body.clone()))
                    .unwrap();
                let answer = requests.send_request(asked).await.unwrap();
                let got = answer.into_body().collect().await.unwrap().to_bytes();
                assert!(got == [path.as_bytes(), b" ", &body].concat());
                requests.ready().await.unwrap();
            }
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
    let answered = figure(&server, "hookbot_calls_total{outcome=\"answered\"}").await;
    assert_eq!(answered, (callers * each) as u64);
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

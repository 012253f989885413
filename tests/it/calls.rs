//! A call and its answer: what passes.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::callers::{
    AnyBody, answers, call, caller, data, fed, figure, request, send, target, text, whole,
};
use crate::support::{Options, PATIENCE, TestServer, token};

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

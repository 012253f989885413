//! A call and its answer: what passes, and what does not.

use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::callers::{
    AnyBody, answers, boxed, call, caller, fed, request, send, target, text, whole,
};
use crate::support::{Options, TestServer, token};

/// Answers with what it has seen, as text.
async fn mirror(request: http::Request<Incoming>) -> Response<AnyBody> {
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
    for (name, value) in [("x-many", "1"), ("x-many", "2"), ("set-cookie", "a=1")] {
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
        .body(whole("question"))
        .unwrap();
    let answer = send(&server, asked).await;
    assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT);
    let many: Vec<_> = answer.headers().get_all("x-many").iter().collect();
    assert_eq!(many, ["1", "2"]);
    assert_eq!(answer.headers()["content-security-policy"], "sandbox");
    assert!(!answer.headers().contains_key("set-cookie"));
    let seen = text(answer.into_body()).await;
    let (head, body) = seen.split_once("\n\n").unwrap();
    let mut lines = head.lines();
    assert_eq!(
        lines.next(),
        Some("PATCH //b%2Fc?x=%20&y").map(|_| "PATCH /a//b%2Fc?x=%20&y")
    );
    let lines: Vec<_> = lines.collect();
    for line in [
        "x-a: 1",
        "x-a: 2",
        "cookie: c=1",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-prefix: /call/shop",
        &format!("x-forwarded-host: {}", server.address),
    ] {
        assert!(lines.contains(&line), "{line} in {head}");
    }
    assert!(!head.contains("x-hop") && !head.contains("6.6.6.6") && !head.contains(&token("/")));
    assert_eq!(body, "question");
}

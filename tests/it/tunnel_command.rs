//! `hookbot tunnel`, as it is run.

use std::process::Stdio;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::callers::{call, data, fed, target, text, whole};
use crate::support::{PATIENCE, TestServer, token};

/// The command, and what it prints.
struct Tunnel {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tunnel {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hookbot"))
            .arg("tunnel")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        line.expect("a line").unwrap().expect("a line")
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    async fn code(&mut self) -> Option<i32> {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.expect("an end").unwrap().code()
    }
}

fn url(server: &TestServer, own: &str) -> String {
    format!("ws://{own}@{}/answer/shop", server.address)
}

#[tokio::test]
async fn the_command_tells_the_url_and_a_line_a_call_and_no_token() {
    let server = TestServer::start().await;
    let own = token("/answer/shop");
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let saved = folder.path().join("saved");
    let echo = target(async |request: Request<Incoming>| {
        let seen = format!("{} {:?}", request.uri(), request.headers());
        // What is not read before the answer may never be sent, nor saved.
        text(request.into_body()).await;
        let mut answer = Response::new(whole(seen));
        *answer.status_mut() = http::StatusCode::CREATED;
        answer
    });
    let service = format!("http://localhost:{}/api", echo.await.port());
    let mut tunnel = Tunnel::start(&[
        &url(&server, &own),
        &service,
        "--path-prefix",
        "v1",
        "--header",
        "X-Team: infra",
        "--host-header",
        "shop.example.com",
        "--ready-file",
        ready.to_str().unwrap(),
        "--inspect",
        saved.to_str().unwrap(),
    ]);
    let call_url = format!("http://{}/call/shop", server.address);
    assert_eq!(
        tunnel.line().await,
        format!("answering calls to {call_url}")
    );
    let answer = call(&server, "POST", "/call/shop/orders?id=7", "question").await;
    assert_eq!(answer.status(), 201);
    let seen = text(answer.into_body()).await;
    assert!(seen.starts_with("/api/v1/orders?id=7 "), "{seen}");
    assert!(
        seen.contains("\"host\": \"shop.example.com\"") && seen.contains("infra"),
        "{seen}"
    );
    let line = tunnel.line().await;
    assert!(line.starts_with("POST /orders 201 "), "{line}");
    assert_eq!(
        std::fs::read_to_string(&ready).unwrap(),
        format!("{call_url}\n")
    );
    let body = async {
        loop {
            let files = std::fs::read_dir(&saved).unwrap().map(Result::unwrap);
            let mut files = files.map(|file| file.path());
            if files.any(|file| file.extension().is_some_and(|own| own == "json")) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, body).await.expect("a saved call");
    let mut kept = String::new();
    for file in std::fs::read_dir(&saved).unwrap() {
        kept += &std::fs::read_to_string(file.unwrap().path()).unwrap();
    }
    assert!(
        kept.contains("question") && kept.contains("/orders"),
        "{kept}"
    );
    assert!(!kept.contains(&token("/")), "{kept}");
    tunnel.signal(Signal::TERM);
    assert_eq!(tunnel.code().await, Some(0));
}

#[tokio::test]
async fn the_command_ends_open_calls_before_it_stops() {
    let server = TestServer::start().await;
    let (sender, body) = fed();
    let body = std::sync::Mutex::new(Some(body));
    let slow = target(move |_| {
        let body = body.lock().unwrap().take().unwrap();
        async move { Response::new(body) }
    });
    let service = format!("http://{}", slow.await);
    let mut tunnel = Tunnel::start(&["--json", &url(&server, &token("/answer/")), &service]);
    assert!(tunnel.line().await.starts_with("{\"connected\":\"http://"));
    sender.send(data("begun, ")).await.unwrap();
    let answer = call(&server, "GET", "/call/shop", "").await;
    let line = tunnel.line().await;
    assert!(
        line.contains("\"status\":200") && line.contains("\"method\":\"GET\""),
        "{line}"
    );
    tunnel.signal(Signal::TERM);
    // No new calls; this one goes on.
    let refused = async { while call(&server, "GET", "/call/shop", "").await.status() != 502 {} };
    timeout(PATIENCE, refused).await.expect("no new calls");
    sender.send(data("and ended")).await.unwrap();
    drop(sender);
    assert_eq!(text(answer.into_body()).await, "begun, and ended");
    assert_eq!(tunnel.code().await, Some(0));
}

#[tokio::test]
async fn the_command_comes_back_after_a_restart_and_is_refused_at_once_by_a_wrong_token() {
    let server = TestServer::start().await;
    let service = format!(
        "http://{}",
        target(async |_| Response::new(whole("here"))).await
    );
    let mut wrong = Tunnel::start(&[&url(&server, &token("/answer/x")), &service]);
    assert_eq!(wrong.code().await, Some(3));
    let mut bad = Tunnel::start(&[&url(&server, "t"), "ftp://h"]);
    assert_eq!(bad.code().await, Some(2));

    let mut tunnel = Tunnel::start(&[&url(&server, &token("/answer/")), &service]);
    let connected = tunnel.line().await;
    let denied = hookbot_protocol::DenyList::parse(&token("/answer/")).unwrap();
    server.control.revoke(denied).await;
    crate::callers::wait_for_responders(&server, 0).await;
    server.control.revoke(Default::default()).await;
    assert_eq!(tunnel.line().await, connected);
    let answer = call(&server, "GET", "/call/shop", "").await;
    assert_eq!(text(answer.into_body()).await, "here");
}

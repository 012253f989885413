use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::forward_stage::{Act, Service, Stage, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_run_until_it_has_taken_the_message() {
    let stage = Stage::new().await;
    let log = stage.path("log");
    // It fails the first time.
    let command = format!(
        "echo $HOOKBOT_ATTEMPT $HOOKBOT_TOPIC $(cat) ${{HOOKBOT_KEY:-none}} >> {}; \
         test $HOOKBOT_ATTEMPT -gt 1",
        log.display()
    );
    let source = stage.url("/sub/a/");
    let arguments = ["forward", &source, "--exec", &command, "--count", "2"];
    let mut command = stage.command(&arguments);
    command.env("HOOKBOT_KEY", "secret of the server");
    let running = stage.start(command).await;
    for number in 1..=2 {
        stage.publish("a/b", &number.to_string()).await;
    }
    let (code, _, err) = running.ended().await;
    assert_eq!(code, Some(0), "{err}");
    let lines = std::fs::read_to_string(log).unwrap();
    assert_eq!(
        lines,
        "1 a/b 1 none\n2 a/b 1 none\n1 a/b 2 none\n2 a/b 2 none\n"
    );
    assert!(
        err.contains("2 delivered, 2 retried, 0 put aside, 0 skipped in "),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gosmees_spellings_are_understood() {
    let stage = Stage::new().await;
    let (service, url) = Service::start(|_| Act::Answer(200)).await;
    let (source, saved) = (stage.url("/sub/a/"), stage.path("saved"));
    let saved = saved.display().to_string();
    let command = stage.command(&[
        "client",
        &source,
        &url,
        "--noReplay",
        "--saveDir",
        &saved,
        "-o",
        "json",
        "--nocolor",
        "--channel",
        "messages",
        "--log-level",
        "info",
        "--target-connection-timeout",
        "3",
        "--target-retries",
        "2",
        "--insecure-skip-tls-verify",
        "--exec",
        "echo $GOSMEE_EVENT_TYPE",
        "--exec-on-events",
        "push",
        "--count",
        "1",
    ]);
    let running = stage.start(command).await;
    let head = format!(
        "POST /pub/a/b HTTP/1.1\r\nHost: h\r\nHookbot-Token: {}\r\n",
        crate::support::token("/")
    );
    let rest = "X-GitHub-Event: push\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    stage.server.raw(format!("{head}{rest}")).await;
    let (code, out, err) = running.ended().await;
    assert_eq!(code, Some(0), "{err}");
    // What the command prints is not among the lines for scripts.
    assert!(out.lines().all(|line| line.starts_with('{')), "{out}");
    assert!(err.lines().any(|line| line == "push"), "{err}");
    assert!(service.seen().is_empty());
    assert_eq!(std::fs::read_dir(saved).unwrap().count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_refuses_ends_it_and_too_little_in_time_is_a_failure() {
    let stage = Stage::new().await;
    let (_, url) = Service::start(|_| Act::Answer(200)).await;
    let wrong = format!("ws://wrong@{}/sub/a/", stage.server.address);
    let output = stage.run(&["forward", &wrong, &url]).await;
    assert_eq!(output.status.code(), Some(3));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(
        err.contains("401 Unauthorized") && !err.contains("wrong"),
        "{err}"
    );

    let source = stage.url("/unsafe/sub/a/");
    let output = stage.run(&["forward", &source, &url]).await;
    assert_eq!(output.status.code(), Some(3));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(
        err.contains("400 Bad Request: X-Hookbot-Unsafe-Is-Ok header required. That is what"),
        "{err}"
    );

    let source = stage.url("/sub/a/");
    let output = stage
        .run(&[
            "forward", &source, &url, "--count", "1", "--within", "100ms",
        ])
        .await;
    assert_eq!(output.status.code(), Some(5));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(
        err.contains("0 of 1 messages were dealt with within 100ms"),
        "{err}"
    );
}

async fn health(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    text.get(9..12).map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_says_whether_it_hears_the_source() {
    let stage = Stage::new().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let (_, url) = Service::start(|_| Act::Answer(200)).await;
    let text = address.to_string();
    let _running = stage.forward("/sub/a/", &["--health", &text, &url]).await;
    assert_eq!(health(address).await.as_deref(), Some("200"));

    // A server that accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = format!("ws://{}/sub/b/", silent.local_addr().unwrap());
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let text = address.to_string();
    let mut command = stage.command(&["forward", &source, &url, "--health", &text]);
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut status = None;
    while status.is_none() {
        status = health(address).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(status.as_deref(), Some("503"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_line_for_scripts_says_what_became_of_a_message() {
    let stage = Stage::new().await;
    let (service, url) = Service::start(|seen| match seen.header("hookbot-attempt") {
        Some("1") => Act::Answer(503),
        _ => Act::Answer(200),
    })
    .await;
    let url = format!("{url}?key=s3cret");
    let running = stage
        .forward("/sub/a/", &["--json", "--count", "1", &url])
        .await;
    stage.publish("a/b", "12345").await;
    let (code, out, err) = running.ended().await;
    assert_eq!(code, Some(0), "{err}");
    let lines: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let what: Vec<_> = lines
        .iter()
        .map(|line| line["what"].as_str().unwrap())
        .collect();
    assert_eq!(what, ["failed", "delivered", "summary"]);
    assert_eq!(
        (&lines[0]["code"], &lines[0]["attempt"]),
        (&503.into(), &1.into())
    );
    assert!(lines[0]["again_ms"].as_f64().unwrap() <= 500.0);
    assert_eq!(
        (&lines[1]["topic"], &lines[1]["size"]),
        (&"a/b".into(), &5.into())
    );
    assert!(
        !out.contains("s3cret") && !err.contains("s3cret"),
        "{out}{err}"
    );
    until(|| service.seen().len() == 2, String::new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_container_it_is_said_once_whose_localhost_it_is() {
    let stage = Stage::new().await;
    stage.publish("a/b", "1").await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let (source, target) = (stage.url("/sub/a/"), format!("http://localhost:{port}/"));
    let mut command = stage.command(&["forward", &source, &target, "--no-state"]);
    command
        .args(["--after", "start", "--count", "1", "--retries", "2"])
        .env("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        .env("RUST_LOG", "warn");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    let (out, err) = (output.stdout, String::from_utf8(output.stderr).unwrap());
    assert_eq!(
        err.matches("localhost is the container itself").count(),
        1,
        "{err}"
    );
    // All attempts say what they tried.
    let out = String::from_utf8(out).unwrap();
    assert_eq!(out.matches("Connection refused").count(), 3, "{out}");
    assert!(
        err.contains("error: 1 of 1 messages were put aside"),
        "{err}"
    );
}

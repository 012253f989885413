//! `hookbot replay`: what was saved, and what a log has, once more.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::SystemTime;

use hookbot_forward::{Message, Saver, ScriptOptions};
use hookbot_protocol::event::Event;
use hookbot_protocol::{Headers, Publication, Topic};
use hookbot_signatures::{Provider, Request, Scheme, Secret};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::{PATIENCE, TestServer, token};

/// A service that keeps what it gets.
struct Service {
    url: String,
    taken: mpsc::UnboundedReceiver<Taken>,
}

/// A request that it got.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Taken {
    line: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Service {
    /// Answers with these, and with `200 OK` from then on.
    async fn start(statuses: &'static [u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (keep, taken) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut statuses = statuses.iter();
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                while let Some(request) = receive(&mut stream).await {
                    let _ = keep.send(request);
                    let status = statuses.next().unwrap_or(&200);
                    let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        Self { url, taken }
    }

    /// Everything that it got until now.
    fn all(&mut self) -> Vec<Taken> {
        std::iter::from_fn(|| self.taken.try_recv().ok()).collect()
    }

    fn bodies(&mut self) -> Vec<String> {
        let all = self.all().into_iter();
        all.map(|taken| String::from_utf8(taken.body).unwrap())
            .collect()
    }
}

async fn receive(stream: &mut BufReader<TcpStream>) -> Option<Taken> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        stream.read_until(b'\n', &mut line).await.ok()?;
        let line = line.strip_suffix(b"\r\n")?.to_vec();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let first = String::from_utf8(lines.remove(0)).unwrap();
    let headers: Vec<_> = lines
        .into_iter()
        .map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').unwrap();
            let name = String::from_utf8(line[..colon].to_vec()).unwrap();
            (name, line[colon + 1..].trim_ascii().to_vec())
        })
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| {
        str::from_utf8(value).unwrap().parse().unwrap()
    });
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Taken {
        line: first,
        headers,
        body,
    })
}

async fn replay(arguments: &[&str]) -> Output {
    let child = Command::new(env!("CARGO_BIN_EXE_hookbot"))
        .arg("replay")
        .args(arguments)
        .env("RUST_LOG", "info")
        .env("A_SECRET", "whsec_x")
        .env(
            "A_STANDARD_SECRET",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        )
        .env_remove("HTTP_PROXY")
        .env_remove("http_proxy")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    timeout(PATIENCE, child)
        .await
        .expect("it does not end")
        .unwrap()
}

fn message(time: &str, headers: &[(&str, &[u8])], body: &[u8]) -> Message {
    Message {
        event: Event {
            cursor: String::new(),
            topic: "t".to_owned(),
            time: time.to_owned(),
            method: "PUT".to_owned(),
            query: "a=%20&b".to_owned(),
            address: "192.0.2.1:9".to_owned(),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).into()))
                .collect(),
            attributes: std::collections::BTreeMap::new(),
        },
        payload: body.to_vec().into(),
    }
}

async fn save(folder: &Path, messages: &[Message]) {
    let saver = Saver::new(folder, ScriptOptions::default()).unwrap();
    for message in messages {
        saver.save(message).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_saved_arrives_byte_for_byte_in_order_and_as_often() {
    let folder = tempfile::tempdir().unwrap();
    let bodies = [&b"\0\xff\r\n"[..], b"", b"same", b"same", b"{\"a\":1}\n"];
    let headers = [("x-a", &b"1"[..]), ("x-b", b"\xff'"), ("x-a", b"2")];
    let messages = bodies.map(|body| message("2026-01-31T12:00:00.000Z", &headers, body));
    save(folder.path(), &messages).await;

    let mut service = Service::start(&[]).await;
    let url = format!("{}/hook?z=1", service.url);
    let output = replay(&[folder.path().to_str().unwrap(), &url]).await;
    assert!(output.status.success(), "{output:?}");
    let all = service.all();
    assert_eq!(
        all.iter().map(|taken| &*taken.body).collect::<Vec<_>>(),
        bodies
    );
    for taken in &all {
        assert_eq!(taken.line, "PUT /hook?z=1&a=%20&b HTTP/1.1");
        let own = taken
            .headers
            .iter()
            .filter(|(name, _)| name == "x-a" || name == "x-b");
        let own: Vec<_> = own.map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(own, [("x-a", &b"1"[..]), ("x-a", b"2"), ("x-b", b"\xff'")]);
    }
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), 5, "{lines}");
}

fn event(time: &str, event: &str, body: &str) -> Message {
    message(
        time,
        &[("x-github-event", event.as_bytes())],
        body.as_bytes(),
    )
}

#[tokio::test]
async fn only_what_is_wanted_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    save(
        folder.path(),
        &[
            event("2026-01-31T12:00:00.000Z", "push", "{\"n\":1}"),
            event("2026-01-31T13:00:00.000Z", "ping", "{\"n\":2}"),
            event("2026-01-31T14:00:00.000Z", "push", "{\"n\":3}"),
        ],
    )
    .await;
    let folder = folder.path().to_str().unwrap();
    let mut service = Service::start(&[]).await;
    for (arguments, expected) in [
        (&[][..], &["{\"n\":1}", "{\"n\":2}", "{\"n\":3}"][..]),
        (&["--event", "push"], &["{\"n\":1}", "{\"n\":3}"]),
        (&["--ignore-event", "push"], &["{\"n\":2}"]),
        (&["--filter", "body.n > 2"], &["{\"n\":3}"]),
        (
            &["--since", "2026-01-31T13:00:00Z"],
            &["{\"n\":2}", "{\"n\":3}"],
        ),
        (
            &["--until", "2026-01-31T13:00:00Z"],
            &["{\"n\":1}", "{\"n\":2}"],
        ),
        (&["--since", "1h"], &[]),
        (&["--dry-run"], &[]),
        (
            &["--pace", "1000000x"],
            &["{\"n\":1}", "{\"n\":2}", "{\"n\":3}"],
        ),
        (
            &["--pace", "1000/s"],
            &["{\"n\":1}", "{\"n\":2}", "{\"n\":3}"],
        ),
    ] {
        let output = replay(&[arguments, &[folder, &service.url]].concat()).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert_eq!(service.bodies(), expected, "{arguments:?}");
        if arguments == ["--dry-run"] {
            let lines = String::from_utf8(output.stdout).unwrap();
            assert_eq!(lines.lines().count(), 3, "{lines}");
            let sum = String::from_utf8(output.stderr).unwrap();
            assert!(sum.contains("3 would be sent, "), "{sum}");
        }
    }
    // Options stand anywhere.
    let output = replay(&[folder, "--event", "ping", &service.url, "--quiet"]).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        (service.bodies(), &*output.stdout),
        (vec!["{\"n\":2}".to_owned()], &b""[..])
    );
    for wrong in [
        &["--pace", "often"][..],
        &["--filter", "body."],
        &["--since", "then"],
        &["--resign", "stripe"],
        &["--secret", "s"],
    ] {
        let output = replay(&[wrong, &[folder, &service.url]].concat()).await;
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
    }
    assert_eq!(service.all(), []);
}

#[tokio::test]
async fn what_is_not_taken_is_offered_again_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let messages = ["1", "2", "3"].map(|body| event("2026-01-31T12:00:00.000Z", "push", body));
    save(folder.path(), &messages).await;
    // The first is taken late, and the second never will be.
    let mut service = Service::start(&[503, 200, 422]).await;
    let output = replay(&["--json", folder.path().to_str().unwrap(), &service.url]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(service.bodies(), ["1", "1", "2", "3"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let what: Vec<_> = lines
        .iter()
        .map(|line| line["what"].as_str().unwrap())
        .collect();
    assert_eq!(
        what,
        ["failed", "delivered", "parked", "delivered", "summary"]
    );
    assert_eq!(
        (&lines[1]["attempt"], &lines[1]["code"]),
        (&2.into(), &200.into())
    );
    assert_eq!(
        (&lines[1]["event"], &lines[1]["size"]),
        (&"push".into(), &1.into())
    );
    assert_eq!(lines[1]["published"], "2026-01-31T12:00:00.000Z");
    assert_eq!(
        (&lines[4]["delivered"], &lines[4]["parked"]),
        (&2.into(), &1.into())
    );
}

#[tokio::test]
async fn a_file_that_was_changed_is_told_and_the_others_are_sent() {
    let folder = tempfile::tempdir().unwrap();
    let saver = Saver::new(folder.path(), ScriptOptions::default()).unwrap();
    let mut files = Vec::new();
    for body in ["1", "2"] {
        files.push(saver.save(&event("", "push", body)).await.unwrap());
    }
    std::fs::write(&files[0], "other").unwrap();
    let mut service = Service::start(&[]).await;
    let output = replay(&[folder.path().to_str().unwrap(), &service.url]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("SHA-256"),
        "{output:?}"
    );
    assert_eq!(service.bodies(), ["2"]);
}

#[tokio::test]
async fn an_old_message_is_signed_anew() {
    let folder = tempfile::tempdir().unwrap();
    let old = message(
        "2026-01-31T12:00:00.000Z",
        &[
            ("stripe-signature", b"t=1,v1=00"),
            ("content-type", b"application/json"),
        ],
        b"{\"id\":\"evt_1\",\"type\":\"charge.failed\"}\n",
    );
    save(folder.path(), &[old]).await;
    let mut service = Service::start(&[]).await;
    let folder = folder.path().to_str().unwrap();
    let resign = ["--resign", "stripe", "--secret", "env:A_SECRET"];
    for (more, body) in [
        (
            &[][..],
            &b"{\"id\":\"evt_1\",\"type\":\"charge.failed\"}\n"[..],
        ),
        // What is sent is what is signed.
        (&["--transform", "{{ body.type }}"], b"charge.failed"),
    ] {
        let output = replay(&[&resign[..], more, &[folder, &service.url]].concat()).await;
        assert!(output.status.success(), "{output:?}");
        let taken = service.all().remove(0);
        assert_eq!(taken.body, body);
        let mut headers = Headers::default();
        for (name, value) in &taken.headers {
            headers.push(name, value);
        }
        let request = Request {
            method: "PUT",
            url: "",
            headers: &headers,
            body,
        };
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        let secrets = [Secret::new("whsec_x").unwrap()];
        Scheme::from(Provider::Stripe)
            .verify(&secrets, &request, now.as_secs())
            .unwrap();
        let shown = format!("{output:?}");
        assert!(!shown.contains("whsec_x"), "{shown}");
    }

    // What can't be signed is not sent: for its secret, or for what it lacks.
    for (secret, code) in [("env:A_SECRET", 2), ("env:A_STANDARD_SECRET", 1)] {
        let resign = ["--resign", "standard-webhooks", "--secret", secret];
        let output = replay(&[&resign[..], &[folder, &service.url]].concat()).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
    assert_eq!(service.all(), []);
}

async fn publish(server: &TestServer, topic: &str, bodies: std::ops::Range<u32>) {
    for body in bodies {
        let publication = Publication::new(Topic::parse(topic).unwrap(), body.to_string());
        server.broker.publish(publication).await.unwrap();
    }
}

fn subscription(server: &TestServer, rest: &str) -> String {
    format!("ws://{}@{}/sub/t{rest}", token("/sub/t"), server.address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_replayed_up_to_now_and_no_further() {
    let server = TestServer::start().await;
    // What is sent to the same topic comes behind the end, or this would go on for ever.
    let pub_url = format!("http://{}@{}/pub/t", token("/pub/t"), server.address);
    publish(&server, "t", 0..100).await;
    let output = replay(&[&subscription(&server, "?after=start"), &pub_url]).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 100);

    // The last message there is is another topic's. No ping comes before `PATIENCE` is over.
    publish(&server, "other", 0..10).await;
    let mut service = Service::start(&[]).await;
    for rest in ["?after=start", "?since=1h"] {
        let output = replay(&[&subscription(&server, rest), &service.url]).await;
        assert!(output.status.success(), "{output:?}");
        let expected: Vec<_> = (0..100).chain(0..100).map(|n: u32| n.to_string()).collect();
        assert_eq!(service.bodies(), expected);
    }
    let output = replay(&[
        "--since",
        "1h",
        "--dry-run",
        &subscription(&server, ""),
        &service.url,
    ])
    .await;
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).lines().count(),
        200,
        "{output:?}"
    );
    assert_eq!(service.all(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_log_is_over_at_once_and_one_that_grows_is_over_too() {
    let server = TestServer::start().await;
    let mut service = Service::start(&[]).await;
    let output = replay(&[&subscription(&server, "?after=start"), &service.url]).await;
    assert!(output.status.success(), "{output:?}");

    publish(&server, "t", 0..10).await;
    let url = subscription(&server, "?after=start");
    let target = service.url.clone();
    let arguments = [&*url, &target];
    let grow = async {
        for n in 10.. {
            publish(&server, "t", n..n + 1).await;
            tokio::task::yield_now().await;
        }
    };
    let output = tokio::select! {
        output = replay(&arguments) => output,
        () = grow => unreachable!("it grows for ever"),
    };
    assert!(output.status.success(), "{output:?}");
    let bodies = service.bodies();
    let expected: Vec<_> = (0..bodies.len()).map(|n| n.to_string()).collect();
    assert_eq!(bodies, expected);
    assert!(bodies.len() >= 10);
}

#[tokio::test]
async fn what_can_not_be_replayed_says_why() {
    let server = TestServer::start().await;
    let service = Service::start(&[]).await;
    let wrong = format!("ws://wrong@{}/sub/t?after=start", server.address);
    let output = replay(&[&wrong, &service.url]).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let endless = subscription(&server, "");
    let output = replay(&[&endless, &service.url]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("--since"),
        "{output:?}"
    );

    // Bound, so that nobody else gets it, and nobody listens.
    let nobody = TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nowhere = format!("ws://{}/sub/t?after=start", nobody.local_addr().unwrap());
    assert_eq!(
        replay(&[&nowhere, &service.url]).await.status.code(),
        Some(4)
    );
    assert_eq!(
        replay(&["/no/such/folder", &service.url])
            .await
            .status
            .code(),
        Some(2)
    );
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    assert_eq!(replay(&[folder, "ftp://h/"]).await.status.code(), Some(2));
    assert_eq!(
        replay(&[folder, &endless, &service.url])
            .await
            .status
            .code(),
        Some(2)
    );
    assert_eq!(replay(&[folder]).await.status.code(), Some(2));
    assert!(replay(&[folder, &service.url]).await.status.success());
}

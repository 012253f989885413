//! What is saved is sent again by the script beside it, with real shells and a real curl.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::JoinHandle;

use hookbot_forward::{Message, Saver, ScriptOptions};
use hookbot_protocol::event::Event;

/// A request as its bytes were.
struct Request {
    line: Vec<u8>,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
}

/// A service that takes one request.
fn service() -> (SocketAddr, JoinHandle<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let request = receive(&stream);
        (&stream)
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nYes")
            .unwrap();
        request
    });
    (address, served)
}

fn receive(stream: &TcpStream) -> Request {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line).unwrap();
        line.strip_suffix(b"\r\n").expect("a whole line").to_vec()
    };
    let first = line();
    let mut headers = Vec::new();
    loop {
        let header = line();
        if header.is_empty() {
            break;
        }
        let colon = header.iter().position(|byte| *byte == b':').unwrap();
        headers.push((
            header[..colon].to_vec(),
            header[colon + 1..].trim_ascii().to_vec(),
        ));
    }
    let length = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(b"content-length"));
    let length = length.map_or(0, |(_, value)| {
        str::from_utf8(value).unwrap().parse().unwrap()
    });
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    Request {
        line: first,
        headers,
        body,
    }
}

fn message(headers: &[(&str, &[u8])], body: &[u8]) -> Message {
    Message {
        event: Event {
            cursor: String::new(),
            topic: "a/b".to_owned(),
            time: "2026-01-31T12:30:00.000Z".to_owned(),
            method: "PUT".to_owned(),
            query: "a=1&b='x'&c=$(touch canary)`touch canary`\"".to_owned(),
            address: String::new(),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).into()))
                .collect(),
            attributes: BTreeMap::new(),
        },
        payload: body.to_vec().into(),
    }
}

async fn save(folder: &Path, options: ScriptOptions, message: &Message) -> PathBuf {
    let saver = Saver::new(folder, options).unwrap();
    saver.save(message).await.unwrap().with_extension("sh")
}

fn run(shell: &str, script: &Path, arguments: &[&str]) -> Output {
    Command::new(shell)
        .arg(script)
        .args(arguments)
        .current_dir(script.parent().unwrap())
        .env_remove("HOOKBOT_DEBUG_SERVICE")
        .env_remove("GOSMEE_DEBUG_SERVICE")
        .env("NO_PROXY", "*")
        .output()
        .unwrap()
}

/// Headers and bodies that a shell, curl or a file system could take for something else.
const HOSTILE: [&[u8]; 10] = [
    b"it's \"quoted\" \\ and \\' too",
    b"$(touch canary) `touch canary` ${HOME} !! ~",
    b"; touch canary & touch canary | touch canary",
    b"-o canary",
    b"@/etc/passwd",
    b"\xff\xfe not UTF-8 \xe2\x82",
    "ünïcode ☃".as_bytes(),
    b"%s%n %00 \\x41",
    b"^' '^ ^!",
    b"{a,b} [c] *? #",
];

#[tokio::test]
async fn a_script_sends_every_byte_again_and_runs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<_> = (0..HOSTILE.len()).map(|n| format!("x-h{n}")).collect();
    let headers = names.iter().map(|name| &**name).zip(HOSTILE);
    let headers: Vec<_> = [("x-repeat", &b"1"[..]), ("x-empty", b"")]
        .into_iter()
        .chain(headers)
        .chain([
            ("x-repeat", &b"2"[..]),
            ("x-bad", b"a\r\nx-smuggled: 1\n$(touch canary)"),
        ])
        .collect();
    let bodies = [
        HOSTILE.concat(),
        b"line\r\nline\n\rline\n\n\0\0".to_vec(),
        b"@canary".to_vec(),
        b"-".to_vec(),
        b"".to_vec(),
        (0..=255).cycle().take(100_000).collect(),
    ];
    for shell in ["dash", "bash"] {
        for body in &bodies {
            let script = save(
                folder.path(),
                ScriptOptions::default(),
                &message(&headers, body),
            )
            .await;
            let (address, served) = service();
            let output = run(shell, &script, &[&format!("http://{address}/hook?z=1#top")]);
            assert!(output.status.success(), "{shell}: {output:?}");
            let request = served.join().unwrap();
            assert_eq!(request.body, *body, "{shell}");
            assert_eq!(
                String::from_utf8_lossy(&request.line),
                "PUT /hook?z=1&a=1&b='x'&c=$(touch%20canary)`touch%20canary`\" HTTP/1.1",
            );
            let sent: Vec<_> = request
                .headers
                .iter()
                .map(|(name, value)| (str::from_utf8(name).unwrap(), &**value))
                .filter(|(name, _)| !["Host", "Content-Length"].contains(name))
                .collect();
            assert_eq!(sent, headers[..headers.len() - 1], "{shell}");
        }
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 3 * 2 * bodies.len(), "{left:?}");
}

#[tokio::test]
async fn a_script_says_where_it_sends_and_is_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let (first, served) = service();
    let options = ScriptOptions {
        target: Some(format!("http://{first}/first")),
        ..ScriptOptions::default()
    };
    let script = save(folder.path(), options, &message(&[], b"x")).await;
    let line = |request: Request| String::from_utf8(request.line).unwrap();

    // Executable as it is.
    let output = Command::new(&script).env("NO_PROXY", "*").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.ends_with(b"Yes"), "{output:?}");
    assert!(line(served.join().unwrap()).starts_with("PUT /first?a=1"));

    for arguments in [&["-l"][..], &[], &["--local", "-v"]] {
        let (address, served) = service();
        let output = Command::new(&script)
            .args(arguments)
            .env("NO_PROXY", "*")
            .env("GOSMEE_DEBUG_SERVICE", format!("http://{address}/debug"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(line(served.join().unwrap()).starts_with("PUT /debug?a=1"));
    }
    let (address, served) = service();
    let output = run("sh", &script, &["-t", &format!("http://{address}")]);
    assert!(output.status.success(), "{output:?}");
    assert!(line(served.join().unwrap()).starts_with("PUT /?a=1"));

    let help = run("dash", &script, &["-h"]);
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("--target URL"));
    for wrong in [&["-x"][..], &["-t"]] {
        assert_eq!(run("dash", &script, wrong).status.code(), Some(2));
    }
    std::fs::remove_file(script.with_extension("body")).unwrap();
    let output = run("dash", &script, &[]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains(".body, which has to be beside"));
}

#[tokio::test]
async fn a_refusal_is_a_failure_of_the_script() {
    let folder = tempfile::tempdir().unwrap();
    let script = save(folder.path(), ScriptOptions::default(), &message(&[], b"x")).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        receive(&stream);
        let no = b"HTTP/1.1 503 No\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbusy";
        (&stream).write_all(no).unwrap();
    });
    let output = run("dash", &script, &[&format!("http://{address}")]);
    served.join().unwrap();
    assert_eq!(output.status.code(), Some(22), "{output:?}");
    assert!(output.stdout.ends_with(b"busy"), "{output:?}");
}

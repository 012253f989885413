//! As many subscribers as the descriptors allow, on the real program. Prints what an idle
//! connection takes, and what it still takes after a broadcast:
//! `cargo test --release --test it many_subscribers -- --nocapture`

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{PATIENCE, token};

const WANTED: u64 = 10_000;

/// The program, killed when dropped.
struct Program {
    child: Child,
    address: String,
}

impl Program {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hookbot"))
            .args([
                "serve",
                "--bind",
                "127.0.0.1:0",
                "--ping-interval",
                "1h",
                "--write-timeout",
                "3h",
            ])
            .env("HOOKBOT_KEY", "a key for tests alone")
            .env("RUST_LOG", "info,hookbot::request=off")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("it says where it listens").unwrap();
            if let Some((_, rest)) = line.split_once("Listening on ") {
                break rest.split(' ').next().unwrap().to_owned();
            }
        };
        // Nobody may block it by not reading.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    /// Resident memory, in bytes.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib << 10
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn subscribe(address: &str, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "GET /sub/t?token={token} HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut reply = Vec::with_capacity(256);
    while !reply.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut reply).await.unwrap(), 0, "refused");
    }
    assert!(reply.starts_with(b"HTTP/1.1 101"));
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_subscribers_idle_and_get_a_broadcast() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
    let possible = getrlimit(Resource::Nofile)
        .current
        .unwrap_or(u64::MAX)
        .saturating_sub(200);
    let count = WANTED.min(possible);

    let program = Program::start();
    let token: Arc<str> = token("/").into();
    let first = subscribe(&program.address, &token).await;
    let base = program.memory();
    let gate = Arc::new(Semaphore::new(100));
    let mut connecting = JoinSet::new();
    for _ in 1..count {
        let (gate, token, address) = (gate.clone(), token.clone(), program.address.clone());
        connecting.spawn(async move {
            let _turn = gate.acquire().await.unwrap();
            subscribe(&address, &token).await
        });
    }
    let mut sockets = connecting.join_all().await;
    sockets.push(first);
    let idle = (program.memory() - base) / count;

    let body = "x".repeat(1_000);
    let mut publisher = TcpStream::connect(&program.address).await.unwrap();
    let request = format!(
        "POST /pub/t?token={token} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n{body}"
    );
    publisher.write_all(request.as_bytes()).await.unwrap();
    for socket in &mut sockets {
        let mut frame = [0; 1_004];
        timeout(PATIENCE, socket.read_exact(&mut frame))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(frame[..4], [0x82, 126, 0x03, 0xe8]);
        assert_eq!(frame[4..], *body.as_bytes());
    }
    let used = program.memory().saturating_sub(base) / count;
    println!("{count} subscribers: {idle} bytes each when idle, {used} after a broadcast");
    assert!(idle < 16 << 10, "{idle} bytes an idle connection");
}

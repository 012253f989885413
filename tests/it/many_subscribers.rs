//! As many subscribers as the descriptors allow, on the real program. Prints what an idle
//! connection takes, and what it still takes after a broadcast:
//! `cargo test --release --test it many_subscribers -- --nocapture`

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use hookbot::server::TlsFiles;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::support::{PATIENCE, token};
use crate::tls::Authority;

/// The program, killed when dropped.
struct Program {
    child: Child,
    address: String,
}

impl Program {
    fn start(tls: Option<&TlsFiles>) -> Self {
        let files = tls.map(|files| {
            let path = |path: &std::path::Path| path.display().to_string();
            [
                "--tls-cert".into(),
                path(&files.certificate),
                "--tls-key".into(),
                path(&files.key),
            ]
        });
        let mut child = Command::new(env!("CARGO_BIN_EXE_hookbot"))
            .args([
                "serve",
                "--memory",
                "--bind",
                "127.0.0.1:0",
                "--ping-interval",
                "1h",
                "--write-timeout",
                "3h",
            ])
            .args(files.into_iter().flatten())
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

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn connect(address: &str, tls: Option<&TlsConnector>) -> Box<dyn Stream> {
    let stream = TcpStream::connect(address).await.unwrap();
    match tls {
        None => Box::new(stream),
        Some(connector) => {
            let name = ServerName::try_from("localhost").unwrap();
            Box::new(connector.connect(name, stream).await.unwrap())
        }
    }
}

async fn subscribe(mut stream: Box<dyn Stream>, token: &str) -> Box<dyn Stream> {
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

/// Connects so many subscribers, publishes to all of them, and says what one takes in bytes:
/// idle, and after the broadcast.
async fn broadcast(program: &Program, wanted: u64, tls: Option<TlsConnector>) -> (u64, u64) {
    let token: Arc<str> = token("/").into();
    let first = subscribe(connect(&program.address, tls.as_ref()).await, &token).await;
    let base = program.memory();
    let gate = Arc::new(Semaphore::new(100));
    let mut connecting = JoinSet::new();
    for _ in 1..wanted {
        let (gate, token, address) = (gate.clone(), token.clone(), program.address.clone());
        let tls = tls.clone();
        connecting.spawn(async move {
            let _turn = gate.acquire().await.unwrap();
            subscribe(connect(&address, tls.as_ref()).await, &token).await
        });
    }
    let mut sockets = connecting.join_all().await;
    sockets.push(first);
    let idle = program.memory().saturating_sub(base) / wanted;

    let body = "x".repeat(1_000);
    let mut publisher = connect(&program.address, tls.as_ref()).await;
    let request = format!(
        "POST /pub/t?token={token} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n{body}"
    );
    publisher.write_all(request.as_bytes()).await.unwrap();
    publisher.flush().await.unwrap();
    for socket in &mut sockets {
        let mut frame = [0; 1_004];
        timeout(PATIENCE, socket.read_exact(&mut frame))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(frame[..4], [0x82, 126, 0x03, 0xe8]);
        assert_eq!(frame[4..], *body.as_bytes());
    }
    (idle, program.memory().saturating_sub(base) / wanted)
}

/// As many descriptors as there may be; how many of them are for subscribers.
fn descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile)
        .current
        .unwrap_or(u64::MAX)
        .saturating_sub(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_subscribers_idle_and_get_a_broadcast() {
    let count = descriptors().min(10_000);
    let (idle, used) = broadcast(&Program::start(None), count, None).await;
    println!("{count} subscribers: {idle} bytes each when idle, {used} after a broadcast");
    assert!(idle < 16 << 10, "{idle} bytes an idle connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_subscribers_over_tls_do_the_same() {
    let count = descriptors().min(2_000);
    let authority = Authority::new();
    let program = Program::start(Some(&authority.install(authority.issue(1))));
    let (idle, used) = broadcast(&program, count, Some(authority.connector(None))).await;
    println!("{count} TLS subscribers: {idle} bytes each when idle, {used} after a broadcast");
    assert!(idle < 64 << 10, "{idle} bytes an idle connection");
}

//! As many subscribers as the descriptors allow, on the real program. Prints what an idle
//! connection takes, and what it still takes after a broadcast:
//! `cargo test --release --test it many_subscribers -- --nocapture`

use std::path::Path;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::program::Program;
use crate::support::{PATIENCE, token};
use crate::tls::Authority;

/// Nothing but what is asked for goes over a connection.
const QUIET: [&str; 5] = ["--memory", "--ping-interval", "1h", "--write-timeout", "3h"];

/// A connection of either kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

pub(crate) async fn connect(address: &str, tls: Option<&TlsConnector>) -> Box<dyn Stream> {
    let stream = TcpStream::connect(address).await.unwrap();
    match tls {
        None => Box::new(stream),
        Some(connector) => {
            let name = ServerName::try_from("localhost").unwrap();
            Box::new(connector.connect(name, stream).await.unwrap())
        }
    }
}

pub(crate) async fn subscribe(mut stream: Box<dyn Stream>, token: &str) -> Box<dyn Stream> {
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
    let (idle, used) = broadcast(&Program::start(&QUIET), count, None).await;
    println!("{count} subscribers: {idle} bytes each when idle, {used} after a broadcast");
    assert!(idle < 16 << 10, "{idle} bytes an idle connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_subscribers_over_tls_do_the_same() {
    let count = descriptors().min(2_000);
    let authority = Authority::new();
    let files = authority.install(authority.issue(1));
    let path = |path: &Path| path.display().to_string();
    let (certificate, key) = (path(&files.certificate), path(&files.key));
    let tls = ["--tls-cert", &certificate, "--tls-key", &key];
    let program = Program::start(&[&QUIET[..], &tls].concat());
    let (idle, used) = broadcast(&program, count, Some(authority.connector(None))).await;
    println!("{count} TLS subscribers: {idle} bytes each when idle, {used} after a broadcast");
    assert!(idle < 64 << 10, "{idle} bytes an idle connection");
}

//! An echo server for WebSocket conformance suites: what the Autobahn fuzzing client, which
//! judges by the echo, needs to judge the server's own [`Socket`].
//!
//! Only the limits differ from a subscriber's: messages of 64 MiB pass, so that the suite's large
//! ones do. It is not part of the server.
//!
//! ```sh
//! cargo run --example ws_echo 127.0.0.1:9001
//! ```

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use hookbot::server::Transport;
use hookbot::server::socket::{Frame, Limits, Received, Socket, close_code};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// As much as the largest message of any suite, and some more.
const LIMITS: Limits = Limits {
    message: 64 << 20,
    ..Limits::SUBSCRIBER
};

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:0");
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    println!("Listening on {}", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept().await?;
        tokio::spawn(async move {
            let service = service_fn(answer);
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.with_upgrades().await {
                eprintln!("{peer}: {error}");
            }
        });
    }
}

/// Replies with the handshake; the connection becomes a WebSocket.
async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
    let Ok(reply) = create_response_with_body(&request, Full::default) else {
        let mut reply = Response::new(Full::from("400 Bad Request: not a WebSocket handshake\n"));
        *reply.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(reply);
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Err(error) = echo(upgrade).await {
            eprintln!("{error:#}");
        }
    });
    Ok(reply)
}

/// Sends every message back, until the client closes or breaks a rule.
async fn echo(upgrade: OnUpgrade) -> Result<()> {
    let parts = upgrade.await?.downcast::<TokioIo<TcpStream>>();
    let parts = parts.map_err(|_| anyhow!("served on something else than TCP"))?;
    let transport = Transport::from(parts.io.into_inner());
    let mut socket = Socket::new(transport, parts.read_buf.to_vec(), LIMITS).await;
    if let Some(code) = poll_fn(|context| poll_echo(context, &mut socket)).await {
        socket.close(code, "protocol violation").await;
    }
    Ok(())
}

/// Ready at the end, with the code to close with where the client has not closed itself.
fn poll_echo(context: &mut Context<'_>, socket: &mut Socket<Echo>) -> Poll<Option<CloseCode>> {
    loop {
        match socket.poll_send(context) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(None),
            Poll::Pending if socket.has_room() => {}
            Poll::Pending => return Poll::Pending,
        }
        match ready!(socket.poll_receive(context)) {
            Some(Ok(Received::Text(text))) => socket.queue(Echo::new(TEXT, text.into())),
            Some(Ok(Received::Binary(bytes))) => socket.queue(Echo::new(BINARY, bytes)),
            // Pings are answered already; behind a close comes the end.
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(close_code(&error)),
            None => return Poll::Ready(None),
        }
    }
}

/// One message on its way back, in one unmasked frame (RFC 6455, section 5.2).
struct Echo {
    head: Vec<u8>,
    payload: Bytes,
}

impl Echo {
    fn new(opcode: u8, payload: Bytes) -> Self {
        let mut head = vec![FINAL | opcode];
        match payload.len() {
            length @ ..126 => head.push(length as u8),
            length @ 126..=0xffff => {
                head.push(126);
                head.extend((length as u16).to_be_bytes());
            }
            length => {
                head.push(127);
                head.extend((length as u64).to_be_bytes());
            }
        }
        Self { head, payload }
    }
}

impl Frame for Echo {
    fn parts(&self) -> [&[u8]; 2] {
        [&self.head, &self.payload]
    }
}

const FINAL: u8 = 0x80;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;

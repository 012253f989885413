//! The other end, for this crate's tests: as much of a server as a test says, and no more.

use std::sync::Arc;

use http::HeaderMap;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use crate::connect::Transport;
use crate::endpoint::Endpoint;

/// A listening socket.
pub(crate) struct Server(TcpListener);

/// The server's end of a WebSocket.
pub(crate) type Peer = WebSocketStream<Box<dyn Transport>>;

/// What a client asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().expect("a bound socket").port()
    }

    /// The endpoint of a path here.
    pub(crate) fn endpoint(&self, path: &str) -> Endpoint {
        endpoint(&format!("ws://127.0.0.1:{}{path}", self.port()))
    }

    pub(crate) async fn accept_tcp(&self) -> TcpStream {
        self.0.accept().await.expect("a client").0
    }

    /// Accepts a WebSocket, whatever it asks for.
    pub(crate) async fn accept(&self) -> Peer {
        shake_hands(self.accept_tcp().await).await.0
    }

    /// Accepts a connection and answers its first request with this.
    pub(crate) async fn answer(&self, response: &str) -> (TcpStream, Asked) {
        let mut stream = self.accept_tcp().await;
        let asked = answer(&mut stream, response).await;
        (stream, asked)
    }
}

/// An endpoint that knows of no proxy.
pub(crate) fn endpoint(url: &str) -> Endpoint {
    Endpoint::new(url).expect("a URL").no_proxy()
}

/// Accepts a WebSocket over any stream.
#[expect(
    clippy::result_large_err,
    reason = "the callback's type is tungstenite's"
)]
pub(crate) async fn shake_hands(stream: impl Transport + 'static) -> (Peer, Asked) {
    let mut asked = None;
    let stream: Box<dyn Transport> = Box::new(stream);
    let look = |request: &Request, response: Response| {
        asked = Some(Asked {
            line: request.uri().to_string(),
            headers: request.headers().clone(),
            body: Vec::new(),
        });
        Ok(response)
    };
    let peer = accept_hdr_async(stream, look).await.expect("a handshake");
    (peer, asked.expect("a request"))
}

/// Reads a request and its body, and answers it.
pub(crate) async fn answer(stream: &mut TcpStream, response: &str) -> Asked {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    let text = String::from_utf8(head).expect("an ASCII head");
    let mut lines = text.trim_end().split("\r\n");
    let line = lines.next().expect("a request line").to_owned();
    let headers: HeaderMap = lines
        .map(|line| line.split_once(": ").expect("a header"))
        .map(|(name, value)| {
            (
                name.parse().expect("a name"),
                value.parse().expect("a value"),
            )
        })
        .collect();
    let length = headers.get("content-length");
    let length = length.map_or(0, |text| text.to_str().expect("ASCII").parse().expect("n"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("a whole body");
    stream
        .write_all(response.as_bytes())
        .await
        .expect("a client that reads");
    Asked {
        line,
        headers,
        body,
    }
}

/// A certificate for these names, PEM, and what accepts TLS with it.
pub(crate) fn tls(names: &[&str]) -> (String, TlsAcceptor) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let own = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .expect("a key that fits");
    (own.cert.pem(), TlsAcceptor::from(Arc::new(config)))
}

//! The server under load: where it is, what it is told to get in, and what requests look like.
//!
//! A load generator pointed at somebody else is an attack, so every address that the name resolves
//! to must be this machine's own, unless its owner says otherwise; and only those are ever used.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hookbot_protocol::{Key, Scope};
use http::Uri;
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::failure::Failure;
use crate::shape::Shape;
use crate::stream::Stream;

/// A server, ready to be connected to.
#[derive(Clone)]
pub(crate) struct Target {
    shape: Shape,
    addresses: Vec<SocketAddr>,
    /// Which of them the last connection went to.
    answers: Arc<AtomicUsize>,
    host: String,
    base: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    publish_token: String,
    subscribe_token: String,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its tokens must not be seen.
        write!(f, "Target({}{})", self.host, self.base)
    }
}

/// How a connection is different from others.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Peculiar {
    /// Which connection it is, of many: each so many get a source address of their own.
    pub(crate) number: usize,
    /// How small its receive buffer is.
    pub(crate) receive_buffer: Option<usize>,
}

/// As many connections have one source address: once half of its ports are taken, the kernel is long
/// in finding a free one, and connecting would take five times as long.
const CONNECTIONS_PER_SOURCE: usize = 8_000;

impl Target {
    /// Resolves a URL.
    ///
    /// # Errors
    ///
    /// When it is none, leads to another machine without leave, or is https without `connector`.
    pub(crate) async fn resolve(
        url: &str,
        shape: Shape,
        key: Option<&Key>,
        connector: Option<TlsConnector>,
        elsewhere: bool,
    ) -> Result<Self, Failure> {
        let usage = |why: &str| Failure::Usage(format!("{why}: {}", Self::without_user(url)));
        let uri: Uri = url.parse().map_err(|_| usage("not a URL"))?;
        let host = uri.host().ok_or_else(|| usage("a URL without a host"))?;
        let name = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let (port, tls) = match uri.scheme_str() {
            Some("http") => (80, None),
            Some("https") => {
                let connector =
                    connector.ok_or_else(|| usage("https needs --ca FILE or --insecure"))?;
                let name = ServerName::try_from(name.clone()).map_err(|_| usage("no host name"))?;
                (443, Some((connector, name)))
            }
            _ => return Err(usage("neither http nor https")),
        };
        let port = uri.port_u16().unwrap_or(port);
        let found = tokio::net::lookup_host((name.as_str(), port)).await;
        let addresses: Vec<_> = found.map_err(Failure::Unreachable)?.collect();
        if !elsewhere && !all_loopback(&addresses) {
            return Err(usage(
                "not this machine (a test of your own host needs --i-own-this-host)",
            ));
        }
        if addresses.is_empty() {
            return Err(usage("a host without an address"));
        }
        let token = |path: &str| {
            let scope = Scope::parse(path).ok();
            let token = scope.zip(key).map(|(scope, key)| key.mint(&scope).expose());
            token.map(|token| format!("Authorization: Bearer {token}\r\n"))
        };
        Ok(Self {
            shape,
            addresses,
            answers: Arc::default(),
            host: format!("{host}:{port}"),
            base: uri.path().trim_end_matches('/').to_owned(),
            tls,
            publish_token: token("/pub/load/").unwrap_or_default(),
            subscribe_token: token("/sub/load/").unwrap_or_default(),
        })
    }

    /// A URL may have a token where others have a user.
    fn without_user(url: &str) -> &str {
        url.rsplit_once('@').map_or(url, |(_, rest)| rest)
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// Opens a connection, with its TLS handshake where there is one.
    pub(crate) async fn connect(&self, peculiar: Peculiar) -> io::Result<Stream> {
        let stream = self.connect_tcp(peculiar).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Stream::Plain(stream),
            Some((connector, name)) => {
                Stream::Tls(Box::new(connector.connect(name.clone(), stream).await?))
            }
        })
    }

    /// Connects to the address that answered before, or else to the next one that does.
    async fn connect_tcp(&self, peculiar: Peculiar) -> io::Result<TcpStream> {
        let first = self.answers.load(Ordering::Relaxed);
        let mut failed = io::ErrorKind::AddrNotAvailable.into();
        for turn in 0..self.addresses.len() {
            let at = (first + turn) % self.addresses.len();
            match connect_to(self.addresses[at], peculiar).await {
                Ok(stream) => {
                    if turn > 0 {
                        self.answers.store(at, Ordering::Relaxed);
                    }
                    return Ok(stream);
                }
                Err(cause) => failed = cause,
            }
        }
        Err(failed)
    }

    /// The head of a publishing request.
    pub(crate) fn publish_head(&self, run: u16, topic: u32, size: usize) -> String {
        let Self { host, base, .. } = self;
        let path = self.shape.publish_path(run, topic);
        let more = match self.shape {
            Shape::Hookbot => &self.publish_token,
            Shape::Nchan => "",
            Shape::Gosmee => "Content-Type: application/json\r\n",
        };
        format!(
            "POST {base}{path} HTTP/1.1\r\nHost: {host}\r\n{more}Content-Length: {size}\r\n\r\n"
        )
    }

    /// The request of a subscriber; with a place to resume from, for event frames.
    pub(crate) fn subscribe_request(&self, run: u16, topic: u32, after: Option<&str>) -> String {
        let Self { host, base, .. } = self;
        let path = self.shape.subscribe_path(run, topic);
        if self.shape == Shape::Gosmee {
            // Asked for by HTTP/1.0, a stream comes without chunks.
            return format!(
                "GET {base}{path} HTTP/1.0\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n"
            );
        }
        let (query, events) = after.map_or_else(Default::default, |after| {
            let events = hookbot_protocol::event::EVENTS_V1;
            (
                format!("?after={after}"),
                format!("Sec-WebSocket-Protocol: {events}\r\n"),
            )
        });
        let token = &self.subscribe_token;
        format!(
            "GET {base}{path}{query} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{events}{token}\r\n"
        )
    }
}

async fn connect_to(address: SocketAddr, peculiar: Peculiar) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    let source = peculiar.number / CONNECTIONS_PER_SOURCE;
    if source > 0 && address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
        let own = Ipv4Addr::new(127, 0, 1, u8::try_from(source).unwrap_or(u8::MAX));
        socket.bind(&SocketAddr::from((own, 0)).into())?;
    }
    if let Some(size) = peculiar.receive_buffer {
        socket.set_recv_buffer_size(size)?;
    }
    TcpSocket::from_std_stream(socket.into())
        .connect(address)
        .await
}

/// Whether there is no way to reach anybody else by these.
fn all_loopback(addresses: &[SocketAddr]) -> bool {
    addresses
        .iter()
        .all(|address| address.ip().to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolve(url: &str, elsewhere: bool) -> Result<Target, Failure> {
        let key = Key::new(b"a key for tests alone").unwrap();
        Target::resolve(url, Shape::Hookbot, Some(&key), None, elsewhere).await
    }

    #[tokio::test]
    async fn another_machine_needs_its_owner_s_word() {
        for url in [
            "http://192.0.2.1:80",
            "http://[2001:db8::1]/",
            "http://0.0.0.0:80",
        ] {
            let refused = resolve(url, false).await.unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{url}");
            assert!(refused.to_string().contains("--i-own-this-host"), "{url}");
            assert!(resolve(url, true).await.is_ok(), "{url}");
        }
        for url in [
            "http://127.0.0.1:8080",
            "http://127.9.9.9",
            "http://[::1]:8080/",
        ] {
            assert!(resolve(url, false).await.is_ok(), "{url}");
        }
    }

    #[test]
    fn one_address_elsewhere_is_enough_to_refuse() {
        let own = SocketAddr::from(([127, 0, 0, 1], 80));
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:80".parse().unwrap();
        let other = SocketAddr::from(([192, 0, 2, 1], 80));
        assert!(all_loopback(&[own, mapped]));
        assert!(!all_loopback(&[own, other]));
    }

    #[tokio::test]
    async fn more_connections_than_ports_have_other_sources() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = resolve(&format!("http://{address}"), false).await.unwrap();
        let own = |last| IpAddr::from([127, 0, 1, last]);
        let first = CONNECTIONS_PER_SOURCE - 1;
        let table = [
            (0, address.ip()),
            (first, address.ip()),
            (first + 1, own(1)),
            (2 * CONNECTIONS_PER_SOURCE, own(2)),
        ];
        for (number, source) in table {
            let peculiar = Peculiar {
                number,
                ..Peculiar::default()
            };
            let _stream = target.connect(peculiar).await.unwrap();
            assert_eq!(listener.accept().await.unwrap().1.ip(), source);
        }
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_is_passed_over() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut target = resolve(&format!("http://{address}"), false).await.unwrap();
        let deaf = SocketAddr::from(([127, 0, 0, 2], address.port()));
        target.addresses.insert(0, deaf);
        for _ in 0..2 {
            target.connect(Peculiar::default()).await.unwrap();
            assert_eq!(target.answers.load(Ordering::Relaxed), 1);
        }
    }

    #[tokio::test]
    async fn a_url_that_cannot_be_used_is_named_without_its_token() {
        for url in [
            "ftp://s3cret@127.0.0.1/",
            "https://s3cret@127.0.0.1/",
            "s3cret@/x y",
        ] {
            let refused = resolve(url, true).await.unwrap_err().to_string();
            assert!(!refused.contains("s3cret"), "{refused}");
        }
    }

    #[tokio::test]
    async fn no_token_is_printed() {
        let target = resolve("http://127.0.0.1:8080/below/", false)
            .await
            .unwrap();
        let head = target.publish_head(1, 2, 64);
        let token = head.split_once("Bearer ").unwrap().1;
        let token = token.split_once('\r').unwrap().0;
        assert!(head.starts_with("POST /below/pub/load/0001-2 HTTP/1.1\r\n"));
        assert!(!format!("{target:?}").contains(token));
    }
}

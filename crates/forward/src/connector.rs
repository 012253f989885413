//! Connections to one target, as hyper's client asks for them; also for others who speak HTTP with
//! a target.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Once};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{env, fmt, io};

use hookbot_listen::Error;
use hookbot_listen::dial::{self, Guard, Proxy, Transport};
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower_service::Service;
use tracing::warn;

use crate::url::is_loopback;

/// How a target is reached, whatever URL hyper asks for.
#[derive(Clone)]
pub struct Connector {
    route: Arc<Route>,
    turns: Arc<Semaphore>,
}

impl Connector {
    /// Connects like this.
    #[must_use]
    pub fn new(route: Route) -> Self {
        Self {
            route: Arc::new(route),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

/// The way to a target, and what holds on it.
pub struct Route {
    /// Where it leads.
    pub way: Way,
    /// For TLS with the target, and with a proxy that speaks it.
    pub tls: Option<Arc<ClientConfig>>,
    /// What addresses may be connected to.
    pub guard: Option<Arc<Guard>>,
    /// For everything up to and with the TLS handshake.
    pub timeout: Duration,
}

/// Where a target is.
pub enum Way {
    /// At a port of a host.
    Tcp {
        /// A name or an address, without the brackets of IPv6.
        host: String,
        /// The port.
        port: u16,
        /// Whether to speak TLS.
        tls: bool,
        /// Who connects us, if anybody has to.
        proxy: Option<Proxy>,
    },
    /// At a unix socket.
    Unix(PathBuf),
}

impl Route {
    async fn connect(&self) -> Result<Stream, ConnectError> {
        let connecting = timeout(self.timeout, self.open()).await;
        connecting.unwrap_or_else(|_| {
            let text = format!(
                "connecting to {} took longer than {} s",
                self.way,
                self.timeout.as_secs_f32()
            );
            Err(ConnectError(text))
        })
    }

    async fn open(&self) -> Result<Stream, ConnectError> {
        let (host, port, tls, proxy) = match &self.way {
            Way::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.map_err(|error| ConnectError::new(&self.way, &error))?;
                return Ok(Stream::direct(Box::new(stream)));
            }
            Way::Tcp {
                host,
                port,
                tls,
                proxy,
            } => (host, *port, *tls, proxy.as_ref()),
        };
        // The addresses of a name leave some of it to the handshakes.
        let patience = self.timeout.mul_f32(0.8);
        let mut is_proxied = false;
        let mut stream: Box<dyn Transport> = match proxy {
            None => {
                let dialled = dial::tcp(host, port, patience, self.guard.as_deref()).await;
                Box::new(dialled.inspect_err(|error| hint(host, error))?)
            }
            Some(proxy) => {
                let mut stream: Box<dyn Transport> = Box::new(proxy.dial(patience).await?);
                if proxy.tls {
                    stream = self.secure(stream, &proxy.host).await?;
                }
                is_proxied = !tls;
                if tls {
                    stream = proxy
                        .tunnel(stream, &dial::host_and_port(host, port))
                        .await?;
                }
                stream
            }
        };
        if tls {
            stream = self.secure(stream, host).await?;
        }
        Ok(Stream {
            io: TokioIo::new(stream),
            is_proxied,
        })
    }

    async fn secure(
        &self,
        stream: Box<dyn Transport>,
        host: &str,
    ) -> Result<Box<dyn Transport>, ConnectError> {
        let Some(config) = self.tls.clone() else {
            return Err(ConnectError("there is no TLS".to_owned()));
        };
        Ok(dial::secure(stream, host, config).await?)
    }
}

/// Says once what trips people up whose target is on the machine that a container runs on.
fn hint(host: &str, error: &Error) {
    static SAID: Once = Once::new();
    let Error::Connect { source, .. } = error else {
        return;
    };
    let is_refused = source.kind() == io::ErrorKind::ConnectionRefused;
    if is_refused && is_loopback(host) && is_in_container() {
        SAID.call_once(|| {
            warn!(
                "this runs in a container, where {host} is the container itself: call another \
                 container or service by its name, and the machine that they run on \
                 host.docker.internal (Docker) or host.containers.internal (Podman)"
            );
        });
    }
}

/// By what Docker, Podman and Kubernetes leave there.
fn is_in_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"]
        .iter()
        .any(|mark| Path::new(mark).exists())
        || env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } => f.write_str(&dial::host_and_port(host, *port)),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { route, turns } = self.clone();
        Box::pin(async move {
            // It is never closed.
            let _turn = turns.acquire().await;
            route.connect().await
        })
    }
}

/// How many connections are on their way at once. A service often has room for a hundred that it
/// has not accepted; those beyond that come a second later, when the system tries again.
const AT_ONCE: usize = 64;

/// Why there is no connection, as people read it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ConnectError(pub(crate) String);

impl ConnectError {
    fn new(to: &Way, error: &io::Error) -> Self {
        Self(format!("cannot connect to {to}: {error}"))
    }
}

impl From<Error> for ConnectError {
    fn from(error: Error) -> Self {
        Self(chain(&error))
    }
}

/// An error and its causes, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some repeat what caused them.
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// An open connection.
pub struct Stream {
    io: TokioIo<Box<dyn Transport>>,
    /// Whether requests go to a proxy, which wants to see the whole URL.
    is_proxied: bool,
}

impl Stream {
    fn direct(stream: Box<dyn Transport>) -> Self {
        Self {
            io: TokioIo::new(stream),
            is_proxied: false,
        }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.is_proxied)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }
}

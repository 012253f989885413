//! Byte streams to other hosts: every address of a name, through a proxy, with TLS.
//!
//! This is what a subscription is made over, public for those who dial for another reason, so that
//! one program reaches everything in one way. Nothing here has a deadline of its own but the single
//! addresses, which share the caller's patience; the caller's deadline ends whatever this is doing.

use std::error::Error as StdError;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{error::Elapsed, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::error::Error;

/// Bytes to somebody and back, whatever carries them.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Says of an address that a name leads to whether it may be connected to, and if not, why.
pub type Guard = dyn Fn(IpAddr) -> Result<(), String> + Send + Sync;

/// Tries each address of a host in turn, those that `guard` refuses excepted.
///
/// `localhost` is both loopbacks, whatever the resolver makes of it: a server listens on one of
/// them. The addresses share `patience`, so that one that swallows packets leaves time for the
/// next. A host is a name or an address, without the brackets of IPv6.
///
/// # Errors
///
/// [`Error::Connect`] with every address that was tried, and what the last of them said.
pub async fn tcp(
    host: &str,
    port: u16,
    patience: Duration,
    guard: Option<&Guard>,
) -> Result<TcpStream, Error> {
    let shown = host_and_port(host, port);
    let unreachable = |tried: &[String], source| Error::Connect {
        address: match tried {
            [] => shown.clone(),
            [only] if *only == shown => shown.clone(),
            tried => format!("{shown} (tried {})", tried.join(", ")),
        },
        source,
    };
    let found = lookup_host((host, port)).await;
    let mut addresses: Vec<_> = found.map_err(|error| unreachable(&[], error))?.collect();
    if host.eq_ignore_ascii_case("localhost") {
        let both: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let both = both.map(|address| SocketAddr::new(address, port));
        let missing = both.into_iter().filter(|one| !addresses.contains(one));
        addresses.extend(missing.collect::<Vec<_>>());
    }

    let mut tried = Vec::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let share = patience / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    for address in addresses {
        tried.push(address.to_string());
        if let Err(reason) = guard.map_or(Ok(()), |guard| guard(address.ip())) {
            last = io::Error::new(io::ErrorKind::PermissionDenied, reason);
            continue;
        }
        let attempt = timeout(share, TcpStream::connect(address)).await;
        match attempt.unwrap_or_else(|_: Elapsed| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                // What is small must not wait for more to say.
                stream.set_nodelay(true).map_err(Error::Lost)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(unreachable(&tried, last))
}

/// An HTTP proxy that the environment asks to be used.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Its name or address, without the brackets of IPv6.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// Its `Proxy-Authorization`, marked as sensitive.
    pub authorization: Option<HeaderValue>,
}

impl Proxy {
    /// What the environment says of a proxy.
    ///
    /// # Errors
    ///
    /// [`Error::Proxy`] when it is of a kind that is not known here.
    pub fn new(intercept: &Intercept) -> Result<Self, Error> {
        let uri: &Uri = intercept.uri();
        let tls = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default();
        let proxy = Self {
            host: host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
            authorization: intercept.basic_auth().map(|credentials| {
                let mut credentials: HeaderValue = credentials.clone();
                credentials.set_sensitive(true);
                credentials
            }),
        };
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(proxy.useless("only http and https proxies are known here"));
        }
        Ok(proxy)
    }

    /// Opens a stream to it.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] as [`tcp`]; it says that this is the proxy.
    pub async fn dial(&self, patience: Duration) -> Result<TcpStream, Error> {
        let dialled = tcp(&self.host, self.port, patience, None).await;
        dialled.map_err(|error| match error {
            Error::Connect { address, source } => Error::Connect {
                address: format!("the proxy {address}"),
                source,
            },
            error => error,
        })
    }

    /// Has it connect us to a server, `host:port`, over a stream to it.
    ///
    /// # Errors
    ///
    /// [`Error::Proxy`] when it does not.
    pub async fn tunnel(
        &self,
        stream: Box<dyn Transport>,
        server: &str,
    ) -> Result<Box<dyn Transport>, Error> {
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(server)
            .header(header::HOST, server);
        if let Some(credentials) = &self.authorization {
            request = request.header(header::PROXY_AUTHORIZATION, credentials);
        }
        let request = request.body(Full::<Bytes>::default());
        let request = request.map_err(Error::protocol)?;

        let (mut requests, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(Error::protocol)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
        let response = requests.send_request(request).await;
        let response = response.map_err(|error| self.useless(error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.useless(status));
        }
        let upgraded = hyper::upgrade::on(response).await;
        let upgraded = upgraded.map_err(|error| self.useless(error))?;
        Ok(Box::new(TokioIo::new(upgraded)))
    }

    fn useless(&self, reason: impl ToString) -> Error {
        Error::Proxy {
            proxy: host_and_port(&self.host, self.port),
            reason: reason.to_string(),
        }
    }
}

/// Speaks TLS over `stream`, with whoever can prove to be `host`.
///
/// # Errors
///
/// [`Error::Tls`] when nobody can.
pub async fn secure(
    stream: Box<dyn Transport>,
    host: &str,
    config: Arc<ClientConfig>,
) -> Result<Box<dyn Transport>, Error> {
    let insecure = |source: Box<dyn StdError + Send + Sync>| Error::Tls {
        server: host.to_owned(),
        source,
    };
    let name = ServerName::try_from(host.to_owned()).map_err(|error| insecure(error.into()))?;
    let stream = TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|error| insecure(error.into()))?;
    Ok(Box::new(stream))
}

/// The platform's trusted roots, which take a moment to read, and these.
///
/// # Errors
///
/// When one of these is no certificate, or there is none at all.
pub fn roots(
    own: &[CertificateDer<'static>],
) -> Result<RootCertStore, Box<dyn StdError + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    for root in own {
        roots.add(root.clone())?;
    }
    let native = rustls_native_certs::load_native_certs();
    // Platforms hold roots that nobody can parse any more; the others still count.
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        return Err("no trusted certificates found; install some, or give a CA".into());
    }
    Ok(roots)
}

/// Host and port as a URL has them.
#[must_use]
pub fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn localhost_is_both_loopbacks() {
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(loopback).await else {
                // A machine without IPv6 has one loopback.
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            tcp("localhost", port, PATIENCE, None).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_error_names_every_address_and_what_was_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let guard = |address: IpAddr| Err(format!("{address} is not for us"));
        let refused = tcp("127.0.0.1", port, PATIENCE, Some(&guard)).await;
        let Err(Error::Connect { address, source }) = refused else {
            panic!("it is refused: {refused:?}");
        };
        // An address that was typed is named once.
        assert_eq!(address, format!("127.0.0.1:{port}"));
        assert_eq!(source.to_string(), "127.0.0.1 is not for us");

        drop(listener);
        let refused = tcp("localhost", port, PATIENCE, None).await;
        let text = refused.unwrap_err().to_string();
        assert!(
            text.contains("127.0.0.1:") && text.contains("[::1]:"),
            "{text}"
        );
    }
}

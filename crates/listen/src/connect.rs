//! A byte stream to the server: through a proxy where the environment has one, and TLS where the
//! URL asks for it.
//!
//! Nothing here has a deadline of its own but the single addresses, which share the caller's. The
//! caller's ends whatever this is doing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{error::Elapsed, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::endpoint::Endpoint;
use crate::error::Error;

/// Bytes to the server and back, whatever carries them.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Opens a stream to the server.
pub(crate) async fn connect(endpoint: &Endpoint) -> Result<Box<dyn Transport>, Error> {
    let server = endpoint.server();
    let scheme = if endpoint.tls { "https" } else { "http" };
    let proxy = format!("{scheme}://{server}/")
        .parse()
        .ok()
        .and_then(|uri| endpoint.proxies.intercept(&uri));
    let patience = endpoint.timing.connect / 2;
    let stream: Box<dyn Transport> = match proxy {
        Some(proxy) => tunnel(endpoint, &proxy, &server, patience).await?,
        None => Box::new(dial(&endpoint.host, endpoint.port, &server, patience).await?),
    };
    if endpoint.tls {
        return secure(endpoint, &endpoint.host, stream).await;
    }
    Ok(stream)
}

/// An HTTP/1.1 connection that sends requests; it ends when either half is dropped.
pub(crate) struct Http {
    pub(crate) requests: SendRequest<Full<Bytes>>,
    _connection: AbortOnDropHandle<()>,
}

impl Http {
    /// Starts speaking HTTP over `stream`.
    pub(crate) async fn start(stream: impl Transport + 'static) -> Result<Self, Error> {
        let (requests, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(Error::protocol)?;
        // What goes wrong in there is told to whoever waits for the response.
        let connection = tokio::spawn(async { connection.with_upgrades().await.unwrap_or(()) });
        Ok(Self {
            requests,
            _connection: AbortOnDropHandle::new(connection),
        })
    }
}

/// What a refusal says: the first line of its body.
pub(crate) async fn first_line(endpoint: &Endpoint, mut body: Incoming) -> String {
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        text.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        if text.len() > MAX_REASON || text.contains(&b'\n') {
            break;
        }
    }
    text.truncate(MAX_REASON);
    endpoint.quote(&String::from_utf8_lossy(&text))
}

/// The error that a response with a status of no success stands for.
pub(crate) async fn refused(endpoint: &Endpoint, response: Response<Incoming>) -> Error {
    let retry_after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    Error::Refused {
        status: response.status(),
        retry_after,
        reason: first_line(endpoint, response.into_body()).await,
    }
}

/// Tries each address of a host in turn.
async fn dial(host: &str, port: u16, shown: &str, patience: Duration) -> Result<TcpStream, Error> {
    let unreachable = |tried: &[String], source| Error::Connect {
        address: match tried {
            [] => shown.to_owned(),
            tried => format!("{shown} (tried {})", tried.join(", ")),
        },
        source,
    };
    let found = lookup_host((host, port)).await;
    let addresses: Vec<_> = found.map_err(|error| unreachable(&[], error))?.collect();

    let mut tried = Vec::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    // An address that swallows packets must leave time for the next.
    let share = patience / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    for address in addresses {
        let attempt = timeout(share, TcpStream::connect(address)).await;
        match attempt.unwrap_or_else(|_: Elapsed| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                // Pings and closes are small and must not wait for more to say.
                stream.set_nodelay(true).map_err(Error::Lost)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
        tried.push(address.to_string());
    }
    Err(unreachable(&tried, last))
}

/// Has the proxy connect us to the server.
async fn tunnel(
    endpoint: &Endpoint,
    proxy: &Intercept,
    server: &str,
    patience: Duration,
) -> Result<Box<dyn Transport>, Error> {
    let uri = proxy.uri();
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let shown = format!("{}:{port}", uri.host().unwrap_or_default());
    let useless = |reason: String| Error::Proxy {
        proxy: shown.clone(),
        reason,
    };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(useless("only http and https proxies are known here".into()));
    }

    let stream = dial(host, port, &format!("the proxy {shown}"), patience).await?;
    let stream: Box<dyn Transport> = if tls {
        secure(endpoint, host, Box::new(stream)).await?
    } else {
        Box::new(stream)
    };
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(server)
        .header(header::HOST, server);
    if let Some(credentials) = proxy.basic_auth() {
        let mut credentials: HeaderValue = credentials.clone();
        credentials.set_sensitive(true);
        request = request.header(header::PROXY_AUTHORIZATION, credentials);
    }
    let request = request.body(Full::default()).map_err(Error::protocol)?;

    let mut http = Http::start(stream).await?;
    let response = http.requests.send_request(request).await;
    let response = response.map_err(|error| useless(error.to_string()))?;
    let status = response.status();
    if !status.is_success() {
        return Err(useless(status.to_string()));
    }
    let upgraded = hyper::upgrade::on(response).await;
    let upgraded = upgraded.map_err(|error| useless(error.to_string()))?;
    Ok(Box::new(TokioIo::new(upgraded)))
}

/// Speaks TLS over `stream`, with whoever can prove to be `host`.
async fn secure(
    endpoint: &Endpoint,
    host: &str,
    stream: Box<dyn Transport>,
) -> Result<Box<dyn Transport>, Error> {
    let insecure = |source| Error::Tls {
        server: host.to_owned(),
        source,
    };
    let config = endpoint.tls_config.get_or_try_init(|| async {
        let own = endpoint.roots.clone();
        tokio::task::spawn_blocking(|| config(own)).await?
    });
    let config = config.await.map_err(insecure)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| insecure(error.into()))?;
    let stream = TlsConnector::from(config.clone())
        .connect(name, stream)
        .await
        .map_err(|error| insecure(error.into()))?;
    Ok(Box::new(stream))
}

/// Reads the platform's trusted roots, which takes a moment, and adds our own.
fn config(
    own: Vec<CertificateDer<'static>>,
) -> Result<Arc<ClientConfig>, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    for root in own {
        roots.add(root)?;
    }
    let native = rustls_native_certs::load_native_certs();
    // Platforms hold roots that nobody can parse any more; the others still count.
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        return Err("no trusted certificates found; install some, or give a CA".into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// More than a line needs.
const MAX_REASON: usize = 1_024;

#[cfg(test)]
mod tests {
    use hyper_util::client::proxy::matcher::Matcher;
    use tokio::io::copy_bidirectional;
    use tokio::join;

    use super::*;
    use crate::test_server::{self, Server, shake_hands, tls};
    use crate::watch;

    #[tokio::test]
    async fn a_ca_of_ones_own_is_trusted() {
        let server = Server::start().await;
        let (pem, acceptor) = tls(&["localhost", "127.0.0.1"]);
        let accept = async || {
            let stream = acceptor.accept(server.accept_tcp().await).await?;
            Ok::<_, io::Error>(shake_hands(stream).await)
        };
        for host in ["localhost", "127.0.0.1"] {
            let url = format!("wss://{host}:{}/sub/a", server.port());
            let endpoint = test_server::endpoint(&url).ca(pem.as_bytes()).unwrap();
            let (messages, peer) = join!(watch(&endpoint), accept());
            assert!(messages.is_ok() && peer.is_ok(), "{host}");
        }

        let (other, _) = tls(&["localhost"]);
        let url = format!("wss://localhost:{}/sub/a", server.port());
        let endpoint = test_server::endpoint(&url).ca(other.as_bytes()).unwrap();
        let (messages, peer) = join!(watch(&endpoint), accept());
        assert!(matches!(messages, Err(Error::Tls { .. })), "{messages:?}");
        assert!(peer.is_err());
    }

    #[tokio::test]
    async fn the_proxy_connects_us_unless_the_host_is_exempt() {
        let server = Server::start().await;
        let proxy = Server::start().await;
        let matcher = |no: &str| {
            let url = format!("http://user:pass@127.0.0.1:{}", proxy.port());
            Matcher::builder().all(url).no(no.to_owned()).build()
        };
        let target = format!("127.0.0.1:{}", server.port());

        let endpoint = server.endpoint("/sub/a").proxies(matcher(""));
        let relay = async {
            let (mut inner, asked) = proxy.answer("HTTP/1.1 200 OK\r\n\r\n").await;
            let mut outer = TcpStream::connect(&target).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut inner, &mut outer).await });
            asked
        };
        let (messages, _peer, asked) = join!(watch(&endpoint), server.accept(), relay);
        assert!(messages.is_ok());
        assert_eq!(asked.line, format!("CONNECT {target} HTTP/1.1"));
        assert_eq!(asked.headers["host"], target);
        assert_eq!(asked.headers["proxy-authorization"], "Basic dXNlcjpwYXNz");
        assert!(!asked.headers.contains_key("authorization"));

        let endpoint = server.endpoint("/sub/a").proxies(matcher("127.0.0.1"));
        let (messages, _peer) = join!(watch(&endpoint), server.accept());
        assert!(messages.is_ok());
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_named_without_its_password() {
        let proxy = Server::start().await;
        let url = format!("http://user:s3cret@127.0.0.1:{}", proxy.port());
        let endpoint = Endpoint::new("wss://hooks.example.com/sub/a")
            .unwrap()
            .proxies(Matcher::builder().all(url).build());
        let no = "HTTP/1.1 407 x\r\ncontent-length: 0\r\n\r\n";
        let (messages, (_, asked)) = join!(watch(&endpoint), proxy.answer(no));
        assert_eq!(asked.line, "CONNECT hooks.example.com:443 HTTP/1.1");
        let error = messages.unwrap_err();
        assert!(matches!(error, Error::Proxy { .. }), "{error:?}");
        assert!(error.to_string().contains("407"), "{error}");
        assert!(!format!("{error:?}").contains("s3cret"));
    }

    #[tokio::test]
    async fn an_unreachable_server_is_named_with_its_addresses() {
        let server = Server::start().await;
        let url = format!("ws://s3cret@localhost:{}/sub/a", server.port());
        let address = format!("127.0.0.1:{}", server.port());
        drop(server);
        let error = watch(&test_server::endpoint(&url)).await.unwrap_err();
        let Error::Connect { address: shown, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(
            shown.starts_with("localhost:") && shown.contains(&address),
            "{shown}"
        );
        assert!(!format!("{error:?}").contains("s3cret"));
    }
}

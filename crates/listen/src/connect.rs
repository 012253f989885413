//! A byte stream to the server: through a proxy where the environment has one, and TLS where the
//! URL asks for it.
//!
//! Nothing here has a deadline of its own but the single addresses, which share the caller's. The
//! caller's ends whatever this is doing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use crate::dial::Transport;
use crate::dial::{self, Proxy};
use crate::endpoint::Endpoint;
use crate::error::Error;

/// Opens a stream to the server.
pub(crate) async fn connect(endpoint: &Endpoint) -> Result<Box<dyn Transport>, Error> {
    let Endpoint { host, port, .. } = endpoint;
    let server = endpoint.server();
    let scheme = if endpoint.tls { "https" } else { "http" };
    let proxy = format!("{scheme}://{server}/")
        .parse()
        .ok()
        .and_then(|uri| endpoint.proxies.intercept(&uri));
    let patience = endpoint.timing.connect / 2;
    let stream: Box<dyn Transport> = match proxy {
        Some(proxy) => {
            let proxy = Proxy::new(&proxy)?;
            let stream: Box<dyn Transport> = Box::new(proxy.dial(patience).await?);
            let stream = if proxy.tls {
                secure(endpoint, &proxy.host, stream).await?
            } else {
                stream
            };
            proxy.tunnel(stream, &server).await?
        }
        None => Box::new(dial::tcp(host, *port, patience, None).await?),
    };
    if endpoint.tls {
        return secure(endpoint, host, stream).await;
    }
    Ok(stream)
}

/// Speaks TLS over `stream`, with whoever can prove to be `host`.
async fn secure(
    endpoint: &Endpoint,
    host: &str,
    stream: Box<dyn Transport>,
) -> Result<Box<dyn Transport>, Error> {
    let config = endpoint.tls_config.get_or_try_init(|| async {
        let own = endpoint.roots.clone();
        tokio::task::spawn_blocking(move || config(&own)).await?
    });
    let config = config.await.map_err(|source| Error::Tls {
        server: host.to_owned(),
        source,
    })?;
    dial::secure(stream, host, config.clone()).await
}

fn config(
    own: &[CertificateDer<'static>],
) -> Result<Arc<ClientConfig>, Box<dyn std::error::Error + Send + Sync>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(dial::roots(own)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
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

/// More than a line needs.
const MAX_REASON: usize = 1_024;

#[cfg(test)]
mod tests {
    use std::io;

    use hyper_util::client::proxy::matcher::Matcher;
    use tokio::io::copy_bidirectional;
    use tokio::join;
    use tokio::net::TcpStream;

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

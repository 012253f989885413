//! The connection to an API: one at a time, kept for the next request while both sides like.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hookbot_listen::dial::{self, Proxy, Transport};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// Why there is no answer. Nothing is said that was sent.
type Reason = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct Wire {
    tls: bool,
    host: String,
    port: u16,
    proxy: Option<Proxy>,
    roots: Vec<CertificateDer<'static>>,
    /// Made when first needed: it reads the platform's roots.
    tls_config: Option<Arc<ClientConfig>>,
    idle: Option<Http>,
}

struct Http {
    requests: SendRequest<Full<Bytes>>,
    _connection: AbortOnDropHandle<()>,
}

impl Wire {
    /// Does not connect yet. Proxies are those of the environment.
    pub(crate) fn new(url: &Uri) -> Result<Self, hookbot_listen::Error> {
        let tls = url.scheme_str() == Some("https");
        let host = url.host().unwrap_or_default();
        let proxy = Matcher::from_env().intercept(url);
        Ok(Self {
            tls,
            host: host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: url.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            proxy: proxy.as_ref().map(Proxy::new).transpose()?,
            roots: Vec::new(),
            tls_config: None,
            idle: None,
        })
    }

    /// Trusts these, too.
    pub(crate) fn trust(&mut self, roots: Vec<CertificateDer<'static>>) {
        self.roots.extend(roots);
        self.tls_config = None;
    }

    /// Whether it does not leave this machine.
    pub(crate) fn is_local(&self) -> bool {
        let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
        let is_local = self
            .host
            .parse()
            .map_or(self.host == "localhost", is_loopback);
        is_local && self.proxy.is_none()
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, Reason> {
        let exchanged = timeout(ANSWER_TIMEOUT, async {
            let (http, response) = self.send(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?;
            self.idle = Some(http);
            Ok(Response::from_parts(head, body.to_bytes()))
        });
        let limit = ANSWER_TIMEOUT.as_secs();
        let exchanged = exchanged.await;
        exchanged.unwrap_or_else(|_| Err(format!("no answer within {limit} s").into()))
    }

    /// Sends over the idle connection, or over a new one if nothing of it has left.
    async fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Http, Response<hyper::body::Incoming>), Reason> {
        if let Some(mut http) = self.idle.take()
            && http.requests.ready().await.is_ok()
        {
            match http.requests.try_send_request(request).await {
                Ok(response) => return Ok((http, response)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let stream = self.connect().await?;
        let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // What goes wrong in there is told to whoever waits for the response.
        let connection = tokio::spawn(async { connection.await.unwrap_or(()) });
        let response = requests.send_request(request).await?;
        let http = Http {
            requests,
            _connection: AbortOnDropHandle::new(connection),
        };
        Ok((http, response))
    }

    async fn connect(&mut self) -> Result<Box<dyn Transport>, Reason> {
        let patience = CONNECT_TIMEOUT;
        let mut stream: Box<dyn Transport> = match self.proxy.clone() {
            None => Box::new(dial::tcp(&self.host, self.port, patience, None).await?),
            Some(proxy) => {
                let mut stream: Box<dyn Transport> = Box::new(proxy.dial(patience).await?);
                if proxy.tls {
                    stream = dial::secure(stream, &proxy.host, self.tls_config().await?).await?;
                }
                let server = dial::host_and_port(&self.host, self.port);
                proxy.tunnel(stream, &server).await?
            }
        };
        if self.tls {
            let config = self.tls_config().await?;
            stream = dial::secure(stream, &self.host, config).await?;
        }
        Ok(stream)
    }

    async fn tls_config(&mut self) -> Result<Arc<ClientConfig>, Reason> {
        if let Some(config) = &self.tls_config {
            return Ok(config.clone());
        }
        let own = self.roots.clone();
        let roots = tokio::task::spawn_blocking(move || dial::roots(&own));
        let roots = roots.await.map_err(io::Error::other)??;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(self.tls_config.insert(Arc::new(config)).clone())
    }
}

/// For everything from the name look-up to the answer's last byte.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// For the addresses of a name.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// GitLab's largest page: twenty payloads of 25 MB.
const MAX_ANSWER: usize = 512 << 20;

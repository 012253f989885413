//! The connection to an API.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use hookbot_forward::connector::{Connector, Route, Way};
use hookbot_forward::tls::{TlsError, TlsSettings};
use hookbot_listen::dial::Proxy;
use http::header::PROXY_AUTHORIZATION;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::{self, Client};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

/// Why there is no answer. Nothing is said that was sent.
type Reason = Box<dyn std::error::Error + Send + Sync>;

/// Everything that is needed to connect, and the connection that is kept.
pub(crate) struct Wire {
    host: String,
    port: u16,
    is_tls: bool,
    proxy: Option<Proxy>,
    tls: TlsSettings,
    /// Made when first needed: reading the platform's roots takes a moment.
    client: Option<Client<Connector, Full<Bytes>>>,
}

impl Wire {
    /// Does not connect yet. Proxies are those of the environment.
    pub(crate) fn new(url: &Uri) -> Result<Self, hookbot_listen::Error> {
        let is_tls = url.scheme_str() == Some("https");
        let host = url.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let proxy = Matcher::from_env().intercept(url);
        Ok(Self {
            host: host.to_owned(),
            port: url.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            is_tls,
            proxy: proxy.as_ref().map(Proxy::new).transpose()?,
            tls: TlsSettings::default(),
            client: None,
        })
    }

    /// Trusts these certificates, PEM, too.
    pub(crate) fn trust(&mut self, pem: &[u8]) -> Result<(), TlsError> {
        self.client = None;
        self.tls.trust(pem)
    }

    /// Whether what is sent does not leave this machine.
    pub(crate) fn is_local(&self) -> bool {
        let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
        let address = self.host.parse();
        address.map_or(self.host == "localhost", is_loopback) && self.proxy.is_none()
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn exchange(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, Reason> {
        // With TLS the proxy sees nothing of the request, and is told when it connects us.
        let proxy = self.proxy.as_ref().filter(|_| !self.is_tls);
        if let Some(credentials) = proxy.and_then(|proxy| proxy.authorization.clone()) {
            request
                .headers_mut()
                .insert(PROXY_AUTHORIZATION, credentials);
        }
        let client = self.client()?;
        let exchanged = timeout(ANSWER_TIMEOUT, async {
            let response = client.request(request).await.map_err(cause)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?;
            Ok(Response::from_parts(head, body.to_bytes()))
        });
        let limit = ANSWER_TIMEOUT.as_secs();
        let exchanged = exchanged.await;
        exchanged.unwrap_or_else(|_| Err(format!("no answer within {limit} s").into()))
    }

    fn client(&mut self) -> Result<Client<Connector, Full<Bytes>>, TlsError> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let needs_tls = self.is_tls || self.proxy.as_ref().is_some_and(|proxy| proxy.tls);
        let route = Route {
            way: Way::Tcp {
                host: self.host.clone(),
                port: self.port,
                tls: self.is_tls,
                proxy: self.proxy.clone(),
            },
            tls: needs_tls.then(|| self.tls.config()).transpose()?,
            guard: None,
            timeout: CONNECT_TIMEOUT,
        };
        let client = Client::builder(TokioExecutor::new())
            .set_host(false)
            .build(Connector::new(route));
        Ok(self.client.insert(client).clone())
    }
}

/// What is behind an error of hyper's client, which itself says only where it was.
fn cause(error: legacy::Error) -> Reason {
    match std::error::Error::source(&error) {
        Some(cause) => chain(cause).into(),
        None => error.into(),
    }
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// For everything from the name look-up to the answer's last byte.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// GitLab's largest page: twenty payloads of 25 MB.
const MAX_ANSWER: usize = 512 << 20;

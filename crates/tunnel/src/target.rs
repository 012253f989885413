//! The service that a responder answers with: HTTP/1.1, wherever it listens.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hookbot_forward::connector::{Connector, Route, Way, chain};
use hookbot_forward::tls::{TlsError, TlsSettings};
use hookbot_listen::dial::host_and_port;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, UPGRADE};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either, Empty, Full};
use hyper::body::{Body, Incoming};
use hyper::ext::Protocol;
use hyper::service::Service;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::timeout;
use tracing::debug;

use crate::REAL_STATUS;
use crate::body::Lean;
use crate::headers::strip_hop_by_hop;
use crate::line::BoxError;
use crate::relay::relay;

/// How calls are passed on to a target.
#[derive(Debug, Clone)]
pub struct TargetSettings {
    /// The `Host` that the target sees, rather than its own. The one that the caller used is in
    /// `X-Forwarded-Host` in any case.
    pub host: Option<HeaderValue>,
    /// What is put before the path of each call, behind the path of the target's own URL.
    pub path_prefix: String,
    /// More headers; one of a name that the call has takes its place.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long the target may take to begin its answer, connecting included. Without it only the
    /// broker's patience counts.
    pub timeout: Option<Duration>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a connection that has become something else than HTTP may stand still.
    pub idle_timeout: Duration,
    /// Whom to trust.
    pub tls: TlsSettings,
}

impl Default for TargetSettings {
    fn default() -> Self {
        Self {
            host: None,
            path_prefix: String::new(),
            headers: Vec::new(),
            timeout: None,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(600),
            tls: TlsSettings::default(),
        }
    }
}

/// An HTTP service, with its connections. Cloning shares them.
#[derive(Clone)]
pub struct Target {
    client: Client<Connector, Outgoing>,
    inner: Arc<Inner>,
}

struct Inner {
    settings: TargetSettings,
    /// Scheme and authority.
    origin: String,
    host: HeaderValue,
    /// What is before the path of each call, without a slash at its end.
    base: String,
    query: Option<String>,
    shown: String,
}

/// Why it was not the target that answered: in the extensions of an answer that was given in its
/// place.
#[derive(Debug, Clone)]
pub struct Unanswered(pub String);

/// What is sent to a target.
type Outgoing = UnsyncBoxBody<Bytes, BoxError>;

/// What a target answers, or we in its place.
pub type Answer = Either<Lean<Incoming>, Full<Bytes>>;

impl Target {
    /// Takes an `http` or `https` URL, or `unix:/path/of/socket`. Its path is put before that of
    /// each call. No proxy is asked for the target.
    ///
    /// For `https` it reads the platform's certificates, which takes a moment.
    ///
    /// # Errors
    ///
    /// When it is no such URL, or TLS can't be spoken as asked.
    pub fn new(url: &str, settings: TargetSettings) -> Result<Self, TargetError> {
        let (way, authority, target) = match url.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => {
                let way = Way::Unix(PathBuf::from(path));
                (way, "localhost".to_owned(), PathAndQuery::from_static("/"))
            }
            Some(_) => return Err(TargetError::Url("a unix socket is named by its whole path")),
            None => tcp(url)?,
        };
        let is_tls = matches!(way, Way::Tcp { tls: true, .. });
        let prefix = settings.path_prefix.trim_matches('/');
        let mut base = target.path().trim_end_matches('/').to_owned();
        if !prefix.is_empty() {
            base = format!("{base}/{prefix}");
        }
        let whole = format!("{base}/");
        let parsed = PathAndQuery::try_from(&*whole);
        if !parsed.is_ok_and(|parsed| parsed.path() == whole) {
            return Err(TargetError::Url("the prefix is no path"));
        }
        let inner = Inner {
            origin: format!("http://{authority}"),
            host: HeaderValue::try_from(&*authority)
                .map_err(|_| TargetError::Url("its host can't be sent"))?,
            base,
            query: target.query().map(str::to_owned),
            shown: way.to_string(),
            settings,
        };
        let settings = &inner.settings;
        let route = Route {
            way,
            tls: is_tls.then(|| settings.tls.config()).transpose()?,
            guard: None,
            timeout: settings.connect_timeout,
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOLED)
            .http1_max_buf_size(BUFFER)
            .set_host(false)
            .build(Connector::new(route));
        Ok(Self {
            client,
            inner: Arc::new(inner),
        })
    }

    /// Where it is: host and port, or the socket.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.inner.shown
    }

    /// Passes a call on, and its answer back. Dropping the future or the answer's body takes the
    /// call back from the target, too.
    pub async fn answer<B>(&self, call: Request<B>) -> Response<Answer>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let call = call.map(|body| Lean(body).map_err(Into::into).boxed_unsync());
        let answering = self.pass_on(call);
        let answered = match self.inner.settings.timeout {
            None => answering.await,
            Some(limit) => timeout(limit, answering).await.unwrap_or_else(|_| {
                let seconds = limit.as_secs_f32();
                let reason = format!("the target did not answer within {seconds} s");
                Err((StatusCode::GATEWAY_TIMEOUT, reason))
            }),
        };
        answered.unwrap_or_else(|(status, reason)| refusal(status, reason))
    }

    async fn pass_on(
        &self,
        mut call: Request<Outgoing>,
    ) -> Result<Response<Answer>, (StatusCode, String)> {
        let protocol = call.extensions_mut().remove::<Protocol>();
        let becoming = protocol.map(|protocol| (protocol, hyper::upgrade::on(&mut call)));
        let (mut parts, mut body) = call.into_parts();
        if parts.method == Method::CONNECT && becoming.is_none() {
            let reason = "a target is no proxy".to_owned();
            return Err((StatusCode::METHOD_NOT_ALLOWED, reason));
        }
        parts.uri = self.uri(&parts.uri).map_err(|reason| {
            // Nothing that a broker lets through.
            (StatusCode::BAD_REQUEST, reason)
        })?;
        parts.version = Version::HTTP_11;
        strip_hop_by_hop(&mut parts.headers, &[]);
        let settings = &self.inner.settings;
        let host = settings.host.as_ref().unwrap_or(&self.inner.host);
        parts.headers.insert(HOST, host.clone());
        for (name, _) in &settings.headers {
            parts.headers.remove(name);
        }
        for (name, value) in &settings.headers {
            parts.headers.append(name.clone(), value.clone());
        }
        if let Some((protocol, _)) = &becoming {
            let upgrade = HeaderValue::try_from(protocol.as_str())
                .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
            parts.headers.insert(UPGRADE, upgrade);
            let connection = HeaderValue::from_static("Upgrade");
            parts.headers.insert(CONNECTION, connection);
            parts.method = Method::GET;
            body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        }
        let answer = self.client.request(Request::from_parts(parts, body)).await;
        let mut answer = answer.map_err(|error| (StatusCode::BAD_GATEWAY, failure(&error)))?;
        if let Some((_, caller)) = becoming {
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(self.switch(answer, caller));
            }
            if answer.status().is_success() {
                // HTTP/2 takes a success for a connection that has become something else.
                let real = HeaderValue::from(answer.status().as_u16());
                answer.headers_mut().insert(REAL_STATUS, real);
                *answer.status_mut() = StatusCode::BAD_GATEWAY;
            } else {
                answer.headers_mut().remove(REAL_STATUS);
            }
        }
        strip_hop_by_hop(answer.headers_mut(), &[]);
        Ok(answer.map(|body| Either::Left(Lean(body))))
    }

    /// Joins the two connections once both have become something else.
    fn switch(
        &self,
        mut answer: Response<Incoming>,
        caller: hyper::upgrade::OnUpgrade,
    ) -> Response<Answer> {
        let target = hyper::upgrade::on(&mut answer);
        let idle = self.inner.settings.idle_timeout;
        tokio::spawn(async move {
            let (caller, target) = match tokio::try_join!(caller, target) {
                Ok(both) => both,
                Err(error) => return debug!(%error, "gone before it became something else"),
            };
            if let Err(error) = relay(TokioIo::new(caller), TokioIo::new(target), idle).await {
                debug!(%error, "a connection that became something else was lost");
            }
        });
        let mut agreed = Response::new(Either::Right(Full::default()));
        *agreed.headers_mut() = std::mem::take(answer.headers_mut());
        strip_hop_by_hop(agreed.headers_mut(), &[]);
        agreed
    }

    /// The target's URL for a call's.
    fn uri(&self, call: &Uri) -> Result<Uri, String> {
        let Inner {
            origin,
            base,
            query,
            ..
        } = &*self.inner;
        // With nothing behind the topic, the URL is meant that the target was given with.
        let path = match call.path() {
            "/" | "" if !base.is_empty() => "",
            path => path,
        };
        let queries: Vec<_> = query.as_deref().into_iter().chain(call.query()).collect();
        let mark = if queries.is_empty() { "" } else { "?" };
        let text = format!("{origin}{base}{path}{mark}{}", queries.join("&"));
        text.parse().map_err(|error| format!("{error}"))
    }
}

impl Service<Request<Incoming>> for Target {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>> + Send>>;

    fn call(&self, call: Request<Incoming>) -> Self::Future {
        let target = self.clone();
        Box::pin(async move { Ok(target.answer(call).await) })
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({})", self.shown())
    }
}

/// Takes a URL apart.
fn tcp(url: &str) -> Result<(Way, String, PathAndQuery), TargetError> {
    let unfit = TargetError::Url;
    let uri: Uri = url.parse().map_err(|_| unfit("it does not parse"))?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(unfit("it must begin with http://, https:// or unix:/")),
    };
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let authority = uri.authority().map(http::uri::Authority::as_str);
    let authority = authority.unwrap_or_default();
    if host.is_empty() {
        return Err(unfit("it names no host"));
    }
    if authority.contains('@') {
        return Err(unfit(
            "it has a password; send one as a header, Authorization",
        ));
    }
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let authority = match uri.port_u16() {
        Some(port) => host_and_port(host, port),
        None => uri.host().unwrap_or_default().to_owned(),
    };
    let way = Way::Tcp {
        host: host.to_owned(),
        port,
        tls,
        proxy: None,
    };
    let target = uri.path_and_query().cloned();
    let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
    Ok((way, authority, target))
}

/// What a caller is told of a target that gives no answer.
fn failure(error: &legacy::Error) -> String {
    let text = chain(error);
    let text = text.trim_start_matches("client error (Connect): ");
    match error.is_connect() {
        true => format!("the target is not there: {text}"),
        false => format!("the target has failed: {text}"),
    }
}

fn refusal(status: StatusCode, reason: String) -> Response<Answer> {
    let text = format!("{status}: {reason}\n");
    let mut answer = Response::new(Either::Right(Full::new(text.into())));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    answer.extensions_mut().insert(Unanswered(reason));
    answer
}

/// Why there is no target.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The URL leads nowhere.
    #[error("not a usable URL of a target: {0}")]
    Url(&'static str),
    /// TLS can't be spoken as asked.
    #[error("cannot speak TLS with the target: {0}")]
    Tls(#[from] TlsError),
}

/// How long an idle connection is kept.
const POOLED: Duration = Duration::from_secs(60);

/// What hyper may read ahead of an answer, in bytes: a caller who does not read costs this much.
const BUFFER: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(url: &str, prefix: &str, call: &str) -> String {
        let settings = TargetSettings {
            path_prefix: prefix.to_owned(),
            ..TargetSettings::default()
        };
        let target = Target::new(url, settings).unwrap();
        target.uri(&call.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn a_call_s_path_goes_behind_the_target_s_own() {
        for (url, prefix, call, expected) in [
            ("http://h:3", "", "http://t/", "http://h:3/"),
            (
                "http://h:3",
                "",
                "http://t/a//b%2Fc?x=1",
                "http://h:3/a//b%2Fc?x=1",
            ),
            ("http://h:3/api", "", "http://t/", "http://h:3/api"),
            ("http://h:3/api/", "", "http://t/a/", "http://h:3/api/a/"),
            (
                "http://h/api?k=v",
                "v1/",
                "http://t/a?x",
                "http://h/api/v1/a?k=v&x",
            ),
            ("http://[::1]:3", "/p", "http://t/", "http://[::1]:3/p"),
            ("unix:/run/app", "", "http://t/a", "http://localhost/a"),
        ] {
            assert_eq!(uri(url, prefix, call), expected, "{url} {call}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for url in [
            "",
            "h:3",
            "ftp://h/",
            "http://",
            "unix:app",
            "http://u:p@h/",
        ] {
            assert!(
                Target::new(url, TargetSettings::default()).is_err(),
                "{url}"
            );
        }
        for path_prefix in ["a b", "a?b", "a#b"].map(str::to_owned) {
            let settings = TargetSettings {
                path_prefix,
                ..TargetSettings::default()
            };
            assert!(Target::new("http://h", settings).is_err());
        }
    }
}

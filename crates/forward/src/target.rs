//! An HTTP service that messages are delivered to.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hookbot_listen::dial::Guard;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::time::timeout;

use crate::connector::{ConnectError, Connector, Route, Way, chain};
pub use crate::headers::HostHeader;
use crate::headers::{forwarded, original_host};
use crate::message::Message;
use crate::reply::{Reply, SendError};
use crate::tls::TlsSettings;
use crate::url::{self, Url};
pub use crate::url::{TargetError, masked};

/// How messages are sent to a target.
#[derive(Clone)]
pub struct TargetSettings {
    /// What becomes of the topic.
    pub path: PathMode,
    /// The `Host` it sees.
    pub host: HostHeader,
    /// More headers; one of a name that the message has takes its place.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// From the beginning of an attempt to the head of its answer; the rest of the answer has as
    /// much again.
    pub timeout: Duration,
    /// For the part of it that ends with a connection.
    pub connect_timeout: Duration,
    /// Whom to trust, and who we are.
    pub tls: TlsSettings,
    /// Whether proxies are taken from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`. No
    /// proxy is asked for this machine's own addresses, nor where there is a guard: it would look
    /// up names itself.
    pub proxies: bool,
    /// What addresses may be connected to, asked of each that the target's name leads to.
    pub guard: Option<Arc<Guard>>,
    /// How much of an answer's body is read, in bytes. A connection with more to say is closed.
    pub max_answer: usize,
}

impl Default for TargetSettings {
    fn default() -> Self {
        Self {
            path: PathMode::Drop,
            host: HostHeader::Target,
            headers: Vec::new(),
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            tls: TlsSettings::default(),
            proxies: true,
            guard: None,
            max_answer: 64 << 10,
        }
    }
}

/// What becomes of a message's topic in the URL it is sent to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PathMode {
    /// Nothing: the target's URL is meant exactly.
    #[default]
    Drop,
    /// What of the topic is below this prefix is appended to the URL's path.
    Keep {
        /// What was subscribed to, with its slash at the end.
        below: String,
    },
}

/// An HTTP service, with its connections. Cloning shares them.
///
/// Printing it shows neither the credentials in its URL nor the values in its query.
#[derive(Clone)]
pub struct Target {
    client: Client<Connector, Full<Bytes>>,
    settings: Arc<TargetSettings>,
    url: Arc<Url>,
}

impl Target {
    /// Takes an `http` or `https` URL, or `unix:/path/of/socket` with `:/http/path` behind it if
    /// that is not `/`. Path and query go on the wire as they are here. Credentials before the `@`
    /// become `Authorization`, in place of the sender's.
    ///
    /// For `https` it reads the platform's certificates, which takes a moment.
    ///
    /// # Errors
    ///
    /// When it is no such URL, or TLS can't be spoken as asked.
    pub fn new(url: &str, settings: TargetSettings) -> Result<Self, TargetError> {
        let (parsed, way) = match url.strip_prefix("unix:") {
            Some(rest) => url::unix(rest)?,
            None => url::tcp(url, &settings)?,
        };
        let needs_tls = match &way {
            Way::Tcp { tls, proxy, .. } => *tls || proxy.as_ref().is_some_and(|proxy| proxy.tls),
            Way::Unix(_) => false,
        };
        let route = Route {
            way,
            tls: needs_tls.then(|| settings.tls.config()).transpose()?,
            guard: settings.guard.clone(),
            timeout: settings.connect_timeout.min(settings.timeout.mul_f32(0.9)),
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .set_host(false)
            .build(Connector::new(route));
        Ok(Self {
            client,
            settings: Arc::new(settings),
            url: Arc::new(parsed),
        })
    }

    /// What it is called where it is remembered: its URL without credentials.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.url.name
    }

    /// Sends a message, once. `attempt` is told to the target, counted from 1.
    ///
    /// Whatever the target answers is `Ok`, whether it has taken the message or not. Dropping the
    /// future closes the connection.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn send(&self, message: &Message, attempt: u32) -> Result<Reply, SendError> {
        let request = self.request(message, attempt)?;
        let begin = Instant::now();
        let limit = self.settings.timeout;
        let answer = timeout(limit, self.client.request(request)).await;
        let answer = answer.map_err(|_| SendError::Timeout(limit))?;
        let (head, body) = answer.map_err(|error| failure(&error))?.into_parts();
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            body: read(body, self.settings.max_answer, limit).await,
            duration: begin.elapsed(),
        })
    }

    /// Asks the service for something at another path of its own, and reads nothing of the body.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub(crate) async fn get(
        &self,
        target: &str,
        mut headers: HeaderMap,
    ) -> Result<Response<Incoming>, SendError> {
        let url = &self.url;
        headers.insert(header::HOST, url.host.clone());
        for (name, value) in [
            (header::AUTHORIZATION, &url.authorization),
            (header::PROXY_AUTHORIZATION, &url.proxy_authorization),
        ] {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        for (name, value) in &self.settings.headers {
            headers.insert(name.clone(), value.clone());
        }
        let uri = format!("{}{target}", url.origin).parse();
        let uri = uri.map_err(|_| SendError::Unfit("its path fits no URL".to_owned()))?;
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let limit = self.settings.timeout;
        let answer = timeout(limit, self.client.request(request)).await;
        let answer = answer.map_err(|_| SendError::Timeout(limit))?;
        answer.map_err(|error| failure(&error))
    }

    /// The path and query that it was made with.
    pub(crate) fn path_and_query(&self) -> &PathAndQuery {
        &self.url.target
    }

    /// Its host, with the port where one was given.
    pub(crate) fn host(&self) -> &str {
        self.url.host.to_str().unwrap_or_default()
    }

    fn request(&self, message: &Message, attempt: u32) -> Result<Request<Full<Bytes>>, SendError> {
        let url = &self.url;
        let method = Method::from_bytes(message.method().as_bytes());
        let method = method.map_err(|error| SendError::Unfit(error.to_string()))?;
        let mut headers = forwarded(message, attempt);
        let original = match &self.settings.host {
            HostHeader::Target => None,
            HostHeader::Original => original_host(message),
            HostHeader::Fixed(host) => Some(host.clone()),
        };
        headers.insert(header::HOST, original.unwrap_or_else(|| url.host.clone()));
        if let Some(authorization) = &url.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        for (name, _) in &self.settings.headers {
            headers.remove(name);
        }
        for (name, value) in &self.settings.headers {
            headers.append(name.clone(), value.clone());
        }
        if let Some(authorization) = &url.proxy_authorization {
            headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
        }
        // Whoever posts nothing has to say so (RFC 9110, section 8.6).
        if !message.payload.is_empty() || !matches!(method, Method::GET | Method::HEAD) {
            headers.insert(header::CONTENT_LENGTH, message.payload.len().into());
        }
        let mut request = Request::new(Full::new(message.payload.clone()));
        *request.uri_mut() = self.uri(message)?;
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// The URL that a message is sent to: the target's, with what is kept of its topic, and its
    /// query behind the target's own.
    ///
    /// # Errors
    ///
    /// When the message makes no URL.
    pub fn uri(&self, message: &Message) -> Result<Uri, SendError> {
        let Url { origin, target, .. } = &*self.url;
        let mut path = target.path().to_owned();
        if let PathMode::Keep { below } = &self.settings.path
            && let Some(rest) = message.event.topic.strip_prefix(below.as_str())
        {
            if !path.ends_with('/') {
                path.push('/');
            }
            path.extend(utf8_percent_encode(rest, NOT_IN_PATH));
        }
        let queries = [target.query().unwrap_or_default(), &message.event.query];
        let queries: Vec<_> = queries
            .into_iter()
            .filter(|query| !query.is_empty())
            .collect();
        let separator = if queries.is_empty() { "" } else { "?" };
        let uri = format!("{origin}{path}{separator}{}", queries.join("&"));
        uri.parse()
            .map_err(|_| SendError::Unfit("its query or topic fits no URL".to_owned()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url.shown)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

/// What hyper says, as one of ours.
fn failure(error: &legacy::Error) -> SendError {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(ConnectError(text)) = error.downcast_ref() {
            return SendError::Connect(text.clone());
        }
        cause = error.source();
    }
    if error.is_connect() {
        return SendError::Connect(chain(error));
    }
    let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), chain);
    SendError::Lost(cause)
}

/// Reads a body up to a limit. An answer counts even if its body never ends.
async fn read(mut body: Incoming, limit: usize, patience: Duration) -> Bytes {
    let mut read = BytesMut::new();
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let data = frame.data_ref().map_or(&[][..], |data| data);
            let room = limit - read.len();
            read.extend_from_slice(&data[..data.len().min(room)]);
            if data.len() > room {
                break;
            }
        }
    };
    // What came until then is all there is.
    let _ = timeout(patience, reading).await;
    read.freeze()
}

/// How long a connection is kept without work: less than the five seconds after which many
/// servers close it, so that no message meets a connection that is just being closed.
const IDLE: Duration = Duration::from_secs(4);

/// What a path may not hold as it is (RFC 3986, section 3.3); a slash separates segments.
const NOT_IN_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::test_message;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UnixListener};

    fn target(url: &str, path: PathMode) -> Target {
        let settings = TargetSettings {
            path,
            proxies: false,
            ..TargetSettings::default()
        };
        Target::new(url, settings).unwrap()
    }

    fn uri(url: &str, path: PathMode, query: &str) -> String {
        let mut message = test_message(&[], b"");
        message.event.topic = "a/b c/%ü?".to_owned();
        message.event.query = query.to_owned();
        target(url, path).uri(&message).unwrap().to_string()
    }

    #[test]
    fn the_url_is_meant_exactly_and_what_is_kept_comes_behind_it() {
        let below = |below: &str| PathMode::Keep {
            below: below.to_owned(),
        };
        let odd = r#"http://h:1/x//a/../b%2Fc|"x{y}?z=%41"#;
        assert_eq!(uri(odd, PathMode::Drop, ""), odd);
        assert_eq!(
            uri(odd, PathMode::Drop, "q=%20&r"),
            format!("{odd}&q=%20&r")
        );
        assert_eq!(uri("http://h", PathMode::Drop, "q"), "http://h/?q");
        let kept = "b%20c/%25%C3%BC%3F";
        assert_eq!(
            uri("http://h/x", below("a/"), ""),
            format!("http://h/x/{kept}")
        );
        assert_eq!(
            uri("http://h/x/?z", below("a/"), "q"),
            format!("http://h/x/{kept}?z&q")
        );
        assert_eq!(uri("http://h/x", below("c/"), ""), "http://h/x");
        assert_eq!(
            uri("unix:/run/s:/x?y", PathMode::Drop, ""),
            "http://localhost/x?y"
        );
    }

    #[test]
    fn no_credential_is_printed_and_none_is_part_of_the_name() {
        let url = "https://user:s3cret@h.example/a?key=s3cret&x";
        let settings = TargetSettings::default();
        let target = Target::new(
            url,
            TargetSettings {
                tls: insecure(),
                ..settings
            },
        )
        .unwrap();
        assert_eq!(target.to_string(), "https://***@h.example/a?key=***&x");
        assert_eq!(format!("{target:?}"), format!("Target({target})"));
        assert!(!target.name().contains("user"));
        let request = target.request(&test_message(&[], b""), 1).unwrap();
        assert_eq!(request.headers()["authorization"], "Basic dXNlcjpzM2NyZXQ=");
        assert_eq!(request.headers()["host"], "h.example");
    }

    fn insecure() -> TlsSettings {
        let mut tls = TlsSettings::default();
        tls.insecure = true;
        tls
    }

    #[test]
    fn what_is_no_target_is_refused_without_being_repeated() {
        for url in [
            "",
            "h",
            "/a",
            "ftp://h/",
            "http://",
            "http:///a",
            "http://h:x/",
            "http://h:70000/",
            "http://s3cret@/",
            "unix:a",
            "unix:",
            "http://h/ a",
        ] {
            let error = Target::new(url, TargetSettings::default()).unwrap_err();
            assert!(!error.to_string().contains("s3cret"), "{url}: {error}");
        }
    }

    /// Reads a request of which the body has this length.
    async fn read_request(stream: &mut (impl AsyncReadExt + Unpin), body: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(stream.read_u8().await.unwrap());
        }
        let head = bytes.len();
        bytes.resize(head + body, 0);
        stream.read_exact(&mut bytes[head..]).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_message_arrives_as_it_was_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let url = format!("unix:{}:/x//y%2F?a", path.display());
        let target = target(&url, PathMode::Drop);
        let mut message = test_message(&[("x-a", "1"), ("host", "h"), ("x-a", "2")], b"\0\xff");
        message.event.method = "PATCH".to_owned();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = read_request(&mut stream, 2).await;
            let answer = b"HTTP/1.1 202 Ok\r\ncontent-length: 4\r\n\r\nyes\n";
            stream.write_all(answer).await.unwrap();
            request
        };
        let (reply, request) = tokio::join!(target.send(&message, 2), serve);
        let reply = reply.unwrap();
        assert_eq!((reply.status.as_u16(), &*reply.body), (202, &b"yes\n"[..]));
        let head = "PATCH /x//y%2F?a HTTP/1.1\r\nx-a: 1\r\nx-a: 2\r\nx-forwarded-host: h\r\n\
            forwarded: host=\"h\"\r\nhookbot-topic: a/b\r\nhookbot-attempt: 2\r\n\
            host: localhost\r\ncontent-length: 2\r\n\r\n";
        assert_eq!(request, [head.as_bytes(), b"\0\xff"].concat());
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let message = test_message(&[], b"x");

        let settings = TargetSettings {
            timeout: Duration::from_millis(50),
            ..TargetSettings::default()
        };
        let hasty = Target::new(&url, settings).unwrap();
        let error = hasty.send(&message, 1).await.unwrap_err();
        assert!(matches!(error, SendError::Timeout(_)), "{error}");
        drop(listener.accept().await.unwrap());

        let first = target(&url, PathMode::Drop);
        let hang_up = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream, 1).await;
        };
        let (error, ()) = tokio::join!(first.send(&message, 1), hang_up);
        let error = error.unwrap_err();
        assert!(matches!(error, SendError::Lost(_)), "{error}");

        // Bound, so that nobody else gets it, and not listening.
        let nobody = tokio::net::TcpSocket::new_v4().unwrap();
        nobody.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = nobody.local_addr().unwrap().to_string();
        // The first may have one more connection that it takes for a good one.
        let second = target(&format!("http://{address}/"), PathMode::Drop);
        let error = second.send(&message, 1).await.unwrap_err();
        assert!(matches!(error, SendError::Connect(_)), "{error}");
        assert!(error.to_string().contains(&address), "{error}");

        let guard: Arc<Guard> = Arc::new(|ip| Err(format!("{ip} is private")));
        let settings = TargetSettings {
            guard: Some(guard),
            ..TargetSettings::default()
        };
        let guarded = Target::new(&url, settings).unwrap();
        let error = guarded.send(&message, 1).await.unwrap_err();
        assert!(
            error.to_string().ends_with("127.0.0.1 is private"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn of_an_answer_without_an_end_the_beginning_counts() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let settings = TargetSettings {
            max_answer: 5,
            ..TargetSettings::default()
        };
        let target = Target::new(&url, settings).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream, 0).await;
            stream.write_all(b"HTTP/1.1 200 Ok\r\n\r\n").await.unwrap();
            while stream.write_all(&[b'x'; 1024]).await.is_ok() {}
        };
        let message = test_message(&[], b"");
        let (reply, ()) = tokio::join!(target.send(&message, 1), serve);
        assert_eq!(reply.unwrap().body, "xxxxx");
    }
}

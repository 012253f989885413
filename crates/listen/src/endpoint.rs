//! Where to listen or to publish.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::OnceCell;

use crate::dial::host_and_port;
use crate::error::Error;
use crate::message::Naming;

/// Where to listen or to publish: a URL, and how to get there.
///
/// Proxies are taken from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` when it is made.
/// Printing it shows the URL with `***` for each token in it. Cloning is cheap enough.
#[derive(Clone)]
pub struct Endpoint {
    pub(crate) tls: bool,
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// As typed, so that the server sees the spelling that the user chose.
    pub(crate) target: PathAndQuery,
    /// Where to begin, as a part of the query.
    begin: Option<String>,
    pub(crate) max_message: usize,
    pub(crate) proxies: Arc<Matcher>,
    pub(crate) roots: Vec<CertificateDer<'static>>,
    /// Made when first needed, from the platform's roots and `roots`.
    pub(crate) tls_config: Arc<OnceCell<Arc<ClientConfig>>>,
    pub(crate) timing: Timing,
    authority: String,
    authorization: Option<HeaderValue>,
    headers: HeaderMap,
    shown: String,
    secrets: Vec<String>,
}

impl Endpoint {
    /// Takes an `http`, `https`, `ws` or `wss` URL. The scheme only says whether to use TLS:
    /// listening speaks WebSocket and publishing plain HTTP whichever is written.
    ///
    /// A token before the `@` is sent as a header and is no part of the request line. The path
    /// and the query are sent byte for byte as they are here.
    ///
    /// # Errors
    ///
    /// [`Error::Url`] when it is not such a URL.
    pub fn new(url: &str) -> Result<Self, Error> {
        const SCHEMES: &str = "it must begin with wss://, ws://, https:// or http://";
        let uri: Uri = url.parse().map_err(|_| match url.contains("://") {
            true => Error::Url("it does not parse; percent-encode what is unusual in it"),
            false => Error::Url(SCHEMES),
        })?;
        let scheme = uri.scheme_str().map(str::to_ascii_lowercase);
        let tls = match scheme.as_deref() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            _ => return Err(Error::Url(SCHEMES)),
        };
        let parts = uri.into_parts();
        let (Some(authority), Some(scheme)) = (parts.authority, scheme) else {
            return Err(Error::Url("it names no server"));
        };
        let target = parts
            .path_and_query
            .unwrap_or_else(|| PathAndQuery::from_static("/"));

        let (user_info, address) = match authority.as_str().rsplit_once('@') {
            Some((user_info, address)) => (Some(user_info), address),
            None => (None, authority.as_str()),
        };
        let bracketed = authority.host();
        let host = bracketed.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(Error::Url("it names no server"));
        }
        let port = match address.strip_prefix(bracketed) {
            Some("") if tls => 443,
            Some("") => 80,
            // `Authority::port` takes a port that is too high for none at all.
            rest => rest
                .and_then(|rest| rest.strip_prefix(':')?.parse().ok())
                .ok_or(Error::Url("its port is not a number below 65536"))?,
        };

        let mut secrets = Vec::new();
        let mut shown = format!("{scheme}://");
        if user_info.is_some() {
            shown.push_str("***@");
        }
        shown.push_str(address);
        shown.push_str(&mask_query(&target, &mut secrets));

        let authorization = match user_info {
            None | Some("" | ":") => None,
            Some(text) => {
                secrets.extend(text.split(':').map(str::to_owned));
                let credentials: Vec<u8> = percent_decode_str(text).collect();
                // A decoded colon in the user name can't be told from the one behind it.
                let typed_password = text.contains(':');
                Some(basic(credentials, typed_password, &mut secrets)?)
            }
        };
        // One or two letters are no token, and would riddle every text they are taken out of.
        secrets.retain(|secret| secret.len() > 2);

        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            max_message: MAX_MESSAGE,
            proxies: Arc::new(Matcher::from_env()),
            roots: Vec::new(),
            tls_config: Arc::default(),
            timing: Timing::default(),
            authority: address.to_owned(),
            authorization,
            headers: HeaderMap::new(),
            shown,
            secrets,
            target,
            begin: None,
        })
    }

    /// Sends a header with the request. The first of a name replaces what would be sent anyway
    /// (`Authorization`, `Host`, `User-Agent`), further ones are added.
    ///
    /// # Errors
    ///
    /// [`Error::Header`] when HTTP has no room for it, or when it is one that this crate needs for
    /// itself, such as `Connection`.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, Error> {
        let unfit = |reason| Error::Header {
            name: name.to_owned(),
            reason,
        };
        let parsed: HeaderName = name.parse().map_err(|_| unfit("it is not a header name"))?;
        let is_ours =
            OURS.contains(&parsed.as_str()) || parsed.as_str().starts_with("sec-websocket-");
        if is_ours {
            return Err(unfit("it belongs to the connection, which is made here"));
        }
        let mut value: HeaderValue = value
            .parse()
            .map_err(|_| unfit("its value has a control character"))?;
        value.set_sensitive(parsed == header::AUTHORIZATION);
        self.headers.append(parsed, value);
        Ok(self)
    }

    /// Also trusts these certificates, PEM, beside those that the platform trusts.
    ///
    /// # Errors
    ///
    /// [`Error::Tls`] when there is no certificate in it.
    pub fn ca(mut self, pem: &[u8]) -> Result<Self, Error> {
        let bad = |source| Error::Tls {
            server: self.host.clone(),
            source,
        };
        let added = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad(error.into()))?;
        if added.is_empty() {
            return Err(bad("the CA file holds no certificate in PEM".into()));
        }
        self.roots.extend(added);
        self.tls_config = Arc::default();
        Ok(self)
    }

    /// The longest message to receive, in bytes.
    #[must_use]
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// Connects directly, whatever the environment says of proxies.
    #[must_use]
    pub fn no_proxy(self) -> Self {
        self.proxies(Matcher::builder().build())
    }

    /// Begins behind this place, a cursor that the server gave or `start` for its oldest message,
    /// rather than with what comes next. A server that gives no events may not know how.
    #[must_use]
    pub fn after(mut self, cursor: &str) -> Self {
        self.begin = Some(format!(
            "after={}",
            percent_encode(cursor.as_bytes(), NON_ALPHANUMERIC)
        ));
        self
    }

    /// Begins with what was published since then: a time as RFC 3339 has it, or a span such as
    /// `10m`.
    #[must_use]
    pub fn since(mut self, time: &str) -> Self {
        self.begin = Some(format!(
            "since={}",
            percent_encode(time.as_bytes(), NON_ALPHANUMERIC)
        ));
        self
    }

    /// Waits at most so long before a new connection, rather than 30 s.
    #[must_use]
    pub fn retry_within(mut self, pause: Duration) -> Self {
        self.timing.last_retry = pause;
        self.timing.first_retry = self.timing.first_retry.min(pause);
        self
    }

    /// The URL for browsers and other clients of HTTP: without a token, or anything of the query.
    #[must_use]
    pub fn public_url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority, self.target.path())
    }

    /// Whether this listens to everything below a path, so that topics differ.
    #[must_use]
    pub fn is_prefix(&self) -> bool {
        Naming::of(self.target.path()) == Naming::InFrame
    }

    /// What to ask the server for: with a place known from before, messages go on behind it.
    pub(crate) fn target_after(&self, place: Option<&str>) -> Result<PathAndQuery, Error> {
        let place = place.map(|place| {
            format!(
                "after={}",
                percent_encode(place.as_bytes(), NON_ALPHANUMERIC)
            )
        });
        let Some(begin) = place.as_ref().or(self.begin.as_ref()) else {
            return Ok(self.target.clone());
        };
        // Of several, the last counts.
        let separator = if self.target.query().is_some() {
            '&'
        } else {
            '?'
        };
        let target = format!("{}{separator}{begin}", self.target);
        target.parse().map_err(|_| Error::Url("it is too long"))
    }

    pub(crate) fn proxies(mut self, proxies: Matcher) -> Self {
        self.proxies = Arc::new(proxies);
        self
    }

    /// The headers of a request: the caller's, and ours where the caller has none.
    pub(crate) fn request_headers(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        if let Ok(host) = HeaderValue::from_str(&self.authority) {
            headers.entry(header::HOST).or_insert(host);
        }
        if let Some(authorization) = &self.authorization {
            headers
                .entry(header::AUTHORIZATION)
                .or_insert_with(|| authorization.clone());
        }
        headers
            .entry(header::USER_AGENT)
            .or_insert(HeaderValue::from_static(USER_AGENT));
        headers
    }

    /// Host and port, for errors.
    pub(crate) fn server(&self) -> String {
        host_and_port(&self.host, self.port)
    }

    /// One line of what somebody else wrote, fit to be printed: without control characters, and
    /// without our token, should they have sent it back.
    pub(crate) fn quote(&self, text: &str) -> String {
        let line = text.trim().lines().next().unwrap_or_default();
        let mut line = line.replace(char::is_control, "");
        for secret in &self.secrets {
            line = line.replace(secret, "***");
        }
        line
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.shown)
    }
}

/// How long everything may take. Tests shorten it.
#[derive(Debug, Clone)]
pub(crate) struct Timing {
    /// From the name look-up to the end of the handshake.
    pub(crate) connect: Duration,
    /// Writing a control frame.
    pub(crate) write: Duration,
    /// Between two pings, give or take `ping_jitter`.
    pub(crate) ping: Duration,
    pub(crate) ping_jitter: Duration,
    /// How long a living server may send nothing at all. It answers pings, so a few of them fit.
    pub(crate) silence: Duration,
    /// From our close to the server's.
    pub(crate) finish: Duration,
    /// The longest first pause before connecting again, and the longest of all.
    pub(crate) first_retry: Duration,
    pub(crate) last_retry: Duration,
    /// How long a connection must last for its end to be a new beginning.
    pub(crate) stable: Duration,
    /// For the answer to a message of no length; a longer one has more.
    pub(crate) answer: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            write: Duration::from_secs(30),
            ping: Duration::from_secs(15),
            ping_jitter: Duration::from_secs(5),
            silence: Duration::from_secs(40),
            finish: Duration::from_secs(5),
            first_retry: Duration::from_millis(500),
            last_retry: Duration::from_secs(30),
            stable: Duration::from_secs(30),
            answer: Duration::from_secs(30),
        }
    }
}

/// The `Authorization` header of a user name, with its password if one was typed.
fn basic(
    mut credentials: Vec<u8>,
    typed_password: bool,
    secrets: &mut Vec<String>,
) -> Result<HeaderValue, Error> {
    let decoded = String::from_utf8_lossy(&credentials);
    secrets.extend(decoded.split(':').map(str::to_owned));
    if !typed_password {
        credentials.push(b':');
    }
    let encoded = STANDARD.encode(&credentials);
    let mut value: HeaderValue = format!("Basic {encoded}")
        .parse()
        .map_err(|_| Error::Url("its token can't be sent"))?;
    value.set_sensitive(true);
    secrets.push(encoded);
    Ok(value)
}

/// The target with `***` for each token in its query; the tokens join the `secrets`.
fn mask_query(target: &PathAndQuery, secrets: &mut Vec<String>) -> String {
    let Some(query) = target.query() else {
        return target.path().to_owned();
    };
    let masked: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if percent_decode_str(name).eq(b"token".iter().copied()) => {
                secrets.push(value.to_owned());
                secrets.push(percent_decode_str(value).decode_utf8_lossy().into_owned());
                format!("{name}=***")
            }
            _ => pair.to_owned(),
        })
        .collect();
    format!("{}?{}", target.path(), masked.join("&"))
}

/// More than a server takes by default, and the topic before it.
const MAX_MESSAGE: usize = 32 * 1024 * 1024;

const USER_AGENT: &str = concat!("hookbot-listen/", env!("CARGO_PKG_VERSION"));

/// Headers that would contradict what is done with the connection.
const OURS: [&str; 4] = [
    "connection",
    "upgrade",
    "content-length",
    "transfer-encoding",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn authorization(url: &str) -> Option<String> {
        let headers = Endpoint::new(url).unwrap().request_headers();
        let value = headers.get(header::AUTHORIZATION)?.to_str().unwrap();
        let credentials = STANDARD.decode(value.strip_prefix("Basic ").unwrap());
        Some(String::from_utf8(credentials.unwrap()).unwrap())
    }

    #[test]
    fn the_scheme_decides_on_tls_and_the_port() {
        for (url, tls, server) in [
            ("http://h/a", false, "h:80"),
            ("ws://h:8/a", false, "h:8"),
            ("https://h/a", true, "h:443"),
            ("WSS://h/a", true, "h:443"),
            ("wss://t@[::1]/a", true, "[::1]:443"),
            ("wss://[::1]:8/a", true, "[::1]:8"),
        ] {
            let endpoint = Endpoint::new(url).unwrap();
            assert_eq!((endpoint.tls, &*endpoint.server()), (tls, server), "{url}");
        }
        for url in [
            "",
            "h",
            "h:80",
            "/sub/a",
            "ftp://h/",
            "wss://",
            "wss:///a",
            "wss://t@/a",
            "wss://h:/a",
            "wss://h:99999/a",
            "wss://h/a b",
        ] {
            assert!(matches!(Endpoint::new(url), Err(Error::Url(_))), "{url}");
        }
    }

    #[test]
    fn path_and_query_stay_as_typed() {
        for target in [
            "/sub/a//b/../%2F%2f/%C3%BC?x=%20&y",
            "//",
            "/sub/a%3Frecursive",
            "/sub/{a}|b",
        ] {
            let endpoint = Endpoint::new(&format!("wss://t@h{target}")).unwrap();
            assert_eq!(endpoint.target.as_str(), target);
        }
        let bare = Endpoint::new("wss://h").unwrap();
        assert_eq!(bare.target.as_str(), "/");
    }

    #[test]
    fn a_token_becomes_a_header() {
        for (url, credentials) in [
            ("ws://h/", None),
            ("ws://@h/", None),
            ("ws://tok@h/", Some("tok:")),
            ("ws://tok:@h/", Some("tok:")),
            ("ws://tok:pass@h/", Some("tok:pass")),
            ("ws://t%2Bk@h/", Some("t+k:")),
            ("ws://x1.17.ab@h/", Some("x1.17.ab:")),
        ] {
            assert_eq!(authorization(url).as_deref(), credentials, "{url}");
        }
    }

    #[test]
    fn the_callers_headers_go_first() {
        let headers = Endpoint::new("ws://tok@h:8/")
            .and_then(|endpoint| endpoint.header("authorization", "Bearer other"))
            .and_then(|endpoint| endpoint.header("Host", "elsewhere"))
            .and_then(|endpoint| endpoint.header("X-A", "1"))
            .and_then(|endpoint| endpoint.header("X-A", "2"))
            .unwrap()
            .request_headers();
        let all = |name| headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("authorization"), ["Bearer other"]);
        assert_eq!(all("host"), ["elsewhere"]);
        assert_eq!(all("x-a"), ["1", "2"]);
        assert_eq!(all("user-agent"), [USER_AGENT]);

        for (name, value) in [
            ("Upgrade", "h2c"),
            ("sec-websocket-protocol", "x"),
            ("a b", "x"),
            ("x", "a\r\nb"),
        ] {
            let endpoint = Endpoint::new("ws://h/").unwrap();
            let error = endpoint.header(name, value).unwrap_err();
            assert!(matches!(error, Error::Header { .. }), "{name}");
        }
    }

    #[test]
    fn no_token_is_printed() {
        let endpoint =
            Endpoint::new("wss://s3cret:s3cret@h:8/sub/a?x=1&token=s3cret&%74oken=s3cret#s3cret")
                .unwrap();
        let shown = "wss://***@h:8/sub/a?x=1&token=***&%74oken=***";
        assert_eq!(endpoint.to_string(), shown);
        assert_eq!(format!("{endpoint:?}"), format!("Endpoint({shown})"));
        assert_eq!(endpoint.quote("no s3cret\x1b[31m!\nmore"), "no ***[31m!");
        for url in ["s3cret@h", "wss://s3cret@h/ s3cret", "s3cret://s3cret@h/"] {
            let error = Endpoint::new(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{url}");
        }
    }

    #[test]
    fn a_ca_must_hold_a_certificate() {
        let endpoint = || Endpoint::new("wss://h/").unwrap();
        assert!(matches!(endpoint().ca(b"x"), Err(Error::Tls { .. })));
    }
}

//! A provider's API: requests that are waited for, through limits, failures and moves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::account::Provider;
use crate::credential::Credential;
use crate::error::Error;
use crate::verdict::{Verdict, until_reset};
use crate::wire::Wire;

/// A provider's API, as somebody in particular.
///
/// It asks one thing at a time. Printing it shows no token.
pub struct Api {
    provider: Provider,
    /// Scheme, host and port.
    origin: String,
    authority: String,
    /// The path that all others are below, without a slash at its end.
    base: String,
    credential: Credential,
    /// The last token that was sent, which nobody is to see.
    token: String,
    wire: Wire,
    /// When the limit of requests begins anew, where it is used up.
    not_before: Option<Instant>,
    tell: Arc<dyn Fn(&Wait) + Send + Sync>,
}

/// A pause before a request, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Who asked for it.
    pub provider: Provider,
    /// How long it is.
    pub pause: Duration,
    /// What for, as people read it.
    pub reason: String,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.pause.as_secs();
        write!(
            f,
            "{}: {}; waiting for {seconds} s",
            self.provider, self.reason
        )
    }
}

impl Api {
    /// Takes the URL of an API, such as `https://api.github.com` or that of a server of one's own:
    /// `https://github.example.com/api/v3`, `https://gitlab.example.com/api/v4`.
    ///
    /// # Errors
    ///
    /// When it is not one, or the token can't be sent.
    pub fn new(provider: Provider, url: &str, credential: Credential) -> Result<Self, Error> {
        let bad = |reason: &str| Error::Url(reason.to_owned());
        let parsed: Uri = url.trim().parse().map_err(|_| bad("it does not parse"))?;
        let scheme = parsed.scheme_str().unwrap_or_default();
        if !matches!(scheme, "http" | "https") {
            return Err(bad("it must begin with https://"));
        }
        let authority = parsed.authority().map_or("", |own| own.as_str());
        if authority.is_empty() || authority.contains('@') {
            return Err(bad(
                "it names no host, or a user; tokens are given otherwise",
            ));
        }
        if parsed.query().is_some() {
            return Err(bad("it has a query"));
        }
        credential.check()?;
        Ok(Self {
            provider,
            origin: format!("{scheme}://{authority}"),
            authority: authority.to_owned(),
            base: parsed.path().trim_end_matches('/').to_owned(),
            credential,
            token: String::new(),
            wire: Wire::new(&parsed).map_err(|error| bad(&error.to_string()))?,
            not_before: None,
            tell: Arc::new(|wait| tracing::warn!("{wait}")),
        })
    }

    /// Also trusts these certificates, PEM, beside those that the platform trusts.
    ///
    /// # Errors
    ///
    /// When there is no certificate in it.
    pub fn trust(mut self, pem: &[u8]) -> Result<Self, Error> {
        self.wire.trust(pem)?;
        Ok(self)
    }

    /// Tells of each pause before it begins, rather than to log it.
    #[must_use]
    pub fn telling(mut self, tell: impl Fn(&Wait) + Send + Sync + 'static) -> Self {
        self.tell = Arc::new(tell);
        self
    }

    /// Whose it is.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Whether others can read what is sent: there is no TLS, and it leaves this machine.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        self.origin.starts_with("http:") && !self.wire.is_local()
    }

    /// Asks for `target`, a path below the API's with its query.
    pub(crate) async fn get(&mut self, target: &str) -> Result<Response<Bytes>, Error> {
        self.ask(Method::GET, target).await
    }

    /// Has something done, once: what might have been done already is not asked for again.
    pub(crate) async fn post(&mut self, target: &str) -> Result<Response<Bytes>, Error> {
        self.ask(Method::POST, target).await
    }

    async fn ask(&mut self, method: Method, target: &str) -> Result<Response<Bytes>, Error> {
        let mut path = format!("{}{target}", self.base);
        let (mut failures, mut limits, mut moves) = (0, 0, 0);
        loop {
            if let Some(until) = self.not_before.take() {
                let pause = until.duration_since(Instant::now());
                self.pause(pause, "the limit of requests is used up".to_owned())
                    .await;
            }
            let request = self.request(&method, &path)?;
            let reason = match self.wire.exchange(request).await {
                Err(error) => self.mask(&error.to_string()),
                Ok(response) => {
                    let message = self.message(response.body());
                    let status = response.status();
                    match Verdict::of(&response, &message) {
                        Verdict::Done => {
                            self.note_limit(response.headers());
                            return Ok(response);
                        }
                        Verdict::Moved(place) if moves < MAX_MOVES => {
                            moves += 1;
                            path = self.follow(&place, target)?;
                            continue;
                        }
                        Verdict::Wait(asked) => {
                            // Without a word about how long, at least a minute, and longer each time.
                            let pause = asked.unwrap_or_else(|| UNKNOWN_LIMIT * 2_u32.pow(limits));
                            limits += 1;
                            if pause > MAX_WAIT || limits > MAX_LIMITS {
                                let provider = self.provider;
                                return Err(Error::Limited {
                                    provider,
                                    wait: pause,
                                });
                            }
                            let reason = format!("no more requests for now ({status})");
                            self.pause(pause, reason).await;
                            continue;
                        }
                        Verdict::Broken => format!("it answers {status}"),
                        Verdict::Moved(_) | Verdict::Refused => {
                            return Err(Error::Refused {
                                provider: self.provider,
                                target: target.to_owned(),
                                status,
                                message,
                            });
                        }
                    }
                }
            };
            failures += 1;
            if failures > MAX_FAILURES || method != Method::GET {
                return Err(Error::Unavailable {
                    provider: self.provider,
                    target: target.to_owned(),
                    reason,
                });
            }
            let pause = FIRST_PAUSE * 2_u32.pow(failures - 1);
            self.pause(pause, reason).await;
        }
    }

    async fn pause(&self, pause: Duration, reason: String) {
        let provider = self.provider;
        (self.tell)(&Wait {
            provider,
            pause,
            reason,
        });
        sleep(pause).await;
    }

    /// Where the limit is used up by the last answer, the next request waits before it is sent:
    /// asking on may get a client banned.
    fn note_limit(&mut self, headers: &HeaderMap) {
        let pause = until_reset(headers).filter(|pause| *pause <= MAX_WAIT);
        self.not_before = pause.map(|pause| Instant::now() + pause);
    }

    fn request(&mut self, method: &Method, path: &str) -> Result<Request<Full<Bytes>>, Error> {
        self.token = self.credential.bearer()?;
        let bearer = HeaderValue::try_from(format!("Bearer {}", self.token));
        let mut bearer = bearer.map_err(|_| Error::Token)?;
        bearer.set_sensitive(true);
        let unfit = |_| Error::Url("it can't be sent".to_owned());
        let mut request = Request::new(Full::default());
        *request.method_mut() = method.clone();
        let url = format!("{}{path}", self.origin);
        *request.uri_mut() = url
            .parse()
            .map_err(|_| Error::Url(format!("{path:?} is no path")))?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::try_from(&self.authority).map_err(unfit)?);
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(USER_AGENT, HeaderValue::from_static(OUR_NAME));
        if method != Method::GET {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        match self.provider {
            Provider::Github => {
                headers.insert(
                    ACCEPT,
                    HeaderValue::from_static("application/vnd.github+json"),
                );
                headers.insert(GITHUB_VERSION, HeaderValue::from_static("2022-11-28"));
            }
            Provider::Gitlab => {
                headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
            }
        }
        Ok(request)
    }

    /// The path that a redirection leads to, if it is on the same server: nobody else gets the
    /// token.
    fn follow(&self, place: &str, target: &str) -> Result<String, Error> {
        let path = place.strip_prefix(&self.origin).unwrap_or(place);
        if path.starts_with('/') && !path.starts_with("//") {
            return Ok(path.to_owned());
        }
        Err(Error::Unavailable {
            provider: self.provider,
            target: target.to_owned(),
            reason: "it has moved to another server, which is not given the token".to_owned(),
        })
    }

    /// The reason that a body gives, in one line.
    fn message(&self, body: &Bytes) -> String {
        #[derive(Deserialize)]
        struct Body {
            #[serde(alias = "error")]
            message: serde_json::Value,
        }
        if body.len() > MAX_REASON {
            return String::new();
        }
        let text = match serde_json::from_slice(body) {
            Ok(Body {
                message: serde_json::Value::String(text),
            }) => text,
            Ok(Body { message }) => message.to_string(),
            Err(_) => String::new(),
        };
        self.mask(&text)
    }

    /// What somebody else wrote, in one line and without our token.
    fn mask(&self, text: &str) -> String {
        text.replace(char::is_control, " ")
            .replace(&self.token, "***")
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Api({}{})", self.origin, self.base)
    }
}

/// Whether a refusal is of something that is not there (any more).
pub(crate) fn is_gone(error: &Error) -> bool {
    let gone = [StatusCode::NOT_FOUND, StatusCode::GONE];
    matches!(error, Error::Refused { status, .. } if gone.contains(status))
}

const OUR_NAME: &str = concat!("hookbot/", env!("CARGO_PKG_VERSION"));

const GITHUB_VERSION: HeaderName = HeaderName::from_static("x-github-api-version");

/// After one failure; the next pauses are twice as long each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// So an API may be away for half a minute.
const MAX_FAILURES: u32 = 5;

/// What GitHub asks for where it gives no time.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(60);

/// GitHub's limits are by the hour.
const MAX_WAIT: Duration = Duration::from_secs(2 * 60 * 60);

/// How often one request may meet a limit.
const MAX_LIMITS: u32 = 6;

const MAX_MOVES: u32 = 3;

/// In bytes. What is longer is no reason but an answer.
const MAX_REASON: usize = 16 << 10;

//! A channel of a smee or gosmee server.
//!
//! smee parses what it gets and writes it again, so that a signature of the sender's bytes may no
//! longer verify; gosmee passes every byte on. Neither keeps messages, except a gosmee server with
//! Redis, whose events have places to go on from.

use std::str::FromStr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode, Uri};
use http_body_util::{BodyExt, Collected, Limited};
use hyper::body::Incoming;
use jiff::Timestamp;
use sse_stream::Sse;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::envelope::{Envelope, Fidelity};
use super::event_stream::{EventStream, Item};
use super::sealed::ChannelKey;
use super::{Given, Source, Trouble};
use crate::target::{Target, TargetError, TargetSettings};

/// Whose protocol a channel speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelKind {
    /// Find out: smee.io speaks smee's, a server that has a gosmee version gosmee's, and of others
    /// each event says.
    #[default]
    Auto,
    /// `GET /<channel>`, with bodies as JSON.
    Smee,
    /// `GET /events/<channel>`, with bodies in base64.
    Gosmee,
}

impl FromStr for ChannelKind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "smee" => Ok(Self::Smee),
            "gosmee" => Ok(Self::Gosmee),
            _ => Err("expected auto, smee or gosmee"),
        }
    }
}

/// A channel, one connection for each time that it is opened.
#[derive(Debug, Clone)]
pub struct Channel {
    server: Target,
    kind: ChannelKind,
    /// What its events may be encrypted for.
    key: Option<ChannelKey>,
    /// How long a living server may say nothing: both kinds say something every 30 s.
    silence: Duration,
    /// The longest pause before connecting again.
    last_retry: Duration,
}

impl Channel {
    /// The channel of this URL, such as `https://smee.io/new-channel`. Of the settings, those that
    /// are about connections count, and the headers.
    ///
    /// # Errors
    ///
    /// When it is no such URL, or TLS can't be spoken as asked.
    pub fn new(
        url: &str,
        kind: ChannelKind,
        settings: TargetSettings,
    ) -> Result<Self, TargetError> {
        let server = Target::new(url, settings)?;
        let is_smees = kind == ChannelKind::Auto && server.host().eq_ignore_ascii_case("smee.io");
        Ok(Self {
            server,
            kind: if is_smees { ChannelKind::Smee } else { kind },
            key: None,
            silence: Duration::from_secs(70),
            last_retry: Duration::from_secs(30),
        })
    }

    /// Reads events that are encrypted for this key, as gosmee servers do for some channels.
    #[must_use]
    pub fn key(mut self, key: ChannelKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Whether it is known to speak smee's protocol.
    #[must_use]
    pub fn is_smees(&self) -> bool {
        self.kind == ChannelKind::Smee
    }

    /// Waits at most so long before a new connection, rather than 30 s.
    #[must_use]
    pub fn retry_within(mut self, pause: Duration) -> Self {
        self.last_retry = pause;
        self
    }

    /// Takes a server that has said nothing for so long for dead, rather than after 70 s.
    #[must_use]
    pub fn silent_after(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// Has the server make a channel, and gives its URL. This one's own is the server's.
    ///
    /// # Errors
    ///
    /// What the server says, or that there is none.
    pub async fn new_url(&self) -> Result<String, Trouble> {
        let path = self.server.path_and_query().path().trim_end_matches('/');
        let path = format!("{}/new", path.trim_end_matches("/new"));
        let response = self.server.get(&path, HeaderMap::new()).await;
        let response = response.map_err(|error| Trouble::Lost(error.to_string()))?;
        let status = response.status();
        let to = response.headers().get(header::LOCATION);
        // smee sends browsers there, gosmee says it.
        let url = match to.and_then(|to| to.to_str().ok()) {
            Some(to) if status.is_redirection() => to.to_owned(),
            _ if status.is_success() => {
                let body = Limited::new(response.into_body(), LONGEST_URL).collect();
                let body = timeout(self.silence, body).await;
                let body = body.ok().and_then(Result::ok).map(Collected::to_bytes);
                let body = body.unwrap_or_default();
                String::from_utf8_lossy(&body).trim().to_owned()
            }
            _ => return Err(refused(status)),
        };
        let is_url = url.starts_with("http") && url.parse::<Uri>().is_ok();
        is_url.then_some(url).ok_or_else(|| {
            Trouble::Refused("the server does not answer with a channel's URL".to_owned())
        })
    }

    /// The path of the channel's name: what is before its last slash, and what is behind it.
    fn split(&self) -> (&str, &str) {
        let path = self.server.path_and_query().path().trim_end_matches('/');
        path.rsplit_once('/').unwrap_or(("", path))
    }
}

impl Source for Channel {
    fn name(&self) -> &str {
        self.server.name()
    }

    fn open(&self, after: Option<&str>) -> BoxStream<'static, Given> {
        let listener = Listener {
            channel: self.clone(),
            place: after.map(str::to_owned),
            line: None,
            pause: Duration::ZERO,
            limit: FIRST_RETRY.min(self.last_retry),
            has_warned: false,
        };
        stream::unfold(listener, async |mut listener| {
            let given = listener.next().await;
            Some((given, listener))
        })
        .boxed()
    }
}

/// One who listens to a channel.
struct Listener {
    channel: Channel,
    /// The last event's id, where the server gives ids to go on from.
    place: Option<String>,
    line: Option<Line>,
    /// Before the next connection.
    pause: Duration,
    /// How long that may be at most, next time.
    limit: Duration,
    /// Whether it was said that bodies are not the sender's bytes.
    has_warned: bool,
}

/// An open connection.
struct Line {
    events: EventStream,
    kind: ChannelKind,
    since: Instant,
}

impl Listener {
    async fn next(&mut self) -> Given {
        loop {
            let Some(line) = &mut self.line else {
                sleep(self.pause).await;
                match self.connect().await {
                    Ok(line) => self.line = Some(line),
                    Err(trouble) => return self.lost(trouble),
                }
                continue;
            };
            let kind = line.kind;
            match line.events.next().await {
                Item::Heard => return Given::Heard,
                Item::Event(event) => {
                    let lasts = line.since.elapsed() >= STABLE;
                    let given = self.read(event, kind);
                    if lasts || matches!(given, Given::Message(..)) {
                        self.limit = FIRST_RETRY.min(self.channel.last_retry);
                    }
                    return given;
                }
                Item::Silent => {
                    let seconds = self.channel.silence.as_secs_f32();
                    let text = format!("the server has been silent for {seconds} s");
                    return self.lost(Trouble::Lost(text));
                }
                Item::End(reason) => return self.lost(Trouble::Lost(reason)),
                Item::TooLong => {
                    // The same event would come again.
                    self.place = None;
                    let text = "an event was longer than 64 MiB, and is passed over";
                    return self.lost(Trouble::Missing(text.to_owned()));
                }
            }
        }
    }

    /// Gives the connection up; the next one waits, at random up to a limit that doubles.
    fn lost(&mut self, trouble: Trouble) -> Given {
        self.line = None;
        self.pause = self.limit.mul_f64(fastrand::f64());
        self.limit = (self.limit * 2).min(self.channel.last_retry);
        Given::Trouble(trouble)
    }

    async fn connect(&mut self) -> Result<Line, Trouble> {
        if self.channel.kind == ChannelKind::Auto {
            self.channel.kind = self.find_out().await?;
        }
        let kind = self.channel.kind;
        let target = self.channel.server.path_and_query();
        let target = match kind {
            ChannelKind::Gosmee => {
                let (base, name) = self.channel.split();
                let key = self.channel.key.as_ref();
                let key = key.map(|key| format!("?pubkey={}", key.public()));
                format!("{base}/events/{name}{}", key.unwrap_or_default())
            }
            ChannelKind::Smee | ChannelKind::Auto => target.to_string(),
        };
        let response = self.get(&target).await?;
        if !response.status().is_success() {
            return Err(refused(response.status()));
        }
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let is_stream = content_type
            .and_then(|value| value.to_str().ok())
            .is_some_and(|text| text.to_ascii_lowercase().starts_with(EVENT_STREAM));
        if !is_stream {
            let text =
                "the server answers with something else than events: is the URL a channel's?";
            return Err(Trouble::Refused(text.to_owned()));
        }
        Ok(Line {
            events: EventStream::new(response.into_body(), self.channel.silence),
            kind,
            since: Instant::now(),
        })
    }

    /// Asks the server whether it is a gosmee server.
    async fn find_out(&self) -> Result<ChannelKind, Trouble> {
        let (base, _) = self.channel.split();
        let response = self.get(&format!("{base}/version")).await?;
        if response.headers().contains_key(&GOSMEE_VERSION) {
            return Ok(ChannelKind::Gosmee);
        }
        match refused(response.status()) {
            // Such a server may be either, for all that is known.
            trouble @ Trouble::Lost(_) if !response.status().is_success() => Err(trouble),
            _ => Ok(ChannelKind::Auto),
        }
    }

    async fn get(&self, target: &str) -> Result<Response<Incoming>, Trouble> {
        let mut headers = HeaderMap::new();
        let text = HeaderValue::from_static;
        headers.insert(header::ACCEPT, text(EVENT_STREAM));
        headers.insert(header::CACHE_CONTROL, text("no-cache"));
        headers.insert(header::USER_AGENT, text(USER_AGENT));
        let place = self.place.as_deref().and_then(|place| place.parse().ok());
        if let Some(place) = place {
            headers.insert(LAST_EVENT_ID, place);
        }
        let response = self.channel.server.get(target, headers).await;
        response.map_err(|error| Trouble::Lost(error.to_string()))
    }

    /// What an event's data says, also where it is encrypted.
    fn envelope(&self, data: &str) -> Result<Envelope, &'static str> {
        let parse =
            |data: &str| Envelope::parse(data, self.channel.server.host(), Timestamp::now());
        match (parse(data)?, &self.channel.key) {
            (Envelope::Encrypted, Some(key)) => parse(&key.open(data)?),
            (envelope, _) => Ok(envelope),
        }
    }

    /// What an event means.
    fn read(&mut self, event: Sse, kind: ChannelKind) -> Given {
        let missing = |text: String| Given::Trouble(Trouble::Missing(text));
        match event.event.as_deref() {
            None | Some("" | "message") => {}
            Some("gosmee-gap") => return missing(gap(event.data.as_deref().unwrap_or_default())),
            // Greetings and pings.
            Some(_) => return Given::Heard,
        }
        let Some(data) = event.data else {
            return Given::Heard;
        };
        let envelope = self.envelope(&data);
        // smee counts the events of one connection, which is no place in anything.
        let place = match (kind, &envelope) {
            (ChannelKind::Smee, _) | (_, Ok(Envelope::Message(_, Fidelity::Rewritten))) => None,
            _ => event.id.filter(|id| !id.is_empty()),
        };
        if place.is_some() {
            self.place.clone_from(&place);
        }
        match envelope {
            Ok(Envelope::Message(mut message, fidelity)) => {
                if fidelity == Fidelity::Rewritten && !self.has_warned {
                    self.has_warned = true;
                    warn!("this server writes bodies anew: signatures may no longer verify");
                }
                message.event.cursor = place.clone().unwrap_or_default();
                Given::Message(message, place)
            }
            Ok(Envelope::Greeting) => Given::Heard,
            Ok(Envelope::Encrypted) => {
                missing("an event is encrypted; give the key that it is for".to_owned())
            }
            Err(reason) => missing(format!("an event can't be read: {reason}")),
        }
    }
}

fn refused(status: StatusCode) -> Trouble {
    let text = format!("the server refused with {status}");
    let is_passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    if status.is_client_error() && !is_passing {
        Trouble::Refused(text)
    } else {
        Trouble::Lost(text)
    }
}

/// What a gosmee server says of events that it does not have any more.
fn gap(data: &str) -> String {
    let said: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
    let id = |name: &str| {
        let id = said[name].as_str().unwrap_or("unknown");
        id.replace(char::is_control, "")
    };
    format!(
        "events after {} are no longer there; the oldest is {}",
        id("requested_id"),
        id("oldest_id")
    )
}

/// How much of an answer is read that should be a URL, in bytes.
const LONGEST_URL: usize = 8 << 10;

const EVENT_STREAM: &str = "text/event-stream";

const GOSMEE_VERSION: HeaderName = HeaderName::from_static("x-gosmee-version");

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

const USER_AGENT: &str = concat!("hookbot/", env!("CARGO_PKG_VERSION"));

/// The longest first pause before connecting again.
const FIRST_RETRY: Duration = Duration::from_millis(500);

/// How long a connection without messages must last for its end to be a new beginning.
const STABLE: Duration = Duration::from_secs(30);

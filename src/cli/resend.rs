//! Deliveries on their way to a target: a few attempts each, and what became of them.

use std::fmt;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use hookbot_backfill::{Content, Delivery, Error, Hook, Proof, Signing};
use hookbot_forward::target::{TargetError, TargetSettings};
use hookbot_forward::{Message, Target, Verdict};
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use tokio::time::sleep;
use tracing::warn;

use super::Failure;
use super::remote::RemoteArgs;

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The target took it; where that is a hookbot server, it says where in its log.
    Taken {
        status: StatusCode,
        cursor: Option<String>,
        proof: Proof,
    },
    /// The target does not want it.
    Refused {
        status: StatusCode,
        reason: String,
        proof: Proof,
    },
    /// There is nothing to send: the provider has not kept it, or does not say.
    Lost(String),
    /// The target can't be reached, or does not work at present.
    Unreachable(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { status, proof, .. } => write!(f, "{status}, {proof}"),
            Self::Refused {
                status,
                reason,
                proof,
            } => write!(f, "{status}: {reason} ({proof})"),
            Self::Lost(reason) => write!(f, "lost: {reason}"),
            Self::Unreachable(reason) => write!(f, "not sent: {reason}"),
        }
    }
}

impl Outcome {
    /// What it comes to, for scripts.
    pub(super) fn fields(&self) -> Map<String, Value> {
        let object = match self {
            Self::Taken {
                status,
                cursor,
                proof,
            } => json!({
                "outcome": "taken", "answer": status.as_u16(), "cursor": cursor,
                "signature": proof.name(),
            }),
            Self::Refused {
                status,
                reason,
                proof,
            } => json!({
                "outcome": "refused", "answer": status.as_u16(), "reason": reason,
                "signature": proof.name(),
            }),
            Self::Lost(reason) => json!({ "outcome": "lost", "reason": reason }),
            Self::Unreachable(reason) => json!({ "outcome": "unreachable", "reason": reason }),
        };
        match object {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

/// A target, and how deliveries are made ready for it.
pub(super) struct Resender {
    target: Target,
    signing: Signing,
    /// Names of headers that were said to be missing.
    told: Vec<String>,
    /// How many deliveries in a row the provider was not able to tell of.
    untold: u32,
}

impl Resender {
    pub(super) fn new(url: &str, signing: Signing, remote: &RemoteArgs) -> Result<Self, Failure> {
        let mut settings = TargetSettings::default();
        for (name, value) in remote.headers()? {
            let name = HeaderName::try_from(name);
            let value = HeaderValue::try_from(value);
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(Failure::Usage(anyhow!("a --header can't be sent")));
            };
            settings.headers.push((name, value));
        }
        if let Some(pem) = remote.ca()? {
            let trusted = settings.tls.trust(&pem).context("--ca");
            trusted.map_err(Failure::Usage)?;
        }
        let target = Target::new(url, settings)
            .map_err(|error: TargetError| Failure::Usage(error.into()))?;
        Ok(Self {
            target,
            signing,
            told: Vec::new(),
            untold: 0,
        })
    }

    /// Gets what was sent with a delivery, and sends it to the target.
    ///
    /// Fails only where the provider would not tell of the next one either.
    pub(super) async fn resend(
        &mut self,
        hook: &mut Hook,
        delivery: &Delivery,
    ) -> Result<Outcome, Failure> {
        let content = hook.content(delivery).await;
        self.untold = match &content {
            Err(Error::Unavailable { .. }) => self.untold + 1,
            _ => 0,
        };
        match content {
            Ok(content) => self.send(hook, delivery, &content).await,
            Err(error) if error.is_of_one_delivery() && self.untold < MAX_UNTOLD => {
                Ok(Outcome::Lost(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn send(
        &mut self,
        hook: &Hook,
        delivery: &Delivery,
        content: &Content,
    ) -> Result<Outcome, Failure> {
        let provider = hook.account().provider();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        let resent = content.resent(provider, delivery, &self.signing, now);
        let resent = resent.context("--resign").map_err(Failure::Usage)?;
        for name in resent.withheld {
            if !self.told.contains(&name) {
                warn!("{provider} does not show the header {name}, which is not sent therefore");
                self.told.push(name);
            }
        }
        Ok(self.deliver(&resent.message, resent.proof).await)
    }

    async fn deliver(&self, message: &Message, proof: Proof) -> Outcome {
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        loop {
            let (reason, asked) = match self.target.send(message, attempt).await {
                Ok(reply) if reply.status.is_success() => {
                    let cursor = reply.headers.get("hookbot-cursor");
                    return Outcome::Taken {
                        status: reply.status,
                        cursor: cursor.and_then(|value| Some(value.to_str().ok()?.to_owned())),
                        proof,
                    };
                }
                Ok(reply) if Verdict::of(reply.status) == Verdict::NotNow => {
                    let asked = reply.retry_after(SystemTime::now());
                    (
                        format!("it answers {}: {}", reply.status, reply.first_line()),
                        asked,
                    )
                }
                Ok(reply) => {
                    return Outcome::Refused {
                        status: reply.status,
                        reason: reply.first_line(),
                        proof,
                    };
                }
                Err(error) => (error.to_string(), None),
            };
            if attempt == MAX_ATTEMPTS {
                return Outcome::Unreachable(reason);
            }
            let wait = asked.map_or(pause, |asked| asked.min(MAX_ASKED));
            let seconds = wait.as_secs();
            warn!(target = %self.target, "{reason}; attempt {attempt} of {MAX_ATTEMPTS}, again in {seconds} s");
            sleep(wait).await;
            attempt += 1;
            pause *= 2;
        }
    }
}

/// One may be broken; this many mean that the provider is.
const MAX_UNTOLD: u32 = 3;

const MAX_ATTEMPTS: u32 = 5;

/// After the first attempt; the next pauses are twice as long each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A target may ask for a longer pause than ours, though not for ever.
const MAX_ASKED: Duration = Duration::from_secs(120);

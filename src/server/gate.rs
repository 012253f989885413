//! A source at work: lets messages in or not, and keeps count of what came.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hookbot_protocol::{Publication, Topic};
use hookbot_signatures::{Answer, Refusal, Request, Secret};
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::error::HttpError;
use super::rate::Bucket;
use super::service::now;
use super::source::{OnFail, Source};
use super::transport::Peer;

/// A source's rules, made ready.
pub(super) struct Gate {
    pub(super) source: Arc<Source>,
    secrets: Vec<Secret>,
    bucket: Option<Arc<Bucket>>,
    pub(super) tally: Arc<Tally>,
    /// For each secret.
    pub(super) uses: Vec<Arc<Uses>>,
}

/// What came by a source, since the server started.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) verified: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) quarantined: AtomicU64,
    /// Handshakes that were answered.
    pub(super) answered: AtomicU64,
    /// What came in without anything to verify.
    pub(super) unverified: AtomicU64,
}

/// How often a secret matched, and when last.
#[derive(Debug)]
pub(super) struct Uses {
    /// When counting began, in seconds since 1970.
    pub(super) since: u64,
    pub(super) number: AtomicU64,
    /// In seconds since 1970; 0 for never.
    pub(super) last: AtomicU64,
}

impl Uses {
    fn new() -> Self {
        Self {
            since: now(),
            number: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }
}

/// What is to become of a message.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is published as it is now, and what proved it may be believed.
    Verified,
    /// It is published as it is now; nothing was proved.
    Unverified,
    /// It is kept for somebody to look at.
    Quarantined,
    /// It was a handshake, and is answered only.
    Answered(Answer),
}

impl Gate {
    /// Makes a source ready. What is the same as before goes on as it was.
    pub(super) fn new(source: &Arc<Source>, before: Option<&Self>) -> Self {
        let uses = source.secrets.iter().map(|secret| {
            let before = before?;
            let same = before
                .source
                .secrets
                .iter()
                .position(|own| own.is(secret))?;
            before.uses.get(same).cloned()
        });
        let same_rate = before.filter(|before| before.source.rate == source.rate);
        let bucket = same_rate.and_then(|before| before.bucket.clone());
        Self {
            source: source.clone(),
            secrets: source
                .secrets
                .iter()
                .map(|own| own.secret.clone())
                .collect(),
            bucket: bucket.or_else(|| source.rate.map(|rate| Arc::new(Bucket::new(rate)))),
            tally: before
                .map(|before| before.tally.clone())
                .unwrap_or_default(),
            uses: uses
                .map(|uses| uses.unwrap_or_else(|| Arc::new(Uses::new())))
                .collect(),
        }
    }

    /// Whether messages have to prove anything.
    pub(super) fn verifies(&self) -> bool {
        self.source.scheme.is_some()
    }

    /// The largest body, where the server takes `limit`.
    pub(super) fn max_body(&self, limit: usize) -> usize {
        self.source.max_body.map_or(limit, |own| own.min(limit))
    }

    /// Checks that messages from this client are taken.
    pub(super) fn admit(&self, client: Peer) -> Result<(), HttpError> {
        let is_known = |address| {
            self.source
                .addresses
                .as_ref()
                .is_none_or(|own| own.contains(address))
        };
        match client {
            Peer::Ip(address) if !is_known(address.ip()) => Err(HttpError::Address),
            _ => Ok(()),
        }
    }

    /// Counts a message.
    pub(super) fn count(&self) -> Result<(), HttpError> {
        let Some(bucket) = &self.bucket else {
            return Ok(());
        };
        bucket.take().map_err(|wait| HttpError::Rate {
            whose: "to this source",
            reason: "source_rate",
            wait,
        })
    }

    /// Checks that the body is of a kind that is taken.
    pub(super) fn check_type(&self, headers: &HeaderMap) -> Result<(), HttpError> {
        let given = headers.get(CONTENT_TYPE);
        let given = given.and_then(|value| value.to_str().ok());
        if self.source.takes(given) {
            return Ok(());
        }
        let taken = self.source.content_types.join(", ");
        Err(HttpError::ContentType(taken))
    }

    /// The answer to a provider that asks whether anybody is there.
    pub(super) fn greet(&self, request: &Request, now: u64) -> Option<Answer> {
        let scheme = self.source.scheme.as_ref()?;
        let answer = scheme.handshake(&self.secrets, request, now)?;
        count(&self.tally.answered);
        Some(answer)
    }

    /// Verifies a message, which came at `url`, and makes of it what it is to be published as.
    ///
    /// Takes time that grows with the body.
    pub(super) fn judge(
        &self,
        publication: &mut Publication,
        url: &str,
        now: u64,
    ) -> Result<Verdict, HttpError> {
        let name = self.source.name.as_bytes();
        let Some(scheme) = &self.source.scheme else {
            publication.attributes.push(SOURCE, name);
            count(&self.tally.unverified);
            return Ok(Verdict::Unverified);
        };
        let request = Request {
            method: &publication.method,
            url,
            headers: &publication.headers,
            body: &publication.body,
        };
        if let Some(answer) = self.greet(&request, now) {
            return Ok(Verdict::Answered(answer));
        }
        let verified = scheme.verify(&self.secrets, &request, now);
        publication.delivery_id = scheme.delivery_id(&request).map(Into::into);
        // What is kept must not make a subscriber a sender.
        let secret: Vec<_> = scheme.secret_headers().collect();
        if !secret.is_empty() {
            let all = publication.headers.iter();
            let masked = all.map(|(name, value)| match secret.contains(&name) {
                true => (name, &b"***"[..]),
                false => (name, value),
            });
            publication.headers = masked.collect();
        }
        match verified {
            Ok(matched) => {
                self.note_use(matched.secret, now);
                let promoted = self.source.promote.as_ref();
                let target =
                    promoted.map(|own| own.target(&self.source.filter, &publication.topic));
                if let Some(topic) = target.transpose().map_err(HttpError::Promotion)? {
                    publication.topic = topic;
                }
                publication.attributes.push(SOURCE, name);
                let provider = scheme.to_string();
                publication
                    .attributes
                    .push(VERIFIED_BY, provider.as_bytes());
                Ok(Verdict::Verified)
            }
            Err(refusal) => self.turn_away(publication, refusal),
        }
    }

    fn turn_away(
        &self,
        publication: &mut Publication,
        refusal: Refusal,
    ) -> Result<Verdict, HttpError> {
        // The one topic that is too long to be put below another is refused after all.
        let quarantine = match self.source.on_fail {
            OnFail::Quarantine => quarantine(&publication.topic),
            OnFail::Reject => None,
        };
        let Some(topic) = quarantine else {
            count(&self.tally.rejected);
            return Err(HttpError::Signature(refusal));
        };
        publication.topic = topic;
        let name = self.source.name.as_bytes();
        publication.attributes.push(SOURCE, name);
        let reason = refusal.to_string();
        publication.attributes.push(REFUSED, reason.as_bytes());
        count(&self.tally.quarantined);
        Ok(Verdict::Quarantined)
    }

    fn note_use(&self, secret: usize, now: u64) {
        count(&self.tally.verified);
        if let Some(uses) = self.uses.get(secret) {
            count(&uses.number);
            uses.last.fetch_max(now, Ordering::Relaxed);
        }
    }
}

fn count(figure: &AtomicU64) {
    figure.fetch_add(1, Ordering::Relaxed);
}

/// Where a message is kept that did not verify.
fn quarantine(topic: &Topic) -> Option<Topic> {
    let name = topic.as_str();
    let name = name.strip_prefix("/unsafe/").unwrap_or(name);
    Topic::parse(&format!("/unsafe/quarantine/{name}")).ok()
}

/// The attribute that names the source.
const SOURCE: &str = "source";

/// The attribute that says whose signature was right. Whoever reads it may believe the message.
const VERIFIED_BY: &str = "verified_by";

/// The attribute that says why a message is in quarantine.
const REFUSED: &str = "refused";

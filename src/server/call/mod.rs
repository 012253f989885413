//! Calls: a caller's request held until a responder has answered it, both streamed.
//!
//! [`call`] is the caller's endpoint and [`answer`] the responder's; the [`Exchange`] knows who is
//! connected. Between the two a call is an [`Upload`](upload::Upload) and a [`Download`].
//!
//! The rule a reader would get wrong: an answer that did not come to its end must not look as if it
//! had. So errors of its body go through hyper to the connection, which is then cut.

mod answering;
mod download;
mod exchange;
mod head;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use hookbot_protocol::{Call, Path, Topic};
use hookbot_tunnel::{CallError, Lean, REAL_STATUS, has_word, relay, strip_hop_by_hop};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, HeaderMap, HeaderValue, UPGRADE,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::credentials::Access;
use super::error::HttpError;
use super::head::HeadGuard;
use super::metrics::{CallCount, Outcome};
use super::publish;
use super::reply::{Reply, ReplyBody};
use super::service::{Asked, authorize};
use super::source::Fallback;
use exchange::{Nobody, Place};
use upload::{Flow, Stage, Upload};

pub(super) use answering::answer;
pub(super) use download::{Download, LogLine};
pub(super) use exchange::Exchange;

/// How calls are treated.
#[derive(Debug, Clone)]
pub struct CallSettings {
    /// How long the head of an answer may take, from the end of the call's body.
    pub timeout: Duration,
    /// How long a call may stand still: its body, its answer, or both of a connection that has
    /// become something else.
    pub idle_timeout: Duration,
    /// The largest body of a call, in bytes.
    pub max_body: u64,
    /// The only host at which calls are served, and nothing else is.
    pub host: Option<String>,
    /// How the server finds out that a responder is gone.
    pub keep_alive: hookbot_tunnel::KeepAlive,
}

impl Default for CallSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(90),
            max_body: 25 << 20,
            host: None,
            keep_alive: hookbot_tunnel::KeepAlive::default(),
        }
    }
}

/// Hands a call to a responder, and its answer back.
pub(super) async fn call(
    asked: Asked<'_>,
    call: &Call,
    access: &Access,
    request: Request<Incoming>,
) -> Result<(Reply, Option<usize>), HttpError> {
    let Asked { state, peer, .. } = asked;
    let mut count = CallCount::new(&state.metrics);
    count.outcome = Outcome::Refused;
    if state.memory.is_short() {
        return Err(HttpError::Memory);
    }
    if access.grant.is_none() {
        let strangers = &state.strangers;
        strangers.count_share(peer).map_err(HttpError::TooMany)?;
        strangers.count().map_err(HttpError::TooMany)?;
    }
    let settings = &state.settings.calls;
    let limit = usize::try_from(settings.max_body).unwrap_or(usize::MAX);
    if request.body().size_hint().lower() > settings.max_body {
        count.outcome = Outcome::TooLarge;
        return Err(HttpError::BodyTooLarge { limit });
    }
    let (parts, body) = request.into_parts();
    let wants_fallback = head::wants_fallback(parts.uri.query())?;
    count.outcome = Outcome::HungUp;

    let requests = asked.connection.requests();
    let becoming = becoming(&parts, &body);
    if becoming.is_none() {
        requests.call();
    }
    let (mut upload, flow) = Upload::new(body, settings.max_body, requests.clone());
    let answered = loop {
        let found = match state.exchange.find(call) {
            // Whoever has been told that it may answer may have told others already.
            Err(Nobody::Begun) => timeout(settings.timeout, state.exchange.wait(call))
                .await
                .unwrap_or(Err(Nobody::Connected)),
            found => found,
        };
        let (place, rest) = match found {
            Ok(found) => found,
            Err(Nobody::Free) => {
                count.outcome = Outcome::Busy;
                return Err(HttpError::RespondersBusy);
            }
            Err(Nobody::Connected | Nobody::Begun) => {
                let fallback = Fallen {
                    asked,
                    access,
                    parts: &parts,
                    wants_fallback,
                };
                count.outcome = Outcome::NoResponder;
                let published = fallback.publish(call, upload.into_body()).await?;
                count.outcome = Outcome::Published;
                return Ok(published);
            }
        };
        let place = Arc::new(place);
        if becoming.is_some() && !place.line().takes_upgrades() {
            count.outcome = Outcome::Failed;
            return Err(HttpError::NoUpgrades);
        }
        upload.place = Some(place.clone());
        let head = head::to_responder(asked, access, &parts, rest, becoming.as_deref())?;
        let sending = place.line().call(Request::from_parts(head, upload));
        let stalled = flow.stall(settings.timeout, settings.idle_timeout);
        let sent = tokio::select! {
            sent = sending => sent,
            stage = stalled => {
                count.outcome = Outcome::Timeout;
                return Err(stall(stage, settings));
            }
        };
        match sent {
            Ok(answer) => break (answer, place),
            // It was about to leave; perhaps somebody else is there.
            Err(CallError::NotSent(call)) => {
                let (_, body) = call.into_parts();
                upload = body;
            }
            Err(CallError::Failed(error)) => {
                debug!(%peer, %error, "a call was not answered");
                let (outcome, error) = failure(flow.stage(), limit);
                count.outcome = outcome;
                return Err(error);
            }
        }
    };
    let (answer, place) = answered;
    let passed = Passed {
        flow,
        count,
        place,
        unframed: parts.version == Version::HTTP_10,
    };
    let reply = match (becoming, answer.status()) {
        (Some(protocol), StatusCode::OK) => switch(
            asked,
            Request::from_parts(parts, ()),
            &protocol,
            answer,
            passed,
        ),
        (becoming, _) => pass(asked, answer, becoming.is_some(), passed),
    };
    Ok((reply, Some(0)))
}

/// What goes along with an answer.
struct Passed {
    flow: Arc<Flow>,
    count: CallCount,
    place: Arc<Place>,
    /// The caller knows no chunks.
    unframed: bool,
}

/// The protocol that the connection is to become, by a request that has nothing else to say.
fn becoming(request: &Parts, body: &Incoming) -> Option<String> {
    let asks = request.method == Method::GET
        && body.is_end_stream()
        && has_word(&request.headers, &CONNECTION, "upgrade");
    let protocol = request.headers.get(UPGRADE).filter(|_| asks)?;
    let protocol = protocol.to_str().ok()?.trim();
    (!protocol.is_empty() && !protocol.contains(',')).then(|| protocol.to_owned())
}

/// Makes a reply of an answer.
fn pass(asked: Asked<'_>, answer: Response<Incoming>, was_to_become: bool, with: Passed) -> Reply {
    let (mut parts, body) = answer.into_parts();
    if was_to_become
        && let Some(real) = parts.headers.remove(REAL_STATUS)
        && let Ok(status) = StatusCode::from_bytes(real.as_bytes())
    {
        parts.status = status;
    }
    let settings = &asked.state.settings.calls;
    clean(&mut parts.headers, settings);
    let unframed = with.unframed && !parts.headers.contains_key(CONTENT_LENGTH);
    let download = Download {
        body: Lean(body),
        flow: with.flow,
        idle: settings.idle_timeout,
        moved: Instant::now(),
        timer: None,
        unframed: unframed.then(|| asked.connection.requests().clone()),
        bytes: 0,
        is_over: false,
        count: with.count,
        line: None,
        _place: with.place,
    };
    let mut reply = Reply::new(ReplyBody::Call(Box::new(download)));
    *reply.status_mut() = parts.status;
    *reply.headers_mut() = parts.headers;
    reply
}

/// Agrees to become something else, and joins the two connections once they have.
fn switch(
    asked: Asked<'_>,
    mut request: Request<()>,
    protocol: &str,
    mut answer: Response<Incoming>,
    with: Passed,
) -> Reply {
    let caller = hyper::upgrade::on(&mut request);
    let responder = hyper::upgrade::on(&mut answer);
    asked.connection.subscribes();
    let state = asked.state.clone();
    let idle = state.settings.calls.idle_timeout;
    asked.state.connections.spawn(async move {
        let mut with = with;
        let (caller, responder) = match tokio::try_join!(caller, responder) {
            Ok(both) => both,
            Err(error) => return debug!(%error, "gone before it became something else"),
        };
        let Ok(caller) = caller.downcast::<TokioIo<HeadGuard>>() else {
            unreachable!("every connection is served through a HeadGuard");
        };
        let early = caller.read_buf;
        let mut transport = caller.io.into_inner().into_transport();
        let joined = async {
            let mut responder = TokioIo::new(responder);
            tokio::io::AsyncWriteExt::write_all(&mut responder, &early).await?;
            relay(&mut transport, responder, idle).await
        };
        let ended = state.close.run_until_cancelled(joined).await;
        with.count.outcome = Outcome::Answered;
        if !matches!(ended, Some(Ok(_))) {
            // A protocol that nobody here knows may take an end for a good one.
            with.count.outcome = Outcome::Cut;
            transport.reset();
        }
    });
    let mut reply = Reply::new(ReplyBody::default());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *reply.headers_mut() = std::mem::take(answer.headers_mut());
    let settings = &asked.state.settings.calls;
    clean(reply.headers_mut(), settings);
    let headers = reply.headers_mut();
    headers.remove(CONTENT_SECURITY_POLICY);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Ok(protocol) = HeaderValue::from_str(protocol) {
        headers.insert(UPGRADE, protocol);
    }
    reply
}

/// Leaves of an answer's headers what is for the caller. What a responder says to a browser is
/// about its own pages, not about everybody's at this host.
fn clean(headers: &mut HeaderMap, settings: &CallSettings) {
    if settings.host.is_some() {
        return strip_hop_by_hop(headers, &[]);
    }
    strip_hop_by_hop(headers, &HOST_WIDE);
    headers.append(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
}

/// Headers by which one page speaks for all of its host.
const HOST_WIDE: [&str; 5] = [
    "alt-svc",
    "clear-site-data",
    "service-worker-allowed",
    "set-cookie",
    "strict-transport-security",
];

fn stall(stage: Stage, settings: &CallSettings) -> HttpError {
    match stage {
        Stage::Caller => HttpError::BodyStalled(settings.idle_timeout),
        Stage::Responder => HttpError::ResponderStalled(settings.idle_timeout),
        _ => HttpError::NoAnswer(settings.timeout),
    }
}

fn failure(stage: Stage, limit: usize) -> (Outcome, HttpError) {
    match stage {
        Stage::TooLarge => (Outcome::TooLarge, HttpError::BodyTooLarge { limit }),
        Stage::Broken => (Outcome::HungUp, HttpError::BodyBroken),
        _ => (Outcome::Failed, HttpError::ResponderLost),
    }
}

/// A call that nobody is there to answer.
struct Fallen<'a> {
    asked: Asked<'a>,
    access: &'a Access,
    parts: &'a Parts,
    /// The call says itself that it may be published.
    wants_fallback: bool,
}

impl Fallen<'_> {
    /// Publishes the call, if it says so and may, or its source says so.
    async fn publish(
        self,
        call: &Call,
        body: Incoming,
    ) -> Result<(Reply, Option<usize>), HttpError> {
        let asked = self.asked;
        let Some(topic) = call.topic().filter(|topic| !topic.is_brokers_own()) else {
            return Err(HttpError::NoResponder);
        };
        let gate = asked.book.gate(topic);
        let source_says = gate.is_some_and(|gate| gate.source.fallback == Fallback::Publish);
        // Who only asks changes nothing, and what is only asked is not worth keeping.
        let may = !self.parts.method.is_safe() && (self.wants_fallback || source_says);
        if !may {
            return Err(HttpError::NoResponder);
        }
        let own;
        let mut access = self.access;
        if !source_says {
            own = self.access_to_publish(topic)?;
            access = &own;
        }
        let topic = topic.clone();
        let published = publish::publish(asked, topic, access, self.parts, body).await;
        let (mut reply, bytes) = published?;
        let has_reply = gate.is_some_and(|gate| gate.source.reply.is_some());
        if reply.status() == StatusCode::OK && !has_reply {
            *reply.status_mut() = StatusCode::ACCEPTED;
        }
        Ok((reply, Some(bytes)))
    }

    /// What the caller's tokens allow where its call would be published.
    fn access_to_publish(&self, topic: &Topic) -> Result<Access, HttpError> {
        let scope = hookbot_protocol::Scope::publishing(topic);
        let path = Path::parse(&scope.encoded())?;
        authorize(self.asked, self.parts, &path)
    }
}

//! `POST` to a topic: the body becomes a message.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hookbot_log::Appended;
use hookbot_protocol::{Format, Publication, Topic};
use hookbot_signatures::delivery_id;
use http::header::{CONTENT_LENGTH, HeaderName};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::credentials::Access;
use super::error::HttpError;
use super::gate::{Gate, Verdict};
use super::handshake;
use super::limits::Charge;
use super::reply::{Reply, line};
use super::service::{Asked, now};

/// Where a message is in the log; only publishers with a token are told.
const HOOKBOT_CURSOR: HeaderName = HeaderName::from_static("hookbot-cursor");

/// How long a publisher waits for the log to have room.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the body, and replies `OK` once the log has it. Also says how large it was.
pub(super) async fn publish(
    asked: Asked<'_>,
    topic: Topic,
    access: &Access,
    request: &Parts,
    body: Incoming,
) -> Result<(Reply, usize), HttpError> {
    let Asked {
        state, book, peer, ..
    } = asked;
    if state.memory.is_short() {
        return Err(HttpError::Memory);
    }
    let format = format(request.uri.query())?;
    let trusted = access.grant.is_some();
    let budgets = if trusted {
        &state.bodies[..1]
    } else {
        &state.bodies[..]
    };
    book.count_topic(&topic)?;
    let gate = book.gate(&topic);
    if let Some(gate) = gate {
        gate.admit(peer)?;
        gate.check_type(&request.headers)?;
    }
    let is_verified = gate.is_some_and(|gate| gate.verifies());
    if !trusted {
        state
            .strangers
            .count_share(peer)
            .map_err(HttpError::TooMany)?;
    }
    // Whoever proves who they are is no stranger, and must not suffer from what strangers send.
    if !trusted && !is_verified {
        state.strangers.count().map_err(HttpError::TooMany)?;
    }
    // Held until the log has the message.
    let mut charges: Vec<_> = budgets.iter().map(super::limits::Budget::open).collect();
    let max_body = state.settings.max_body;
    let max_body = gate.map_or(max_body, |gate| gate.max_body(max_body));
    let read = read(request, body, max_body, &mut charges);
    let limit = state.settings.body_timeout;
    let body = timeout(limit, read)
        .await
        .map_err(|_| HttpError::BodyTimeout(limit))??;

    let size = body.len();
    let headers = access.kept_headers(request);
    let publication = Publication {
        method: request.method.as_str().into(),
        query: access.kept_query(request.uri.query()).into(),
        address: peer.to_string().into(),
        delivery_id: delivery_id(&headers).map(Into::into),
        headers,
        format,
        ..Publication::new(topic, body)
    };
    let (mut publication, mut trusted_now, mut window) =
        (publication, trusted, state.settings.deduplicate);
    if let Some(gate) = gate {
        let url = handshake::url(state, request);
        let (judged, verdict) = judge(gate.clone(), publication, url).await;
        publication = judged;
        match verdict {
            Ok(Verdict::Verified) => trusted_now = true,
            Ok(Verdict::Unverified) => {}
            Ok(Verdict::Quarantined) => {
                trusted_now = false;
                state.strangers.count().map_err(HttpError::TooMany)?;
            }
            Ok(Verdict::Answered(answer)) => {
                return Ok((handshake::reply(gate, answer), size));
            }
            Err(error) => {
                if let HttpError::Signature(_) = error {
                    // A wrong signature is a guess like a wrong token.
                    let counted = state.failures.count(peer);
                    counted.map_err(HttpError::TooManyFailures)?;
                }
                return Err(error);
            }
        }
        window = gate.source.deduplicate.or(window);
    }
    let publish = async {
        // What nobody has vouched for may be a forgery of what is still to come.
        match window.filter(|_| trusted_now) {
            Some(window) => state.broker.publish_once(publication, window).await,
            None => state.broker.publish(publication).await,
        }
    };
    let appended = timeout(APPEND_TIMEOUT, publish).await;
    let Appended {
        cursor,
        is_duplicate,
    } = appended.map_err(|_| HttpError::Busy)??;
    state.metrics.published(trusted_now, is_duplicate, size);

    let fixed = gate.and_then(|gate| gate.source.reply.as_ref());
    let mut reply = match fixed {
        Some(fixed) => line(fixed.status, fixed.body.clone()),
        None => line(StatusCode::OK, "OK\n"),
    };
    if trusted && let Ok(cursor) = HeaderValue::try_from(cursor.to_string()) {
        reply.headers_mut().insert(HOOKBOT_CURSOR, cursor);
    }
    Ok((reply, size))
}

/// Has a source verify a message; a large body elsewhere, where nobody waits for it.
async fn judge(
    gate: Arc<Gate>,
    mut publication: Publication,
    url: String,
) -> (Publication, Result<Verdict, HttpError>) {
    if publication.body.len() <= JUDGED_HERE {
        let verdict = gate.judge(&mut publication, &url, now());
        return (publication, verdict);
    }
    let topic = publication.topic.clone();
    let judging = spawn_blocking(move || {
        let verdict = gate.judge(&mut publication, &url, now());
        (publication, verdict)
    });
    let judged = judging.await;
    judged.unwrap_or_else(|_| (Publication::new(topic, ""), Err(HttpError::Busy)))
}

/// The largest body that is verified between other work, in bytes.
const JUDGED_HERE: usize = 64 << 10;

/// How subscribers are to see the body.
fn format(query: Option<&str>) -> Result<Format, HttpError> {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    match pairs.find(|(name, _)| name == "extra-metadata") {
        None => Ok(Format::Raw),
        Some((_, value)) if value == "github" => Ok(Format::Github),
        Some(_) => Err(HttpError::Query {
            name: "extra-metadata",
            expected: "github",
        }),
    }
}

/// Reads a body of at most `limit` bytes, taking room for it as it comes: what a client declares
/// costs next to nothing until it is sent.
async fn read(
    request: &Parts,
    mut body: Incoming,
    limit: usize,
    charges: &mut [Charge],
) -> Result<Bytes, HttpError> {
    let too_large = HttpError::BodyTooLarge { limit };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large);
    }
    let declared = request
        .headers
        .contains_key(CONTENT_LENGTH)
        .then(|| body.size_hint().lower());
    // Copied into memory of its own: what hyper hands out pins its whole read buffer.
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| HttpError::BodyBroken)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > limit {
            return Err(too_large);
        }
        for charge in &mut *charges {
            charge.add(data.len()).map_err(|_| HttpError::Busy)?;
        }
        if let Some(declared) = declared
            && bytes.is_empty()
        {
            bytes.reserve_exact(usize::try_from(declared).unwrap_or(limit).min(FIRST_ROOM));
        }
        bytes.extend_from_slice(&data);
    }
    bytes.shrink_to_fit();
    Ok(bytes.into())
}

/// The most that is allocated on the strength of a declared length alone, in bytes.
const FIRST_ROOM: usize = 256 << 10;

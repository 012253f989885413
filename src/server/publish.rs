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
use super::rules::Rulebook;
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
    // Other systems know nothing of our parameters, and expect smee.io's answer, which is empty.
    let is_channels = topic.is_brokers_own();
    let format = match is_channels {
        true => Format::Raw,
        false => format(request.uri.query())?,
    };
    let trusted = access.grant.is_some();
    let budgets = if trusted {
        &state.bodies[..1]
    } else {
        &state.bodies[..]
    };
    let gate = book.gate(&topic);
    if let Some(gate) = gate {
        gate.admit(peer)?;
        gate.check_type(&request.headers)?;
    }
    if !trusted {
        let share = state.strangers.count_share(peer);
        share.map_err(HttpError::TooMany)?;
    }
    // Whoever proves who they are is no stranger, and is counted once they have: else strangers
    // could use up what is theirs.
    if !gate.is_some_and(|gate| gate.verifies()) {
        if !trusted {
            state.strangers.count().map_err(HttpError::TooMany)?;
        }
        count(book, gate, &topic)?;
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
    let (publication, vouched) = match gate {
        None => (publication, trusted),
        Some(gate) => match examine(asked, gate, request, publication, trusted).await? {
            Examined::Publish(publication, vouched) => (publication, vouched),
            Examined::Answer(reply) => return Ok((reply, size)),
        },
    };
    let window = gate.and_then(|gate| gate.source.deduplicate);
    let window = window.or(state.settings.deduplicate);
    let publish = async {
        // What nobody has vouched for may be a forgery of what is still to come.
        match window.filter(|_| vouched) {
            Some(window) => state.broker.publish_once(publication, window).await,
            None => state.broker.publish(publication).await,
        }
    };
    let appended = timeout(APPEND_TIMEOUT, publish).await;
    let Appended {
        cursor,
        is_duplicate,
    } = appended.map_err(|_| HttpError::Busy)??;
    state.metrics.published(vouched, is_duplicate, size);

    let fixed = gate.and_then(|gate| gate.source.reply.as_ref());
    let mut reply = match fixed {
        Some(fixed) => line(fixed.status, fixed.body.clone()),
        None if is_channels => line(StatusCode::OK, ""),
        None => line(StatusCode::OK, "OK\n"),
    };
    if trusted && let Ok(cursor) = HeaderValue::try_from(cursor.to_string()) {
        reply.headers_mut().insert(HOOKBOT_CURSOR, cursor);
    }
    Ok((reply, size))
}

/// What a source makes of a message.
enum Examined {
    /// It is published as it is now; whether anybody has vouched for it.
    Publish(Publication, bool),
    /// It is not published, but answered.
    Answer(Reply),
}

/// Has a source look at a message.
async fn examine(
    asked: Asked<'_>,
    gate: &Arc<Gate>,
    request: &Parts,
    publication: Publication,
    trusted: bool,
) -> Result<Examined, HttpError> {
    let Asked { state, book, .. } = asked;
    let url = handshake::url(asked, request);
    let (publication, verdict) = judge(gate.clone(), publication, url).await;
    match verdict {
        Ok(Verdict::Verified) => {
            count(book, Some(gate), &publication.topic)?;
            Ok(Examined::Publish(publication, true))
        }
        Ok(Verdict::Unverified) => Ok(Examined::Publish(publication, trusted)),
        Ok(Verdict::Quarantined) => {
            state.strangers.count().map_err(HttpError::TooMany)?;
            Ok(Examined::Publish(publication, false))
        }
        Ok(Verdict::Answered(answer)) => Ok(Examined::Answer(handshake::reply(gate, answer))),
        Err(error @ HttpError::Signature(_)) => {
            // A wrong signature is a guess like a wrong token.
            let counted = state.failures.count(asked.peer);
            counted.map_err(HttpError::TooManyFailures)?;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// Counts a message that is to be published.
fn count(book: &Rulebook, gate: Option<&Arc<Gate>>, topic: &Topic) -> Result<(), HttpError> {
    book.count_topic(topic)?;
    gate.map_or(Ok(()), |gate| gate.count())
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
pub(super) async fn read(
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
            // Little on the strength of what is declared: an allocator gives back what was freed in
            // other places, and so has touched all of it in the end.
            let most = FIRST_ROOM.max(4 * data.len());
            bytes.reserve_exact(usize::try_from(declared).unwrap_or(limit).min(most));
        }
        bytes.extend_from_slice(&data);
    }
    bytes.shrink_to_fit();
    Ok(bytes.into())
}

/// The most that is allocated on the strength of a declared length alone, in bytes.
const FIRST_ROOM: usize = 4 << 10;

//! One connection, from its first byte to its last, or until it becomes a WebSocket.

use std::convert::Infallible;
use std::future::ready;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use super::State;
use super::error::HttpError;
use super::head::{HeadGuard, Requests};
use super::places::Door;
use super::reply::Watched;
use super::service;
use super::transport::{Peer, Stream, Transport};

/// Serves a connection in a task of its own, or says there why it has no place.
pub(super) fn start(state: &Arc<State>, stream: Stream, peer: Peer, door: Door) {
    let place = state.places.take(counted(state, peer));
    let state = state.clone();
    state.clone().connections.spawn(async move {
        match place {
            Ok(place) => {
                drop(door);
                welcome(state, Transport::new(stream, Some(place)), peer).await;
            }
            Err(error) => {
                let transport = Transport::new(stream, None);
                let introduced = introduce(&state, transport, peer);
                refuse(&state, introduced, peer, error, Some(door)).await;
            }
        }
    });
}

/// The network that a connection counts for, unless that is a proxy's, behind which are many.
fn counted(state: &State, peer: Peer) -> Option<IpAddr> {
    let is_proxy = state.book.load().rules.proxies.trusts(peer);
    peer.network().filter(|_| !is_proxy)
}

async fn welcome(state: Arc<State>, transport: Transport, peer: Peer) {
    let Some((mut transport, client)) = introduce(&state, transport, peer).await else {
        return;
    };
    if let Err(error) = transport.count(counted(&state, client)) {
        // Its place is another's before it is told.
        transport.leave_place();
        let (introduced, door) = (ready(Some((transport, client))), state.places.try_door());
        return refuse(&state, introduced, client, error, door).await;
    }
    if let Some(transport) = secure(&state, transport, client).await {
        serve(state, transport, client).await;
    }
}

/// Asks a trusted proxy that speaks the PROXY protocol who its client is.
async fn introduce(
    state: &State,
    mut transport: Transport,
    peer: Peer,
) -> Option<(Transport, Peer)> {
    if !state.book.load().rules.proxies.introduces(peer) {
        return Some((transport, peer));
    }
    let limit = state.settings.handshake_timeout;
    let error = match timeout(limit, transport.read_proxy_header()).await {
        // A proxy that looks whether the server lives has no client.
        Ok(Ok(client)) => return Some((transport, client.map_or(peer, Peer::Ip))),
        Ok(Err(error)) => error,
        Err(elapsed) => elapsed.into(),
    };
    debug!(%peer, %error, "a proxy did not say for whom it comes");
    None
}

/// Does the TLS handshake, where there is TLS.
async fn secure(state: &State, transport: Transport, peer: Peer) -> Option<Transport> {
    let Some(tls) = &state.tls else {
        return Some(transport);
    };
    let acceptor = tls.acceptor();
    let error = match timeout(
        state.settings.handshake_timeout,
        transport.secure(&acceptor),
    )
    .await
    {
        Ok(Ok(transport)) => return Some(transport),
        Ok(Err(error)) => error,
        Err(elapsed) => elapsed.into(),
    };
    debug!(%peer, %error, "no TLS handshake");
    None
}

/// Counts a connection that has no place, and tells its client, where it may stay at the door and
/// that takes neither a TLS handshake nor long.
async fn refuse(
    state: &State,
    introduced: impl Future<Output = Option<(Transport, Peer)>>,
    peer: Peer,
    error: HttpError,
    door: Option<Door>,
) {
    state.metrics.refused(error.reason());
    debug!(%peer, %error, "refused");
    let Some(_door) = door else { return };
    let telling = async {
        if let Some((transport, _)) = introduced.await
            && (state.tls.is_none() || !transport.is_network())
        {
            tell(state, transport, &error).await;
        }
    };
    // Whoever is slower than that is closed untold.
    let _ = timeout(REFUSAL, telling).await;
}

/// Answers one request, whatever it is, by this error.
async fn tell(state: &State, transport: Transport, error: &HttpError) {
    let (guard, requests) = HeadGuard::new(transport, state.settings.patience);
    let service = service_fn(|_| {
        let reply = error.reply();
        let watched = reply.map(|body| Watched::new(body, requests.clone()));
        ready(Ok::<_, Infallible>(watched))
    });
    let mut http = http();
    let connection = http
        .keep_alive(false)
        .serve_connection(TokioIo::new(guard), service);
    // One that is gone has been refused all the same.
    let _ = connection.await;
}

async fn serve(state: Arc<State>, transport: Transport, peer: Peer) {
    let (guard, requests) = HeadGuard::new(transport, state.settings.patience);
    let open = Open::new(&state, requests.clone());
    let service = service_fn(|request| {
        let (state, requests, open) = (&state, requests.clone(), &open);
        async move {
            let flaw = requests.begin();
            let reply = service::respond(state, request, flaw, peer, open).await;
            Ok::<_, Infallible>(reply.map(|body| Watched::new(body, requests)))
        }
    });
    let connection = http()
        .serve_connection(TokioIo::new(guard), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = state.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        debug!(%peer, %error, "connection ended");
    }
}

/// HTTP as it is spoken here.
fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        // The guard has the deadlines; hyper's would run through the idle time as well.
        .header_read_timeout(None)
        .half_close(true)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_BUFFER);
    http
}

/// What the requests on a connection share.
pub(super) struct Open {
    /// Work that the server waits for before it tells subscribers to go.
    work: Mutex<Option<TaskTrackerToken>>,
    requests: Arc<Requests>,
}

impl Open {
    fn new(state: &State, requests: Arc<Requests>) -> Self {
        Self {
            work: Mutex::new(Some(state.requests.token())),
            requests,
        }
    }

    /// What the requests and whoever watches the connection tell each other.
    pub(super) fn requests(&self) -> &Arc<Requests> {
        &self.requests
    }

    /// Says that the connection is a subscriber's from now on, or something else's that ends only
    /// when it is told to.
    pub(super) fn subscribes(&self) {
        self.work
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}

/// How long a client without a place may take to be told so.
const REFUSAL: Duration = Duration::from_secs(1);

/// How many headers a request may have.
const MAX_HEADERS: usize = 64;

/// How large a request's head may be, in bytes.
const MAX_HEAD: usize = 32 << 10;

/// How much hyper may read ahead, in bytes.
const MAX_BUFFER: usize = 64 << 10;

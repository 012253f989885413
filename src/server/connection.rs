//! One connection, from its first byte to its last, or until it becomes a WebSocket.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use super::State;
use super::head::{HeadGuard, Requests};
use super::reply::Watched;
use super::service;
use super::transport::{Peer, Transport};

/// Serves a connection in a task of its own.
pub(super) fn start(state: &Arc<State>, transport: Transport, peer: Peer) {
    let state = state.clone();
    state.clone().connections.spawn(async move {
        let Some((transport, peer)) = introduce(&state, transport, peer).await else {
            return;
        };
        if let Some(transport) = secure(&state, transport, peer).await {
            serve(state, transport, peer).await;
        }
    });
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
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The guard has the deadlines; hyper's would run through the idle time as well.
        .header_read_timeout(None)
        .half_close(true)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_BUFFER)
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

/// How many headers a request may have.
const MAX_HEADERS: usize = 64;

/// How large a request's head may be, in bytes.
const MAX_HEAD: usize = 32 << 10;

/// How much hyper may read ahead, in bytes.
const MAX_BUFFER: usize = 64 << 10;

//! One connection, from its first byte to its last, or until it becomes a WebSocket.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;
use tracing::debug;

use super::State;
use super::head::{HeadGuard, Requests};
use super::service;
use super::transport::{Peer, Transport};

/// Serves a connection in a task of its own.
pub(super) fn start(state: &Arc<State>, transport: Transport, peer: Peer) {
    let state = state.clone();
    state.clone().requests.spawn(async move {
        if let Some(transport) = secure(&state, transport, peer).await {
            serve(state, transport, peer).await;
        }
    });
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
    let service = service_fn(|request| {
        let (state, requests) = (state.clone(), requests.clone());
        async move {
            let flaw = requests.take_flaw();
            let reply = service::respond(&state, request, flaw, peer).await;
            Ok::<_, Infallible>(reply.map(|body| Watched { body, requests }))
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

/// A response's body, which tells when it has been sent.
struct Watched {
    body: Full<Bytes>,
    requests: Arc<Requests>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.requests.finish();
    }
}

/// How many headers a request may have.
const MAX_HEADERS: usize = 64;

/// How large a request's head may be, in bytes.
const MAX_HEAD: usize = 32 << 10;

/// How much hyper may read ahead, in bytes.
const MAX_BUFFER: usize = 64 << 10;

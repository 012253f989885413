//! `--health`: whether the sources are heard, over HTTP.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use super::report::Report;

/// Answers every request with how it is.
pub(super) struct Health {
    listener: TcpListener,
    report: Report,
}

impl Health {
    /// Listens at the first of these addresses that can be had.
    pub(super) async fn bind(addresses: &[SocketAddr], report: Report) -> io::Result<Self> {
        let listener = TcpListener::bind(addresses).await?;
        tracing::info!("health is told on {}", listener.local_addr()?);
        Ok(Self { listener, report })
    }

    /// Serves one connection after the other: whoever asks is brief, or is cut off.
    pub(super) async fn serve(self) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                sleep(BRIEF).await;
                continue;
            };
            let answer =
                service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(self.answer()));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // Whoever is gone has no need of an answer.
            let _ = timeout(BRIEF, connection).await;
        }
    }

    fn answer(&self) -> Response<Full<Bytes>> {
        let (status, text) = match self.report.silence() {
            Some(silence) if silence <= SILENCE => (StatusCode::OK, "OK\n".to_owned()),
            Some(silence) => {
                let text = format!("a source has been silent for {} s\n", silence.as_secs());
                (StatusCode::SERVICE_UNAVAILABLE, text)
            }
            None => {
                let text = "a source has not been heard yet\n".to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, text)
            }
        };
        let mut response = Response::new(Full::new(text.into()));
        *response.status_mut() = status;
        response
    }
}

/// How long an answer may take.
const BRIEF: Duration = Duration::from_secs(1);

/// Two of the periods in which a server says something.
const SILENCE: Duration = Duration::from_secs(60);

//! Callers, responders and their targets, as plain as can be.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use hookbot_tunnel::{Endpoint, Event, Responder, Target, TargetSettings};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, TestServer, token};

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type AnyBody = UnsyncBoxBody<Bytes, BoxError>;
pub(crate) type Sender = mpsc::Sender<Result<Frame<Bytes>, BoxError>>;

/// A body of these bytes.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> AnyBody {
    boxed(Full::new(bytes.into()))
}

pub(crate) fn boxed<B>(body: B) -> AnyBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// A body, and what it is fed with.
pub(crate) fn fed() -> (Sender, AnyBody) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = stream::unfold(receiver, async |mut receiver| {
        let frame = receiver.recv().await?;
        Some((frame, receiver))
    });
    (sender, boxed(StreamBody::new(frames)))
}

/// A piece of a body that is fed.
pub(crate) fn data(bytes: impl Into<Bytes>) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(bytes.into()))
}

/// Everything of a body, as text.
pub(crate) async fn text<B: Body>(body: B) -> String
where
    B::Error: std::fmt::Debug,
{
    let collected = timeout(PATIENCE, body.collect()).await.expect("an end");
    String::from_utf8(collected.unwrap().to_bytes().to_vec()).unwrap()
}

type Answering = Pin<Box<dyn Future<Output = Response<AnyBody>> + Send>>;

/// A service on a port of its own, for as long as the test lasts.
pub(crate) async fn target<F, A>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
    A: Future<Output = Response<AnyBody>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer: Arc<dyn Fn(Request<Incoming>) -> Answering + Send + Sync> =
        Arc::new(move |request| Box::pin(answer(request)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let answering = answer(request);
                    async move { Ok::<_, Infallible>(answering.await) }
                });
                let mut builder = hyper::server::conn::http1::Builder::new();
                let connection = builder
                    .max_headers(300)
                    .serve_connection(TokioIo::new(stream), service);
                let _ = connection.with_upgrades().await;
            });
        }
    });
    address
}

/// A target whose answer begins and never ends, and what it is told when it is given up.
pub(crate) async fn endless(
    framed: bool,
) -> (SocketAddr, Arc<Notify>, mpsc::UnboundedReceiver<()>) {
    let (gone, is_gone) = mpsc::unbounded_channel();
    let more = Arc::new(Notify::new());
    let wait = more.clone();
    let address = target(move |_| {
        let (gone, more) = (gone.clone(), wait.clone());
        async move {
            let (sender, body) = fed();
            tokio::spawn(async move {
                let _ = sender.send(data("begun")).await;
                tokio::select! {
                    () = sender.closed() => drop(gone.send(())),
                    () = more.notified() => {}
                }
            });
            let mut answer = Response::new(body);
            if framed {
                let length = "100".parse().unwrap();
                answer.headers_mut().insert("content-length", length);
            }
            answer
        }
    })
    .await;
    (address, more, is_gone)
}

/// A responder in this process; it is gone when dropped.
pub(crate) struct Answers {
    pub(crate) stop: CancellationToken,
    pub(crate) running: JoinHandle<Result<(), hookbot_listen::Error>>,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.stop.cancel();
        self.running.abort();
    }
}

impl Answers {
    /// Where calls come from, once there is a connection.
    pub(crate) async fn connected(&mut self) -> String {
        loop {
            let event = timeout(PATIENCE, self.events.recv()).await;
            if let Event::Connected { call_url } = event.expect("an event").expect("a responder") {
                return call_url;
            }
        }
    }
}

/// The endpoint of a path here, by a token that is good everywhere.
pub(crate) fn endpoint(server: &TestServer, path: &str) -> Endpoint {
    let url = format!("ws://{}@{}{path}", token("/"), server.address);
    let (name, value) = crate::support::UNSAFE_IS_OK;
    Endpoint::new(&url).unwrap().header(name, value).unwrap()
}

/// Lets a target answer, and waits until calls get there.
pub(crate) async fn answers(server: &TestServer, path: &str, target: SocketAddr) -> Answers {
    answers_with(server, path, target, |responder| responder).await
}

pub(crate) async fn answers_with(
    server: &TestServer,
    path: &str,
    target: SocketAddr,
    change: impl FnOnce(Responder) -> Responder,
) -> Answers {
    let target = Target::new(&format!("http://{target}"), TargetSettings::default()).unwrap();
    serves(server, path, target, change).await
}

/// Answers without a target.
pub(crate) async fn serves<S, B>(
    server: &TestServer,
    path: &str,
    service: S,
    change: impl FnOnce(Responder) -> Responder,
) -> Answers
where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    serves_at(endpoint(server, path), service, change).await
}

pub(crate) async fn serves_at<S, B>(
    endpoint: Endpoint,
    service: S,
    change: impl FnOnce(Responder) -> Responder,
) -> Answers
where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let connected = Arc::new(Notify::new());
    let responder = change(Responder::new(endpoint).first_pause(MOMENT));
    let (sender, events) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (stop, connected) = (stop.clone(), connected.clone());
        async move {
            let tell = |event| {
                if matches!(event, Event::Connected { .. }) {
                    connected.notify_one();
                }
                let _ = sender.send(event);
            };
            responder.run(service, stop, tell).await
        }
    });
    let waited = timeout(PATIENCE, connected.notified()).await;
    waited.expect("a connection");
    Answers {
        stop,
        running,
        events,
    }
}

/// A figure of the server's metrics.
pub(crate) async fn figure(server: &TestServer, name: &str) -> u64 {
    let bearer = format!("Bearer {}", token("/metrics"));
    let reply = server
        .request("GET /metrics", &[("Authorization", &bearer)], b"")
        .await;
    let mut lines = reply.body.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_default()
}

/// Waits until a figure is what it should be.
pub(crate) async fn wait_for(server: &TestServer, name: &str, expected: u64) {
    let waiting = async {
        while figure(server, name).await != expected {
            sleep(MOMENT).await;
        }
    };
    let waited = timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "{name} does not become {expected}");
}

pub(crate) async fn wait_for_responders(server: &TestServer, number: u64) {
    wait_for(server, "hookbot_responders", number).await;
}

pub(crate) const MOMENT: Duration = Duration::from_millis(5);

/// A connection to the server that requests are sent on.
pub(crate) async fn caller(server: &TestServer) -> SendRequest<AnyBody> {
    let stream = TokioIo::new(server.connect().await);
    let (requests, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    requests
}

/// A request with a token that is good everywhere.
pub(crate) fn request(server: &TestServer, method: &str, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", server.address.to_string())
        .header("authorization", format!("Bearer {}", token("/")))
}

/// Sends one call on a connection of its own.
pub(crate) async fn call(
    server: &TestServer,
    method: &str,
    path: &str,
    body: impl Into<Bytes>,
) -> Response<Incoming> {
    let request = request(server, method, path).body(whole(body)).unwrap();
    send(server, request).await
}

pub(crate) async fn send(server: &TestServer, request: Request<AnyBody>) -> Response<Incoming> {
    let mut requests = caller(server).await;
    let sent = timeout(PATIENCE, requests.send_request(request)).await;
    sent.expect("an answer").unwrap()
}

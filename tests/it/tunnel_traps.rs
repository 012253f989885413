//! What a few callers of many can do to a tunnel that all share: nothing.
//!
//! Each of these stalled or ended the tunnel for everybody with the usual settings of HTTP/2.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use hookbot_tunnel::KeepAlive;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::callers::{
    Answers, AnyBody, BoxError, answers, answers_with, boxed, call, data, fed, figure, request,
    serves, target, text, wait_for, whole,
};
use crate::support::{Options, PATIENCE, TestServer, token};

/// A body of pieces of this length, and a count of what was taken of it.
fn pieces(length: usize, number: usize, taken: Arc<AtomicU64>) -> AnyBody {
    let piece = Bytes::from(vec![7; length]);
    let frames = stream::iter(0..number).map(move |_| {
        taken.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok::<_, BoxError>(Frame::data(piece.clone()))
    });
    boxed(StreamBody::new(frames))
}

/// Asks and does not read. What comes is left to the system's buffers, which are small.
async fn stalled(server: &TestServer, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    let token = token("/");
    let head = format!("GET {path} HTTP/1.1\r\nHost: h\r\nHookbot-Token: {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Answers of 64 MiB at `/large`, of a few bytes elsewhere.
async fn large_or_small(
    request: Request<Incoming>,
    length: usize,
    taken: Arc<AtomicU64>,
) -> Result<Response<AnyBody>, Infallible> {
    Ok(Response::new(match request.uri().path() {
        "/large" => pieces(length, (64 << 20) / length, taken),
        _ => whole("small"),
    }))
}

/// Checks that calls still get through, and that it is still the first connection.
async fn assert_well(server: &TestServer, answers: &mut Answers) {
    for _ in 0..20 {
        let answer = call(server, "POST", "/call/t/small", "question").await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(text(answer.into_body()).await, "small");
    }
    answers.connected().await;
    let more = answers.events.try_recv();
    assert!(more.is_err(), "{more:?}");
}

/// T1 and T7: callers who do not read hold up nobody, and each costs a bounded amount.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_do_not_read_hold_up_nobody_and_cost_little() {
    let server = TestServer::start().await;
    let taken = Arc::new(AtomicU64::new(0));
    let count = taken.clone();
    let service = service_fn(move |call| large_or_small(call, 64 << 10, count.clone()));
    let mut answers = serves(&server, "/answer/t", service, |own| own).await;
    let mut all = Vec::new();
    for _ in 0..100 {
        all.push(stalled(&server, "/call/t/large").await);
    }
    wait_for(&server, "hookbot_calls_in_flight", 100).await;
    // A large answer that is read comes to its end between them.
    let answer = call(&server, "GET", "/call/t/large", "").await;
    let read = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(read.len(), 64 << 20);
    assert_well(&server, &mut answers).await;
    let each = (taken.load(Ordering::Relaxed) - (64 << 20)) / 100;
    assert!(each < 4 << 20, "{each} bytes were taken of each");
    assert_eq!(figure(&server, "hookbot_calls_in_flight").await, 100);
    drop(all);
    wait_for(&server, "hookbot_calls_in_flight", 0).await;
}

/// T1 the other way: a target that does not read some bodies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_the_target_does_not_read_hold_up_nobody() {
    let server = TestServer::start().await;
    let service = service_fn(async |request: Request<Incoming>| {
        if request.uri().path() == "/deaf" {
            // It holds the body, and does not read it.
            let _request = request;
            return std::future::pending().await;
        }
        let read = request.into_body().collect().await;
        assert_eq!(read.unwrap().to_bytes(), "question");
        Ok::<_, Infallible>(Response::new(whole("small")))
    });
    let mut answers = serves(&server, "/answer/t", service, |own| own).await;
    let mut all = Vec::new();
    for _ in 0..50 {
        let mut stream = server.connect().await;
        let token = token("/");
        let head = format!(
            "POST /call/t/deaf HTTP/1.1\r\nHost: h\r\nHookbot-Token: {token}\r\n\
             Content-Length: 20000000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        all.push(tokio::spawn(async move {
            let piece = [0; 64 << 10];
            while stream.write_all(&piece).await.is_ok() {}
        }));
    }
    wait_for(&server, "hookbot_calls_in_flight", 50).await;
    assert_well(&server, &mut answers).await;
    all.iter().for_each(|one| one.abort());
}

/// T2: many callers who hang up together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_hang_up_by_the_hundred_end_nothing_for_others() {
    let server = TestServer::start().await;
    let service = service_fn(async |request: Request<Incoming>| {
        if request.uri().path() == "/held" {
            return std::future::pending().await;
        }
        Ok::<_, Infallible>(Response::new(whole("small")))
    });
    let mut answers = serves(&server, "/answer/t", service, |own| own).await;
    for _ in 0..3 {
        let mut all = Vec::new();
        for _ in 0..500 {
            all.push(stalled(&server, "/call/t/held").await);
        }
        wait_for(&server, "hookbot_calls_in_flight", 500).await;
        drop(all);
        wait_for(&server, "hookbot_calls_in_flight", 0).await;
    }
    assert_well(&server, &mut answers).await;
}

/// T3: an event stream in small pieces that nobody reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_pieces_that_nobody_reads_end_nothing_for_others() {
    let server = TestServer::start().await;
    let taken = Arc::new(AtomicU64::new(0));
    let count = taken.clone();
    let service = service_fn(move |call| large_or_small(call, 10, count.clone()));
    let mut answers = serves(&server, "/answer/t", service, |own| own).await;
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(stalled(&server, "/call/t/large").await);
    }
    wait_for(&server, "hookbot_calls_in_flight", 3).await;
    // Far more frames than h2's usual budget is for.
    // Each is 10 bytes; usually the budget is for some ten thousand.
    let far_more = async {
        while taken.load(Ordering::Relaxed) <= 300_000 {
            let answer = call(&server, "GET", "/call/t/small", "").await;
            assert_eq!(answer.status(), StatusCode::OK);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, far_more)
        .await
        .expect("more than 300,000 bytes");
    assert_well(&server, &mut answers).await;
}

/// T3b: empty pieces of bodies.
#[tokio::test]
async fn empty_pieces_of_bodies_end_nothing_for_others() {
    let server = TestServer::start().await;
    let service = service_fn(async |_: Request<Incoming>| {
        let pieces = ["", "sm", "", "", "all", ""].map(data);
        let body = StreamBody::new(stream::iter(pieces));
        Ok::<_, Infallible>(Response::new(boxed(body)))
    });
    let mut answers = serves(&server, "/answer/t", service, |own| own).await;
    for _ in 0..150 {
        let answer = call(&server, "GET", "/call/t", "").await;
        assert_eq!(text(answer.into_body()).await, "small");
    }
    assert_well(&server, &mut answers).await;
}

/// T2 and T4, frame by frame, so that nothing of it is chance: callers who hang up before the
/// responder has looked, and data that comes when its call was answered already.
#[tokio::test]
async fn what_is_taken_back_or_comes_too_late_ends_nothing_for_others() {
    let mut broker = Broker::start(KeepAlive::default()).await;
    let mut stream = 1_u32;
    let mut burst = Vec::new();
    for _ in 0..1_000 {
        burst.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, HEAD));
        burst.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        stream += 2;
    }
    broker.send(burst).await;
    broker.assert_well().await;
    for _ in 0..1_200 {
        // A call whose body is still to come, answered before.
        broker.send(frame(HEADERS, END_HEADERS, stream, HEAD)).await;
        while broker.next().await != (RST_STREAM, stream) {}
        stream += 2;
    }
    // More than h2 remembers having reset.
    for late in (stream - 2_400..stream).step_by(2) {
        broker.send(frame(DATA, 0, late, b"late")).await;
    }
    broker.assert_well().await;
}

/// A broker that sends what it is told to.
struct Broker {
    socket: WebSocketStream<TcpStream>,
    received: Vec<u8>,
    running: tokio::task::JoinHandle<()>,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// `POST http://h/`, as HPACK writes it (RFC 7541, appendix A).
const HEAD: &[u8] = b"\x83\x86\x84\x01\x01h";

/// A frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

impl Broker {
    /// Lets a responder connect that answers everything at once.
    async fn start(keep_alive: KeepAlive) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/answer/t", listener.local_addr().unwrap());
        let endpoint = hookbot_tunnel::Endpoint::new(&url).unwrap();
        let responder = hookbot_tunnel::Responder::new(endpoint).keep_alive(keep_alive);
        let service = service_fn(async |_| Ok::<_, Infallible>(Response::new(whole(""))));
        let running = tokio::spawn(async move {
            let _ = responder.run(service, Default::default(), drop).await;
        });
        #[expect(
            clippy::result_large_err,
            reason = "the callback's type is tungstenite's"
        )]
        let agree = |_: &_, mut response: Response<()>| {
            let chosen = hookbot_tunnel::TUNNEL_V1.parse().unwrap();
            let headers = response.headers_mut();
            headers.insert("sec-websocket-protocol", chosen);
            Ok(response)
        };
        let (stream, _) = listener.accept().await.unwrap();
        let accepted = tokio_tungstenite::accept_hdr_async(stream, agree).await;
        let mut broker = Self {
            socket: accepted.unwrap(),
            received: Vec::new(),
            running,
        };
        broker
            .send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec())
            .await;
        broker.send(frame(SETTINGS, 0, 0, &[])).await;
        broker
    }

    async fn send(&mut self, bytes: Vec<u8>) {
        self.socket.send(Message::binary(bytes)).await.unwrap();
    }

    /// The next frame's kind and stream. Pings are answered.
    async fn next(&mut self) -> (u8, u32) {
        loop {
            let length = self.received.get(..3).map(|own| {
                let own = [0, own[0], own[1], own[2]];
                9 + u32::from_be_bytes(own) as usize
            });
            let Some(length) = length.filter(|length| self.received.len() >= *length) else {
                let more = timeout(PATIENCE, self.socket.next()).await.unwrap();
                self.received.extend(more.unwrap().unwrap().into_data());
                continue;
            };
            let own: Vec<u8> = self.received.drain(..length).collect();
            let stream = u32::from_be_bytes(own[5..9].try_into().unwrap());
            if own[3] == PING && own[4] != ACK {
                self.send(frame(PING, ACK, 0, &own[9..])).await;
                continue;
            }
            return (own[3], stream);
        }
    }

    /// Checks that the responder goes on.
    async fn assert_well(&mut self) {
        self.send(frame(PING, 0, 0, b"are you?")).await;
        loop {
            match self.next().await {
                (PING, _) => return,
                (kind, _) => assert_ne!(kind, GOAWAY, "the responder has had enough"),
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// T5: a caller who hangs up while nobody takes its body can't be seen, but does not stay for ever.
#[tokio::test]
async fn a_body_that_stands_still_is_given_up() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.calls.idle_timeout = Duration::from_millis(400);
        settings.calls.max_body = 1 << 30;
    }))
    .await;
    let (gone, mut is_gone) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<Incoming>| {
        struct Gone(mpsc::UnboundedSender<()>);
        impl Drop for Gone {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let guard = Gone(gone.clone());
        async move {
            let _held = (guard, request);
            std::future::pending::<Result<Response<AnyBody>, Infallible>>().await
        }
    });
    let _answers = serves(&server, "/answer/t", service, |own| own).await;
    let mut stream = server.connect().await;
    let head = format!(
        "POST /call/t HTTP/1.1\r\nHost: h\r\nHookbot-Token: {}\r\nContent-Length: 900000000\r\n\r\n",
        token("/")
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Until neither the target nor anybody on the way takes more.
    let piece = [0; 64 << 10];
    while timeout(Duration::from_millis(200), stream.write_all(&piece))
        .await
        .is_ok()
    {}
    let (mut reader, writer) = stream.into_split();
    writer.forget();
    timeout(PATIENCE, is_gone.recv())
        .await
        .expect("given up at the responder");
    let mut reply = Vec::new();
    let _ = timeout(PATIENCE, reader.read_to_end(&mut reply))
        .await
        .expect("an end");
    let reply = String::from_utf8_lossy(&reply).into_owned();
    assert!(
        reply.starts_with("HTTP/1.1 504") || reply.is_empty(),
        "{reply}"
    );
    wait_for(&server, "hookbot_calls_total{outcome=\"timeout\"}", 1).await;

    // A caller who does not go on is told so.
    let mut stream = server.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut reply = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut reply))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&reply, b"HTTP/1.1 408");
}

/// T5 for answers.
#[tokio::test]
async fn an_answer_that_stands_still_is_cut_off() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.calls.idle_timeout = Duration::from_millis(200);
    }))
    .await;
    let (sender, body) = fed();
    let body = Arc::new(std::sync::Mutex::new(Some(body)));
    let service = service_fn(move |_| {
        let body = body.lock().unwrap().take().unwrap();
        async move { Ok::<_, Infallible>(Response::new(body)) }
    });
    let _answers = serves(&server, "/answer/t", service, |own| own).await;
    let mut answer = call(&server, "GET", "/call/t", "").await;
    // As long as something comes, it goes on.
    for _ in 0..4 {
        sender.send(data("x")).await.unwrap();
        assert!(answer.frame().await.unwrap().is_ok());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let end = timeout(PATIENCE, answer.frame()).await.unwrap();
    assert!(end.unwrap().is_err(), "it does not look whole");
    timeout(PATIENCE, sender.closed())
        .await
        .expect("the responder is told");
}

/// Soon over, and long enough for what is to be seen before.
const IMPATIENT: KeepAlive = KeepAlive {
    interval: Duration::from_millis(50),
    timeout: Duration::from_secs(1),
};

/// T6: who is dead is found out, by either side, and not by a ping that waits behind data.
#[tokio::test]
async fn a_frozen_responder_is_found_out_and_its_calls_fail() {
    let defaults = KeepAlive::default();
    assert_eq!(defaults.interval, Duration::from_secs(20));
    assert_eq!(defaults.timeout, Duration::from_secs(30));
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.calls.keep_alive = IMPATIENT;
    }))
    .await;
    let token = format!("Bearer {}", token("/"));
    let headers = [
        ("Authorization", token.as_str()),
        ("Sec-WebSocket-Protocol", hookbot_tunnel::TUNNEL_V1),
    ];
    let mut frozen = server.try_subscribe("/answer/t", &headers).await.unwrap();
    // An empty SETTINGS frame, and then nothing any more.
    let settings = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    frozen.0.send(Message::binary(settings)).await.unwrap();
    wait_for(&server, "hookbot_responders", 1).await;
    let answer = call(&server, "GET", "/call/t", "").await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    wait_for(&server, "hookbot_responders", 0).await;
    while let Some(Ok(_)) = frozen.0.next().await {}
}

#[tokio::test]
async fn a_frozen_broker_is_found_out_by_its_responder() {
    let mut frozen = Broker::start(IMPATIENT).await;
    // It does not answer pings any more, and the responder leaves.
    let mut left = false;
    while let Ok(Some(Ok(message))) = timeout(PATIENCE, frozen.socket.next()).await {
        left |= message.is_close();
    }
    assert!(left);
}

/// T8: long lists of headers.
#[tokio::test]
async fn long_headers_pass_and_too_long_ones_fail_alone() {
    let server = TestServer::start().await;
    let service = target(async |request: Request<Incoming>| {
        let length = request.headers().get("x-long").map_or(0, |long| long.len());
        let mut answer = Response::new(whole("small"));
        let wanted = request.uri().path()[1..].parse().unwrap_or(0);
        for number in 0..wanted / 1_000 {
            let name: http::HeaderName = format!("x-{number}").parse().unwrap();
            answer
                .headers_mut()
                .insert(name, "x".repeat(1_000).parse().unwrap());
        }
        answer.headers_mut().insert("x-seen", length.into());
        answer
    });
    let mut answers = answers(&server, "/answer/t", service.await).await;
    let asked = request(&server, "GET", "/call/t/40000")
        .header("x-long", "x".repeat(28_000))
        .body(whole(""))
        .unwrap();
    let mut requests = large_heads(&server).await;
    let answer = requests.send_request(asked).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["x-seen"], "28000");
    assert!(answer.headers().contains_key("x-39"));
    let answer = call(&server, "GET", "/call/t/200000", "").await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_well(&server, &mut answers).await;
}

/// A caller who reads long heads.
async fn large_heads(server: &TestServer) -> hyper::client::conn::http1::SendRequest<AnyBody> {
    let stream = hyper_util::rt::TokioIo::new(server.connect().await);
    let (requests, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(300)
        .max_buf_size(1 << 20)
        .handshake(stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    requests
}

/// T9: more calls than a responder takes.
#[tokio::test]
async fn calls_beyond_what_a_responder_takes_are_told_so_at_once() {
    let server = TestServer::start().await;
    let held = target(|_| std::future::pending());
    let two = |own: hookbot_tunnel::Responder| own.max_concurrent(2);
    let _answers = answers_with(&server, "/answer/t", held.await, two).await;
    let first = stalled(&server, "/call/t").await;
    let _second = stalled(&server, "/call/t").await;
    wait_for(&server, "hookbot_calls_in_flight", 2).await;
    let answer = call(&server, "GET", "/call/t", "").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    // A place that was given up is free for the next.
    drop(first);
    wait_for(&server, "hookbot_calls_in_flight", 1).await;
    let _third = stalled(&server, "/call/t").await;
    wait_for(&server, "hookbot_calls_in_flight", 2).await;
    assert_eq!(
        figure(&server, "hookbot_calls_total{outcome=\"busy\"}").await,
        1
    );
}

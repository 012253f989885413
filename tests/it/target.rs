//! An HTTP service that does with each request what a test says.

use std::net::SocketAddr;
use std::sync::Arc;

use hookbot_protocol::Headers;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::PATIENCE;

/// The service; nobody listens there any more once it is dropped.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    asked: UnboundedReceiver<Asked>,
    accepting: JoinHandle<()>,
}

/// A request that has arrived.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Its first line.
    pub(crate) line: String,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
    /// Whether it was answered with success.
    pub(crate) is_taken: bool,
}

impl Asked {
    /// Of the first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name)?;
        Some(str::from_utf8(value).unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// What becomes of a request.
pub(crate) enum Answer {
    /// This status, with these lines of headers, each with its end.
    Reply(u16, &'static str),
    /// The connection is reset.
    Reset,
    /// It is taken, and the connection is reset before that could be said.
    Lost,
    /// Nothing, until whoever asked gives up.
    Silence,
    /// Success, once this is notified.
    Held(Arc<Notify>),
    /// A body without an end. Tells how many bytes of it were taken when the connection ends.
    Endless(UnboundedSender<usize>),
}

impl Answer {
    pub(crate) const OK: Self = Self::Reply(200, "");
}

impl Target {
    /// A service on a port of its own that takes everything.
    pub(crate) async fn start() -> Self {
        Self::with(|_| Answer::OK).await
    }

    /// A service on a port of its own.
    pub(crate) async fn with(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), answer).await
    }

    /// A service at this address.
    pub(crate) async fn at(
        address: SocketAddr,
        answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, asked) = mpsc::unbounded_channel();
        let answer = Arc::new(answer);
        let accepting = tokio::spawn(async move {
            // Whoever is connected is cut off with the service.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, answer.clone(), tell.clone()));
            }
        });
        Self {
            address,
            asked,
            accepting,
        }
    }

    /// Its URL, with this path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The next request, in the order in which they arrived.
    pub(crate) async fn next(&mut self) -> Asked {
        let next = timeout(PATIENCE, self.asked.recv()).await;
        next.expect("nothing was delivered").unwrap()
    }

    /// A request that has arrived already.
    pub(crate) fn try_next(&mut self) -> Option<Asked> {
        self.asked.try_recv().ok()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An address where nobody listens.
pub(crate) async fn nowhere() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

async fn serve(
    mut stream: TcpStream,
    answer: Arc<impl Fn(&Asked) -> Answer>,
    tell: UnboundedSender<Asked>,
) {
    let mut bytes = Vec::new();
    while let Some(mut asked) = read(&mut stream, &mut bytes).await {
        let answer = answer(&asked);
        asked.is_taken = matches!(
            answer,
            Answer::Reply(200..=299, _) | Answer::Lost | Answer::Held(_) | Answer::Endless(_)
        );
        // The test may have seen enough.
        let _ = tell.send(asked);
        match answer {
            Answer::Reply(status, headers) => {
                let reply = format!("HTTP/1.1 {status} -\r\n{headers}Content-Length: 0\r\n\r\n");
                if stream.write_all(reply.as_bytes()).await.is_err() {
                    return;
                }
            }
            Answer::Reset | Answer::Lost => {
                let socket = socket2::SockRef::from(&stream);
                socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
                return;
            }
            Answer::Held(free) => {
                free.notified().await;
                let _ = stream.write_all(b"HTTP/1.1 204 -\r\n\r\n").await;
            }
            Answer::Silence => {
                let _ = stream.read(&mut [0]).await;
                return;
            }
            Answer::Endless(told) => {
                let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                let _ = stream.write_all(head).await;
                let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
                let mut taken = 0;
                while stream.write_all(chunk.as_bytes()).await.is_ok() {
                    taken += 0x1000;
                }
                let _ = told.send(taken);
                return;
            }
        }
    }
}

/// Reads a request, with a length or without a body; `None` at the end of the connection.
async fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Asked> {
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let (line, lines) = head.split_once("\r\n").unwrap();
    let mut headers = Headers::default();
    for (name, value) in lines.lines().filter_map(|line| line.split_once(": ")) {
        headers.push(&name.to_ascii_lowercase(), value.as_bytes());
    }
    let length = headers.get("content-length");
    let length = length.map_or(0, |text| str::from_utf8(text).unwrap().parse().unwrap());
    bytes.drain(..end + 4);
    while bytes.len() < length {
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(Asked {
        line: line.to_owned(),
        headers,
        body: bytes.drain(..length).collect(),
        is_taken: false,
    })
}

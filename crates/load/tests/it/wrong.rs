//! A server that does wrong, every tenth time.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::request::{Request, listen};

/// What happens to every tenth message, but is done right to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misdeed {
    /// Nothing.
    None,
    /// It is acknowledged and dropped.
    Lose,
    /// It is delivered twice.
    Repeat,
    /// It is delivered behind the next one.
    Swap,
    /// Its last byte is missing.
    Cut,
    /// It is refused.
    Refuse,
    /// It is dropped, with its publisher's connection.
    HangUp,
    /// The first one of all is answered late.
    Stall,
    /// Subscribers are cut off.
    CutOff,
}

/// How long a stall lasts.
pub(crate) const STALL: Duration = Duration::from_millis(300);

/// A server, for as long as its runtime lives.
pub(crate) struct WrongServer {
    misdeed: Misdeed,
    events: bool,
    count: AtomicU64,
    subscribers: Mutex<HashMap<String, Vec<mpsc::UnboundedSender<Vec<u8>>>>>,
    held: Mutex<Option<Vec<u8>>>,
}

impl WrongServer {
    /// Its URL. It speaks event streams as gosmee does, or else WebSockets.
    pub(crate) async fn start(misdeed: Misdeed, events: bool) -> String {
        let server = Arc::new(Self {
            misdeed,
            events,
            count: AtomicU64::new(0),
            subscribers: Mutex::default(),
            held: Mutex::default(),
        });
        listen(move |stream| {
            let server = server.clone();
            async move { server.serve(stream).await }
        })
        .await
    }

    async fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        while let Some(request) = Request::read(&mut stream).await? {
            let Request { topic, body, .. } = request;
            if request.subscribes {
                return self.subscribe(stream.into_inner(), topic).await;
            }
            let Some(status) = self.publish(&topic, body).await else {
                return Ok(());
            };
            let reply = format!("HTTP/1.1 {status} Said\r\nContent-Length: 3\r\n\r\nOK\n");
            stream.write_all(reply.as_bytes()).await?;
        }
        Ok(())
    }

    async fn subscribe(&self, mut stream: TcpStream, topic: String) -> io::Result<()> {
        let (sender, mut frames) = mpsc::unbounded_channel::<Vec<u8>>();
        self.subscribers
            .lock()
            .unwrap()
            .entry(topic)
            .or_default()
            .push(sender);
        let reply = if self.events {
            "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {\"message\":\"ready\"}\n\n"
        } else {
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        };
        stream.write_all(reply.as_bytes()).await?;
        while let Some(frame) = frames.recv().await {
            if frame.is_empty() {
                return Ok(());
            }
            stream.write_all(&frame).await?;
        }
        Ok(())
    }

    /// The status of the answer, if there is to be one.
    async fn publish(&self, topic: &str, mut body: Vec<u8>) -> Option<u16> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        if number == 0 && self.misdeed == Misdeed::Stall {
            tokio::time::sleep(STALL).await;
        }
        if number % 10 != 3 {
            self.deliver(topic, &body);
            if let Some(held) = self.held.lock().unwrap().take() {
                self.deliver(topic, &held);
            }
            return Some(202);
        }
        match self.misdeed {
            Misdeed::None | Misdeed::Stall => self.deliver(topic, &body),
            Misdeed::Lose => {}
            Misdeed::Repeat => {
                self.deliver(topic, &body);
                self.deliver(topic, &body);
            }
            Misdeed::Swap => *self.held.lock().unwrap() = Some(body),
            Misdeed::Cut => {
                body.pop();
                self.deliver(topic, &body);
            }
            Misdeed::Refuse => return Some(503),
            Misdeed::HangUp => return None,
            Misdeed::CutOff => self.send(topic, Vec::new()),
        }
        Some(202)
    }

    fn deliver(&self, topic: &str, body: &[u8]) {
        let frame = if self.events {
            let body = STANDARD.encode(body);
            format!("id: 1\ndata: {{\"bodyB\":\"{body}\",\"timestamp\":1}}\n\n").into_bytes()
        } else {
            let length = u16::try_from(body.len()).unwrap();
            [&[0x82, 126], &length.to_be_bytes()[..], body].concat()
        };
        self.send(topic, frame);
    }

    fn send(&self, topic: &str, frame: Vec<u8>) {
        for subscriber in self
            .subscribers
            .lock()
            .unwrap()
            .entry(topic.to_owned())
            .or_default()
        {
            // It may have been cut off.
            let _ = subscriber.send(frame.clone());
        }
    }
}

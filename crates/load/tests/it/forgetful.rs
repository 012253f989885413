//! A server with event frames that takes subscribers back at the wrong place.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::request::{Request, listen};

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Nothing.
    Good,
    /// It goes on behind the message that would be next.
    Skips,
    /// It goes on with the message that was the last.
    Repeats,
    /// It tells of a gap, though there is none.
    Despairs,
}

/// A server, for as long as its runtime lives.
pub(crate) struct ForgetfulServer {
    memory: Memory,
    topics: Mutex<HashMap<String, watch::Sender<Vec<Vec<u8>>>>>,
}

impl ForgetfulServer {
    /// Its URL.
    pub(crate) async fn start(memory: Memory) -> String {
        let server = Arc::new(Self {
            memory,
            topics: Mutex::default(),
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
            let topic = self.topic(&request.topic);
            if request.subscribes {
                let last = request.after.and_then(|after| after.parse::<usize>().ok());
                let next = last.map_or(0, |last| last + 1);
                return self.subscribe(stream.into_inner(), topic, next).await;
            }
            topic.send_modify(|messages| messages.push(request.body));
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nOK\n")
                .await?;
        }
        Ok(())
    }

    fn topic(&self, name: &str) -> watch::Sender<Vec<Vec<u8>>> {
        self.topics
            .lock()
            .unwrap()
            .entry(name.to_owned())
            .or_default()
            .clone()
    }

    async fn subscribe(
        &self,
        mut stream: TcpStream,
        topic: watch::Sender<Vec<Vec<u8>>>,
        mut next: usize,
    ) -> io::Result<()> {
        let reply = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        stream.write_all(reply).await?;
        if next > 0 {
            match self.memory {
                Memory::Good => {}
                Memory::Skips => next += 1,
                Memory::Repeats => next -= 1,
                Memory::Despairs => {
                    let oldest = (next - 1).to_string();
                    let gap = json!({"asked": oldest, "oldest": oldest, "reason": "trimmed"});
                    stream.write_all(&frame(&json!({"gap": gap}), b"")).await?;
                }
            }
        }
        let mut messages = topic.subscribe();
        loop {
            let enough = messages.wait_for(|messages| messages.len() > next).await;
            let body = enough.map_err(io::Error::other)?[next].clone();
            let event = json!({
                "cursor": next.to_string(), "topic": "t", "time": "", "method": "POST",
                "query": "", "address": "", "headers": [],
            });
            stream.write_all(&frame(&event, &body)).await?;
            next += 1;
        }
    }
}

fn frame(event: &serde_json::Value, body: &[u8]) -> Vec<u8> {
    let event = event.to_string();
    let length = event.len() + 1 + body.len();
    let head = match u8::try_from(length) {
        Ok(length @ 0..126) => vec![0x82, length],
        _ => [
            &[0x82, 126],
            &u16::try_from(length).unwrap().to_be_bytes()[..],
        ]
        .concat(),
    };
    [&head, event.as_bytes(), b"\0", body].concat()
}

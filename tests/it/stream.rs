//! A client of an event stream.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{PATIENCE, TestServer};

/// A client of an event stream that reads line by line, as the standard says.
pub(crate) struct Stream(BufReader<TcpStream>);

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) data: String,
}

impl Stream {
    /// Asks for events; returns the response's head as well.
    pub(crate) async fn open(server: &TestServer, path: &str, headers: &str) -> (Self, String) {
        let mut stream = server.connect().await;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Self(BufReader::new(stream));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head += &stream.line().await.unwrap();
        }
        (stream, head.to_ascii_lowercase())
    }

    /// A line as it comes; `None` at the end.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.0.read_line(&mut line))
            .await
            .expect("nothing came");
        (read.unwrap() > 0).then_some(line)
    }

    /// A line of the stream, which comes in chunks of its own.
    pub(crate) async fn text(&mut self) -> Option<String> {
        loop {
            let line = self.line().await?;
            // A chunk's size or end; everything of ours ends in a bare line feed.
            match line.strip_suffix("\r\n") {
                Some("0") => return None,
                Some(_) => {}
                None => return Some(line.trim_end_matches('\n').to_owned()),
            }
        }
    }

    /// The next event, passing over comments; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        loop {
            let line = self.text().await?;
            match line.split_once(": ") {
                Some(("event", name)) => name.clone_into(&mut event.name),
                Some(("id", id)) => id.clone_into(&mut event.id),
                Some(("data", data)) => event.data += data,
                _ if line.is_empty() && event != Event::default() => return Some(event),
                _ => assert!(line.is_empty() || line.starts_with(':'), "{line:?}"),
            }
        }
    }
}

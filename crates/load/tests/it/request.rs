//! As much of HTTP as this crate's clients speak.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;

/// What a client asked for.
pub(crate) struct Request {
    pub(crate) subscribes: bool,
    /// The last part of the path.
    pub(crate) topic: String,
    /// What follows `?after=`, if anything does.
    pub(crate) after: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// The next one; `None` when the client has hung up.
    pub(crate) async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Self>> {
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            let start = head.len();
            if stream.read_line(&mut head).await? == 0 {
                return Ok(None);
            }
            if let Some(value) = head[start..].strip_prefix("Content-Length: ") {
                length = value.trim_end().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let path = head.split(' ').nth(1).unwrap();
        let (path, after) = match path.split_once("?after=") {
            Some((path, after)) => (path, Some(after.to_owned())),
            None => (path, None),
        };
        Ok(Some(Self {
            subscribes: head.starts_with("GET"),
            topic: path.rsplit('/').next().unwrap().to_owned(),
            after,
            body,
        }))
    }
}

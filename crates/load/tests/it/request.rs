//! As much of HTTP as this crate's clients speak, and where they speak it.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Serves whoever connects, for as long as the runtime lives; where that is.
pub(crate) async fn listen<Serving: Future<Output = io::Result<()>> + Send + 'static>(
    serve: impl Fn(TcpStream) -> Serving + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Clients hang up as they like.
            let serving = serve(stream);
            tokio::spawn(async move { serving.await.is_ok() });
        }
    });
    format!("http://{address}")
}

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

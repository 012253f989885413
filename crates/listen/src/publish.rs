//! Publishing: one request a message.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::connect::{Http, connect, refused};
use crate::endpoint::Endpoint;
use crate::error::Error;

/// Publishes one message. When this returns, the server has it in its log.
///
/// # Errors
///
/// Whatever keeps it from being published, or from knowing so: after an error the server may have
/// the message all the same. Publishing again is right where twice is better than never.
pub async fn publish(endpoint: &Endpoint, body: impl Into<Bytes>) -> Result<Published, Error> {
    Publisher::new(endpoint.clone()).publish(body).await
}

/// What the server says of a message that it has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The message's place, to resume from. A publisher without a token is not told.
    pub cursor: Option<String>,
}

/// Publishes one message after the other, over one connection for as long as the server keeps it.
pub struct Publisher {
    endpoint: Endpoint,
    /// Free for the next message.
    idle: Option<Http>,
}

impl Publisher {
    /// Does not connect yet.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            idle: None,
        }
    }

    /// Publishes to the endpoint.
    ///
    /// # Errors
    ///
    /// As [`publish`]. The next message gets a new connection then.
    pub async fn publish(&mut self, body: impl Into<Bytes>) -> Result<Published, Error> {
        let target = self.endpoint.target.clone();
        self.publish_at(target, body.into()).await
    }

    /// Publishes to another path of the same server, with the same token and headers. The path
    /// is sent as it is here, a query included.
    ///
    /// # Errors
    ///
    /// As [`publish`], and [`Error::Url`] when it is not a path.
    pub async fn publish_to(
        &mut self,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Published, Error> {
        if !path.starts_with('/') {
            return Err(Error::Url("its path must begin with a slash"));
        }
        let target = path
            .parse()
            .map_err(|_| Error::Url("its path does not parse; percent-encode what is unusual"))?;
        self.publish_at(target, body.into()).await
    }

    async fn publish_at(&mut self, target: PathAndQuery, body: Bytes) -> Result<Published, Error> {
        let after = self.endpoint.timing.answer
            + std::time::Duration::from_secs(body.len() as u64 / SLOWEST);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target.into();
        *request.headers_mut() = self.endpoint.request_headers();

        let idle = self.idle.take();
        let answered = timeout(after, async {
            let (http, response) = self.send(idle, request).await?;
            if !response.status().is_success() {
                return Err(refused(&self.endpoint, response).await);
            }
            let cursor = response.headers().get(CURSOR);
            let cursor = cursor.and_then(|value| Some(value.to_str().ok()?.to_owned()));
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await;
            Ok((body.is_ok().then_some(http), Published { cursor }))
        });
        let (http, published) = answered.await.map_err(|_| Error::Timeout {
            what: format!("publishing to {}", self.endpoint.server()),
            after,
        })??;
        self.idle = http;
        Ok(published)
    }

    /// Sends a request over the idle connection, or over a new one if nothing of it has left.
    async fn send(
        &self,
        idle: Option<Http>,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Http, Response<Incoming>), Error> {
        if let Some(mut http) = idle
            && http.requests.ready().await.is_ok()
        {
            match http.requests.try_send_request(request).await {
                Ok(response) => return Ok((http, response)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(lost(error.into_error())),
                },
            }
        }
        let mut http = self.connect().await?;
        let response = http.requests.send_request(request).await;
        Ok((http, response.map_err(lost)?))
    }

    async fn connect(&self) -> Result<Http, Error> {
        let after = self.endpoint.timing.connect;
        let connected = timeout(after, async {
            Http::start(connect(&self.endpoint).await?).await
        });
        connected.await.map_err(|_| Error::Timeout {
            what: format!("connecting to {}", self.endpoint.server()),
            after,
        })?
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Publisher({})", self.endpoint)
    }
}

/// Tells a connection that broke from an answer that makes no sense.
fn lost(error: hyper::Error) -> Error {
    if error.is_parse() {
        return Error::protocol(error);
    }
    Error::Lost(std::io::Error::other(error))
}

/// Where the server says what became of a message.
const CURSOR: &str = "hookbot-cursor";

/// The answer is `OK`.
const MAX_ANSWER: usize = 64 * 1024;

/// Bytes a second below which a connection counts as broken.
const SLOWEST: u64 = 32 * 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::join;

    use super::*;
    use crate::test_server::{self, Server, answer};

    const OK: &str = "HTTP/1.1 200 OK\r\nhookbot-cursor: 0.1\r\ncontent-length: 3\r\n\r\nOK\n";

    #[tokio::test]
    async fn a_message_is_posted_as_it_is() {
        let server = Server::start().await;
        let url = format!("ws://tok@127.0.0.1:{}/pub/a%20b?x=/", server.port());
        let endpoint = test_server::endpoint(&url);
        let (published, (_, asked)) = join!(publish(&endpoint, "a\0b"), server.answer(OK));
        assert_eq!(published.unwrap().cursor.as_deref(), Some("0.1"));
        assert_eq!(asked.line, "POST /pub/a%20b?x=/ HTTP/1.1");
        assert_eq!(asked.headers["authorization"], "Basic dG9rOg==");
        assert_eq!(asked.body, b"a\0b");
    }

    #[tokio::test]
    async fn a_refusal_says_why_and_for_how_long() {
        let server = Server::start().await;
        let endpoint = server.endpoint("/pub/a");
        let no = "HTTP/1.1 503 x\r\nretry-after: 3\r\nconnection: close\r\n\r\n503 disk full\nmore";
        let (published, _) = join!(publish(&endpoint, "x"), server.answer(no));
        let Err(Error::Refused {
            status,
            reason,
            retry_after,
        }) = published
        else {
            panic!("not a refusal: {published:?}");
        };
        assert_eq!((status.as_u16(), &*reason), (503, "503 disk full"));
        assert_eq!(retry_after, Some(Duration::from_secs(3)));
    }

    #[tokio::test]
    async fn a_publisher_keeps_its_connection_while_it_can() {
        let server = Server::start().await;
        let mut publisher = Publisher::new(server.endpoint("/pub/a"));
        let (first, (mut stream, _)) = join!(publisher.publish("1"), server.answer(OK));
        assert!(first.is_ok());
        let (second, asked) = join!(publisher.publish_to("/pub/b", "2"), answer(&mut stream, OK));
        assert!(second.is_ok());
        assert_eq!(asked.line, "POST /pub/b HTTP/1.1");

        drop(stream);
        let closed = |publisher: &Publisher| publisher.idle.as_ref().unwrap().requests.is_closed();
        while !closed(&publisher) {
            tokio::task::yield_now().await;
        }
        let (third, (_, asked)) = join!(publisher.publish("3"), server.answer(OK));
        assert!(third.is_ok());
        assert_eq!(asked.body, b"3");
        assert!(matches!(
            publisher.publish_to("b", "").await,
            Err(Error::Url(_))
        ));
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_given_up() {
        let server = Server::start().await;
        let mut endpoint = server.endpoint("/pub/a");
        endpoint.timing.answer = Duration::from_millis(50);
        let error = publish(&endpoint, "x").await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn an_answer_cut_short_is_a_lost_connection() {
        let server = Server::start().await;
        let endpoint = server.endpoint("/pub/a");
        let cut = async { drop(server.answer("HTTP/1.1 200").await) };
        let (published, ()) = join!(publish(&endpoint, "x"), cut);
        assert!(matches!(published, Err(Error::Lost(_))), "{published:?}");
    }
}

//! The messages of one connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::feed::Feed;
use crate::message::Message;
use crate::socket::{Ending, Socket};

/// Subscribes to an endpoint, once.
///
/// # Errors
///
/// Whatever keeps it from connecting; what goes wrong later is an item of the stream.
pub async fn watch(endpoint: &Endpoint) -> Result<Messages, Error> {
    let mut socket = Socket::open(endpoint, None).await?;
    Ok(Messages(Feed::start(|mut outlet| async move {
        let ending = socket.carry(&mut outlet).await;
        // The server need not wait for the consumer to learn of the end.
        drop(socket);
        if let Ending::Failed(error) = ending {
            tokio::select! {
                // Fails when nobody wants to know any more.
                _ = outlet.items.send(Err(error)) => {}
                _ = outlet.stop => {}
            }
        }
    })))
}

/// The messages of one connection, in order. See [`watch`].
///
/// When the connection ends, the reason is the last item. More messages may follow an error only
/// if [`Error::is_passing`] says so. Dropping it closes the connection.
#[derive(Debug)]
pub struct Messages(Feed);

impl Messages {
    /// The next message, or what ended the connection; `None` after that.
    pub async fn next(&mut self) -> Option<Result<Message, Error>> {
        self.0.next().await
    }

    /// Where to go on behind what has been taken, for [`Endpoint::after`] another time: behind
    /// the last message, or further where nothing came for a while. `None` until the server has
    /// told.
    #[must_use]
    pub fn place(&self) -> Option<&str> {
        self.0.place()
    }

    /// Closes the connection and waits until the server has agreed, or a few seconds. Messages
    /// that arrive meanwhile are dropped.
    pub async fn finish(self) {
        self.0.finish().await;
    }
}

impl Stream for Messages {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::{SinkExt, StreamExt};
    use tokio::io::AsyncWriteExt;
    use tokio::join;
    use tokio_tungstenite::tungstenite::Message as Frame;
    use tokio_tungstenite::tungstenite::protocol::CloseFrame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

    use super::*;
    use crate::test_server::{Peer, Server, shake_hands};

    /// A subscription to a path, and the server's end of it.
    async fn watching(path: &str) -> (Messages, Peer) {
        let server = Server::start().await;
        let (messages, peer) = watch_at(&server, &server.endpoint(path)).await;
        (messages, peer)
    }

    async fn watch_at(server: &Server, endpoint: &Endpoint) -> (Messages, Peer) {
        let (messages, peer) = join!(watch(endpoint), server.accept());
        (messages.expect("an open server"), peer)
    }

    async fn failure(server: &Server, response: &str) -> Error {
        let endpoint = server.endpoint("/sub/a");
        let (messages, _) = join!(watch(&endpoint), server.answer(response));
        messages.expect_err("a refusal")
    }

    /// The code of the close that a client sends.
    async fn close_code(peer: &mut Peer) -> CloseCode {
        loop {
            match peer.next().await.expect("a close").expect("a whole frame") {
                Frame::Close(Some(frame)) => return frame.code,
                frame => assert!(frame.is_ping() || frame.is_pong(), "{frame}"),
            }
        }
    }

    /// Pings and pongs of milliseconds.
    fn hasty(mut endpoint: Endpoint) -> Endpoint {
        endpoint.timing.ping = Duration::from_millis(20);
        endpoint.timing.ping_jitter = Duration::from_millis(5);
        endpoint.timing.silence = Duration::from_secs(1);
        endpoint
    }

    #[tokio::test]
    async fn messages_of_a_topic_come_in_order() {
        let (mut messages, mut peer) = watching("/sub/a/b").await;
        for n in 0..100 {
            let payload = format!("{n}\0");
            peer.feed(Frame::binary(payload)).await.unwrap();
        }
        peer.feed(Frame::text("text")).await.unwrap();
        peer.send(Frame::binary(Bytes::new())).await.unwrap();

        for n in 0..100 {
            let message = messages.next().await.unwrap().unwrap();
            assert_eq!(message.topic, "a/b");
            assert_eq!(message.payload, format!("{n}\0"));
        }
        assert_eq!(messages.next().await.unwrap().unwrap().payload, "text");
        assert_eq!(messages.next().await.unwrap().unwrap().payload, "");
    }

    #[tokio::test]
    async fn a_frame_without_a_topic_does_not_end_a_prefix_subscription() {
        let (mut messages, mut peer) = watching("/sub/a/").await;
        for frame in ["a/b\0x\0y", "nothing", "a/c\0"] {
            peer.send(Frame::binary(frame)).await.unwrap();
        }
        let message = messages.next().await.unwrap().unwrap();
        assert_eq!((&*message.topic, &*message.payload), ("a/b", &b"x\0y"[..]));
        assert!(matches!(messages.next().await, Some(Err(Error::Frame))));
        assert_eq!(messages.next().await.unwrap().unwrap().topic, "a/c");
    }

    #[tokio::test]
    async fn the_token_is_in_a_header_and_not_in_the_request_line() {
        let server = Server::start().await;
        let url = format!("ws://s3cret@127.0.0.1:{}/sub/%61//b/?x=1", server.port());
        let endpoint = crate::test_server::endpoint(&url);
        let accept = async { shake_hands(server.accept_tcp().await).await };
        let (messages, (_peer, asked)) = join!(watch(&endpoint), accept);
        assert!(messages.is_ok());
        assert_eq!(asked.line, "/sub/%61//b/?x=1");
        assert_eq!(asked.headers["authorization"], "Basic czNjcmV0Og==");
        assert_eq!(
            asked.headers["host"],
            format!("127.0.0.1:{}", server.port())
        );
    }

    #[tokio::test]
    async fn a_refusal_says_why() {
        let server = Server::start().await;
        let error = failure(
            &server,
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: 26\r\n\r\ntoken is for\x07 another\nmore\n",
        )
        .await;
        assert!(error.is_refusal());
        assert_eq!(
            error.to_string(),
            "the server refused with 401 Unauthorized: token is for another"
        );

        let error = failure(
            &server,
            "HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n",
        )
        .await;
        assert!(!error.is_refusal());
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    }

    #[tokio::test]
    async fn what_is_no_websocket_is_a_protocol_error() {
        let server = Server::start().await;
        for response in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
            "SSH-2.0-x\r\n\r\n",
        ] {
            let error = failure(&server, response).await;
            assert!(matches!(error, Error::Protocol(_)), "{response}: {error:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_given_up() {
        let server = Server::start().await;
        let mut endpoint = server.endpoint("/sub/a");
        endpoint.timing.connect = Duration::from_millis(50);
        let error = watch(&endpoint).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_silent_server_is_noticed() {
        let server = Server::start().await;
        let endpoint = hasty(server.endpoint("/sub/a"));
        // The server's end is not polled, so it answers no ping.
        let (mut messages, _peer) = watch_at(&server, &endpoint).await;
        assert!(matches!(messages.next().await, Some(Err(Error::Silent(_)))));
        assert!(messages.next().await.is_none());
    }

    #[tokio::test]
    async fn a_message_that_comes_slowly_is_not_silence() {
        let server = Server::start().await;
        let mut endpoint = hasty(server.endpoint("/sub/a"));
        endpoint.timing.ping = Duration::from_secs(1_000);
        let (mut messages, mut peer) = watch_at(&server, &endpoint).await;
        let slow = async {
            let raw = peer.get_mut();
            raw.write_all(b"\x82\x0a").await.unwrap();
            for byte in b"0123456789" {
                tokio::time::sleep(Duration::from_millis(150)).await;
                raw.write_all(&[*byte]).await.unwrap();
            }
        };
        let (message, ()) = join!(messages.next(), slow);
        assert_eq!(message.unwrap().unwrap().payload, "0123456789");
    }

    #[test]
    fn everything_may_run_in_a_task() {
        fn check<T: Send + 'static>(_: impl FnOnce() -> T) {}
        check(|| async { watch(&Endpoint::new("ws://h/")?).await });
        check(|| async { crate::publish(&Endpoint::new("ws://h/")?, "").await });
        check(|| crate::retrying_watch(crate::test_server::endpoint("ws://h/")));
    }

    #[tokio::test]
    async fn a_consumer_that_takes_its_time_does_not_make_the_server_silent() {
        let server = Server::start().await;
        let endpoint = hasty(server.endpoint("/sub/a"));
        let (mut messages, peer) = watch_at(&server, &endpoint).await;
        let (mut sink, mut stream) = peer.split();
        let payload = Bytes::from(vec![b'x'; 256 * 1024]);
        let count = 200;
        let whole = payload.clone();
        tokio::spawn(async move {
            for _ in 0..count {
                sink.send(Frame::binary(whole.clone())).await.unwrap();
            }
        });
        for _ in 0..30 {
            assert!(stream.next().await.unwrap().unwrap().is_ping());
        }

        tokio::spawn(async move { while let Some(Ok(_)) = stream.next().await {} });
        for _ in 0..count {
            assert_eq!(messages.next().await.unwrap().unwrap().payload, payload);
        }
    }

    #[tokio::test]
    async fn a_message_over_the_limit_ends_the_connection_with_1009() {
        let server = Server::start().await;
        let endpoint = server.endpoint("/sub/a").max_message(1000);
        let (mut messages, mut peer) = watch_at(&server, &endpoint).await;
        for length in [1000, 1001] {
            let payload = vec![0; length];
            peer.send(Frame::binary(payload)).await.unwrap();
        }
        let server_side = async {
            let code = close_code(&mut peer).await;
            while peer.next().await.is_some() {}
            drop(peer);
            code
        };
        let client_side = async {
            assert!(messages.next().await.unwrap().is_ok());
            messages.next().await
        };
        let (code, error) = join!(server_side, client_side);
        assert_eq!(code, CloseCode::Size);
        assert!(matches!(error, Some(Err(Error::TooLarge { limit: 1000 }))));
        assert!(messages.next().await.is_none());
    }

    #[tokio::test]
    async fn finishing_and_dropping_close_with_1000() {
        let (messages, mut peer) = watching("/sub/a").await;
        let server_side = async {
            let code = close_code(&mut peer).await;
            while peer.next().await.is_some() {}
            code
        };
        let ((), code) = join!(messages.finish(), server_side);
        assert_eq!(code, CloseCode::Normal);

        let (messages, mut peer) = watching("/sub/a").await;
        drop(messages);
        assert_eq!(close_code(&mut peer).await, CloseCode::Normal);
    }

    #[tokio::test]
    async fn a_finish_does_not_wait_for_a_server_that_is_stuck() {
        let server = Server::start().await;
        let mut endpoint = server.endpoint("/sub/a");
        endpoint.timing.finish = Duration::from_millis(50);
        let (messages, _peer) = watch_at(&server, &endpoint).await;
        messages.finish().await;
    }

    #[tokio::test]
    async fn the_servers_close_is_the_last_item() {
        let (mut messages, mut peer) = watching("/sub/a").await;
        peer.send(Frame::binary("last")).await.unwrap();
        let frame = CloseFrame {
            code: CloseCode::Library(4410),
            reason: "trimmed".into(),
        };
        peer.close(Some(frame)).await.unwrap();
        let server_side = async { while peer.next().await.is_some() {} };
        let client_side = async {
            assert_eq!(messages.next().await.unwrap().unwrap().payload, "last");
            messages.next().await.unwrap().unwrap_err()
        };
        let ((), error) = join!(server_side, client_side);
        assert_eq!(
            error.to_string(),
            "the server closed the connection with code 4410: trimmed"
        );
        assert!(messages.next().await.is_none());
    }

    #[tokio::test]
    async fn a_broken_connection_is_the_last_item() {
        let (mut messages, mut peer) = watching("/sub/a").await;
        peer.get_mut().shutdown().await.unwrap();
        assert!(matches!(messages.next().await, Some(Err(Error::Lost(_)))));
        assert!(messages.next().await.is_none());
    }
}

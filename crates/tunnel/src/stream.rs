//! The bytes of a tunnel over the binary messages of a WebSocket.
//!
//! Where a message ends means nothing. The rule a reader would get wrong: a ping is not data and
//! an empty message is not the end, so neither may ever come out of `poll_read`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_core::Stream;
use futures_util::Sink;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::LEAVING;

/// A WebSocket as one stream of bytes.
pub(crate) struct ByteStream<S> {
    socket: WebSocketStream<S>,
    /// What of the last message has not been read.
    incoming: Bytes,
    /// What is not a message yet.
    outgoing: BytesMut,
    /// A close was sent.
    is_closed: bool,
    /// Since closing began: when to do without the peer's agreement.
    closing: Option<Pin<Box<Sleep>>>,
    ends: Arc<Ends>,
}

/// What the owner of a stream, which HTTP/2 has, and somebody else tell each other.
#[derive(Default)]
pub(crate) struct Ends {
    /// Reading comes to an end, and then the stream is closed.
    is_over: AtomicBool,
    /// Nobody waits for anything any more.
    is_cut: AtomicBool,
    /// The peer is to be told [`LEAVING`].
    has_to_say: AtomicBool,
    /// The peer has said it.
    is_leaving: AtomicBool,
    /// Something came.
    has_heard: AtomicBool,
    /// The stream is no more.
    is_gone: AtomicBool,
    owner: AtomicWaker,
    watcher: AtomicWaker,
    /// What the peer is told, and what it has told, when the stream is closed.
    reasons: Mutex<[Option<CloseFrame>; 2]>,
}

impl Ends {
    /// Has the stream end: its reader sees the end, and the peer a close with this code.
    pub(crate) fn hang_up(&self, code: CloseCode, reason: &'static str) {
        self.explain(code, reason);
        self.is_over.store(true, Ordering::Release);
        self.owner.wake();
    }

    /// Has the stream end at once, whatever is still to be sent.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.owner.wake();
    }

    /// What the peer is told once the stream is closed.
    pub(crate) fn explain(&self, code: CloseCode, reason: &'static str) {
        let reason = reason.into();
        self.reasons()[0] = Some(CloseFrame { code, reason });
    }

    /// Has the peer told that this side leaves.
    pub(crate) fn leave(&self) {
        self.has_to_say.store(true, Ordering::Release);
        self.owner.wake();
    }

    /// Ready once the peer has said that it leaves.
    pub(crate) fn poll_leaving(&self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_until(context, &self.is_leaving)
    }

    /// Why the peer has closed the stream, if it did and has said so.
    pub(crate) fn told(&self) -> Option<CloseFrame> {
        self.reasons()[1].clone()
    }

    /// Ready once the peer has sent something, or never will.
    pub(crate) fn poll_heard(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.poll_until(context, &self.has_heard).is_ready() {
            return Poll::Ready(());
        }
        self.poll_gone(context)
    }

    /// Ready once the stream has been dropped.
    pub(crate) fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_until(context, &self.is_gone)
    }

    fn poll_until(&self, context: &mut Context<'_>, flag: &AtomicBool) -> Poll<()> {
        self.watcher.register(context.waker());
        if flag.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn note(&self, flag: &AtomicBool) {
        if !flag.swap(true, Ordering::AcqRel) {
            self.watcher.wake();
        }
    }

    /// The error for whoever owns the stream, once it is cut.
    fn check(&self, context: &mut Context<'_>) -> io::Result<()> {
        self.owner.register(context.waker());
        if self.is_cut.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    fn reasons(&self) -> MutexGuard<'_, [Option<CloseFrame>; 2]> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ByteStream<S> {
    /// Takes over a connection on which the handshake is done. `early` is what the peer has sent
    /// behind it.
    pub(crate) async fn new(transport: S, early: Vec<u8>, role: Role) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            // Written at once: it is this stream that gathers.
            .write_buffer_size(0)
            .max_write_buffer_size(4 * MESSAGE)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let socket =
            WebSocketStream::from_partially_read(transport, early, role, Some(config)).await;
        Self {
            socket,
            incoming: Bytes::new(),
            outgoing: BytesMut::new(),
            is_closed: false,
            closing: None,
            ends: Arc::default(),
        }
    }

    pub(crate) fn ends(&self) -> Arc<Ends> {
        self.ends.clone()
    }

    /// Makes a message of what was written.
    fn poll_emit(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outgoing.is_empty() {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.socket).poll_ready(context)).map_err(io_error)?;
        let message = Message::Binary(self.outgoing.split().freeze());
        let sent = Pin::new(&mut self.socket).start_send(message);
        Poll::Ready(sent.map_err(io_error))
    }

    /// Says what there is to say, between two messages of bytes.
    fn poll_say(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ends.has_to_say.load(Ordering::Acquire) {
            ready!(Pin::new(&mut self.socket).poll_ready(context)).map_err(io_error)?;
            self.ends.has_to_say.store(false, Ordering::Release);
            let sent = Pin::new(&mut self.socket).start_send(Message::text(LEAVING));
            sent.map_err(io_error)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for more bytes; whether there are any.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.incoming.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.incoming = bytes,
                // Tungstenite answers pings, as long as somebody reads.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(reason))) => {
                    self.ends.reasons()[1] = reason;
                    return Poll::Ready(Ok(false));
                }
                None => return Poll::Ready(Ok(false)),
                Some(Ok(Message::Text(word))) if word == LEAVING => {
                    self.ends.note(&self.ends.is_leaving);
                }
                Some(Ok(Message::Text(_))) => {
                    let text = "a tunnel has no such word";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
                }
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
        self.ends.note(&self.ends.has_heard);
        Poll::Ready(Ok(true))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ByteStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.ends.check(context)?;
        if self.ends.is_over.load(Ordering::Acquire) || !ready!(self.poll_fill(context))? {
            return Poll::Ready(Ok(()));
        }
        let length = self.incoming.len().min(buffer.remaining());
        buffer.put_slice(&self.incoming[..length]);
        self.incoming.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ByteStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.outgoing.len() >= MESSAGE {
            ready!(self.poll_emit(context))?;
        }
        let mut written = 0;
        for slice in slices {
            let length = slice.len().min(MESSAGE - self.outgoing.len());
            self.outgoing.extend_from_slice(&slice[..length]);
            written += length;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_emit(context))?;
        ready!(self.poll_say(context))?;
        let flushed = Pin::new(&mut self.socket).poll_flush(context);
        flushed.map_err(io_error)
    }

    /// Closes, and reads on until the peer has agreed: a connection that is dropped with something
    /// unread takes back what was sent on it. One that is frozen does not agree for ever.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ends.check(context)?;
        let closing = self
            .closing
            .get_or_insert_with(|| Box::pin(sleep(CLOSE_PATIENCE)));
        if closing.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if !self.is_closed {
            ready!(self.poll_emit(context))?;
            ready!(Pin::new(&mut self.socket).poll_ready(context)).map_err(io_error)?;
            self.is_closed = true;
            let reason = self.ends.reasons()[0].take();
            match Pin::new(&mut self.socket).start_send(Message::Close(reason)) {
                // The peer was first; reading on sends what answers it.
                Err(Error::Protocol(ProtocolError::SendAfterClosing)) => {}
                sent => sent.map_err(io_error)?,
            }
        }
        ready!(Pin::new(&mut self.socket).poll_flush(context)).map_err(io_error)?;
        while ready!(self.poll_fill(context))? {
            self.incoming.clear();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> Drop for ByteStream<S> {
    fn drop(&mut self) {
        self.ends.note(&self.ends.is_gone);
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            io::ErrorKind::UnexpectedEof.into()
        }
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

/// The longest message that is sent, in bytes.
const MESSAGE: usize = 64 << 10;

/// The longest message that is accepted, in bytes: others may gather more.
const MAX_MESSAGE: usize = 1 << 20;

/// How long a peer may take to agree to a close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Tungstenite allocates it up front, in bytes.
const READ_BUFFER: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{SinkExt, StreamExt};
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    async fn pair(buffer: usize) -> (ByteStream<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (own, other) = duplex(buffer);
        let stream = ByteStream::new(own, Vec::new(), Role::Server).await;
        let peer = WebSocketStream::from_raw_socket(other, Role::Client, None).await;
        (stream, peer)
    }

    #[tokio::test]
    async fn pings_and_empty_messages_are_neither_data_nor_the_end() {
        let (mut stream, mut peer) = pair(1 << 20).await;
        for message in [
            Message::binary("AB"),
            Message::Ping("ping!".into()),
            Message::Ping(Bytes::new()),
            Message::binary(Bytes::new()),
            Message::Pong("pong!".into()),
            Message::binary("CD"),
            Message::Close(None),
        ] {
            peer.send(message).await.unwrap();
        }
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"ABCD");
        stream.flush().await.unwrap();
        let Some(Ok(Message::Pong(answer))) = peer.next().await else {
            panic!("a ping is answered");
        };
        assert_eq!(answer, "ping!");
    }

    #[tokio::test]
    async fn a_word_passes_beside_the_bytes_and_once() {
        let (mut stream, mut peer) = pair(1_024).await;
        let ends = stream.ends();
        let sent = [
            Message::binary("A"),
            Message::text(LEAVING),
            Message::binary("B"),
        ];
        for message in &sent {
            peer.send(message.clone()).await.unwrap();
        }
        let mut read = [0; 2];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"AB");
        std::future::poll_fn(|context| ends.poll_leaving(context)).await;

        ends.leave();
        for byte in [b"A", b"B"] {
            stream.write_all(byte).await.unwrap();
            stream.flush().await.unwrap();
        }
        for message in &sent {
            assert_eq!(&peer.next().await.unwrap().unwrap(), message);
        }
    }

    #[tokio::test]
    async fn any_other_text_is_an_error() {
        let (mut stream, mut peer) = pair(1_024).await;
        peer.send(Message::text("AB")).await.unwrap();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_peer_that_is_cut_off_is_no_clean_end() {
        let (mut stream, peer) = pair(1_024).await;
        drop(peer);
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn whoever_hangs_up_ends_reading_and_tells_the_peer_why() {
        let (mut stream, mut peer) = pair(1_024).await;
        let ends = stream.ends();
        let reading = tokio::spawn(async move {
            let read = stream.read_to_end(&mut Vec::new()).await;
            stream.shutdown().await.unwrap();
            read
        });
        tokio::task::yield_now().await;
        ends.hang_up(CloseCode::Policy, "revoked");
        let Some(Ok(Message::Close(Some(frame)))) = peer.next().await else {
            panic!("a close");
        };
        assert_eq!((frame.code, &*frame.reason), (CloseCode::Policy, "revoked"));
        assert!(peer.next().await.is_none());
        assert_eq!(reading.await.unwrap().unwrap(), 0);
    }

    #[tokio::test]
    async fn a_slow_peer_slows_the_writer_down() {
        let (mut stream, mut peer) = pair(1_024).await;
        let writing = tokio::spawn(async move {
            let piece = [7; 10_000];
            let mut written = 0_usize;
            while written < 100 * MESSAGE {
                written += stream.write(&piece).await.unwrap();
                assert!(stream.outgoing.len() <= MESSAGE);
            }
            stream.shutdown().await.unwrap();
            written
        });
        let mut received = 0;
        while let Some(Ok(message)) = peer.next().await {
            received += message.len();
        }
        assert_eq!(writing.await.unwrap(), received);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frozen_peer_does_not_keep_a_stream_from_closing() {
        let (mut stream, _peer) = pair(16).await;
        stream.write_all(&[0; 1_000]).await.unwrap();
        let error = stream.shutdown().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever the pieces and the buffers, bytes arrive as they were written.
        #[test]
        fn bytes_pass_whatever_their_pieces(
            pieces in prop::collection::vec((0_usize..100_000, any::<bool>()), 0..12),
            buffer in 1_usize..100_000,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let (own, other) = duplex(buffer);
                let stream = ByteStream::new(own, Vec::new(), Role::Server).await;
                let peer = ByteStream::new(other, Vec::new(), Role::Client).await;
                let sent: Vec<u8> = (0..pieces.iter().map(|(length, _)| length).sum())
                    .map(|at: usize| ((at * 31) >> 3) as u8)
                    .collect();
                let mut received = Vec::new();
                // Each is dropped once it is closed, which the other one waits for.
                let writing = async {
                    let (mut stream, mut rest) = (stream, &sent[..]);
                    for (length, flush) in &pieces {
                        let (piece, behind) = rest.split_at(*length);
                        stream.write_all(piece).await.unwrap();
                        if *flush {
                            stream.flush().await.unwrap();
                        }
                        rest = behind;
                    }
                    stream.shutdown().await.unwrap();
                };
                let reading = async {
                    let mut peer = peer;
                    peer.read_to_end(&mut received).await.unwrap();
                    peer.shutdown().await.unwrap();
                };
                tokio::join!(writing, reading);
                assert!(received == sent);
            });
        }
    }
}

//! A subscriber's WebSocket: frames that are encoded once for everybody, on a connection whose
//! reading, control frames and closing are tungstenite's.
//!
//! Whatever is queued goes out in one vectored write, below tungstenite and without a copy. The
//! rule a reader would get wrong: two writers share the connection, so a pong must not land in
//! the middle of a frame. While one of our frames is half out, the `Gate` lets nothing of
//! tungstenite's through, and ours begin only once tungstenite has nothing left to write.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Sink, SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error as WebSocketError;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::transport::Transport;

pub use tokio_tungstenite::tungstenite::Message as Received;

/// A frame that is ready to be written.
pub trait Frame {
    /// Its bytes on the wire, header included, to be written one part behind the other.
    fn parts(&self) -> [&[u8]; 2];
}

/// The server's end of a WebSocket.
pub struct Socket<F> {
    stream: WebSocketStream<Gate>,
    frames: VecDeque<F>,
    /// How long they are together.
    bytes: usize,
    /// How much of the first frame is out.
    written: usize,
    /// Something was written that the transport may still hold.
    unflushed: bool,
}

/// What is not accepted from a client, and how much memory reading takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest message, in bytes; a larger one closes the connection.
    pub message: usize,
    /// The read buffer, in bytes, which every connection has all the time.
    pub read_buffer: usize,
}

impl Limits {
    /// For subscribers, who have nothing to say: little is accepted and next to nothing kept.
    pub const SUBSCRIBER: Self = Self {
        message: 64 << 10,
        read_buffer: 512,
    };
}

impl<F: Frame> Socket<F> {
    /// Takes over a connection on which the handshake is done. `early` is what the client sent
    /// behind it.
    pub async fn new(transport: Transport, early: Vec<u8>, limits: Limits) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(limits.read_buffer)
            .write_buffer_size(0)
            .max_write_buffer_size(MAX_CONTROL)
            .max_message_size(Some(limits.message))
            .max_frame_size(Some(limits.message));
        let gate = Gate {
            transport,
            held: false,
            held_up: false,
            moved: 0,
            received: 0,
        };
        let stream =
            WebSocketStream::from_partially_read(gate, early, Role::Server, Some(config)).await;
        Self {
            stream,
            frames: VecDeque::new(),
            bytes: 0,
            written: 0,
            unflushed: false,
        }
    }

    /// Whether another frame may be queued.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.frames.len() < MAX_FRAMES && self.bytes < MAX_BYTES
    }

    /// Queues a frame behind the others.
    pub fn queue(&mut self, frame: F) {
        self.bytes += length(&frame);
        self.frames.push_back(frame);
    }

    /// How many bytes went either way so far: a peer for which this grows is alive.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.stream.get_ref().moved
    }

    /// How many bytes the client has sent so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.stream.get_ref().received
    }

    /// Polls for what the client sends next. This is how pings are answered and a hang-up is
    /// noticed, so it must go on even if nothing is expected.
    pub fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Received, WebSocketError>>> {
        self.stream.poll_next_unpin(context)
    }

    /// Polls until every queued frame is out.
    pub fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        loop {
            if self.written == 0 && (self.unflushed || !self.frames.is_empty()) {
                // What tungstenite has half out goes first.
                ready!(Pin::new(&mut self.stream).poll_flush(context))?;
                self.stream.get_mut().held_up = false;
                self.unflushed = false;
            }
            if self.frames.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let mut slices = [IoSlice::new(&[]); MAX_FRAMES * 2];
            let held_up = self.stream.get_ref().held_up;
            // With a pong waiting, the frame that is half out is finished and no other begun.
            let frames = if held_up { 1 } else { self.frames.len() };
            let count = fill(&mut slices, self.frames.iter().take(frames), self.written);
            let gate = self.stream.get_mut();
            let written = ready!(gate.poll_write_frames(context, &slices[..count]))?;
            self.advance(written);
            self.stream.get_mut().held = self.written > 0;
            self.unflushed = true;
        }
    }

    /// Asks the client for a sign of life.
    ///
    /// # Errors
    ///
    /// When the connection is gone, or has taken no ping for a long time.
    pub fn ping(&mut self) -> Result<(), WebSocketError> {
        Pin::new(&mut self.stream).start_send(Received::Ping(Vec::new().into()))
    }

    /// Closes the connection: what is half out is finished, the rest is not sent. Waits for the
    /// client to agree, though not for long.
    pub async fn close(&mut self, code: CloseCode, reason: &'static str) {
        self.frames.truncate(usize::from(self.written > 0));
        let closing = async {
            std::future::poll_fn(|context| self.poll_send(context)).await?;
            let frame = CloseFrame {
                code,
                reason: reason.into(),
            };
            // Refused where the client has closed first; reading on then sends what answers it.
            let _ = self.stream.send(Received::Close(Some(frame))).await;
            while let Some(received) = self.stream.next().await {
                received?;
            }
            Ok::<_, WebSocketError>(())
        };
        // Whatever goes wrong now, the connection is over. In a box, so that nobody who may close
        // some day has room for it all the time.
        let _ = Box::pin(timeout(CLOSE_PATIENCE, closing)).await;
    }

    /// Drops the frames that are out, after `count` more bytes of them.
    fn advance(&mut self, count: usize) {
        self.written += count;
        while let Some(frame) = self.frames.front() {
            let length = length(frame);
            if self.written < length {
                break;
            }
            self.written -= length;
            self.bytes -= length;
            self.frames.pop_front();
        }
    }
}

fn length(frame: &impl Frame) -> usize {
    frame.parts().map(<[u8]>::len).iter().sum()
}

/// The code that tells the client why its connection is closed, where it broke a rule (RFC 6455,
/// section 7.4.1).
#[must_use]
pub fn close_code(error: &WebSocketError) -> Option<CloseCode> {
    match error {
        WebSocketError::Capacity(_) => Some(CloseCode::Size),
        WebSocketError::Utf8(_) => Some(CloseCode::Invalid),
        // Gone without a word; there is nobody to tell.
        WebSocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        WebSocketError::Protocol(_) => Some(CloseCode::Protocol),
        _ => None,
    }
}

/// Lays out what is to be written, without the `skip` bytes of it that are out.
fn fill<'a, F: Frame + 'a>(
    slices: &mut [IoSlice<'a>],
    frames: impl Iterator<Item = &'a F>,
    mut skip: usize,
) -> usize {
    let mut count = 0;
    for part in frames.flat_map(Frame::parts) {
        let out = skip.min(part.len());
        skip -= out;
        let part = &part[out..];
        if !part.is_empty() && count < slices.len() {
            slices[count] = IoSlice::new(part);
            count += 1;
        }
    }
    count
}

/// The transport as tungstenite sees it: it can be held shut, and counts.
struct Gate {
    transport: Transport,
    /// A frame of ours is half out.
    held: bool,
    /// Tungstenite wanted to write meanwhile.
    held_up: bool,
    /// Bytes read and written.
    moved: u64,
    /// Bytes read.
    received: u64,
}

impl Gate {
    fn poll_write_frames(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.transport).poll_write_vectored(context, slices))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.moved += written as u64;
        Poll::Ready(Ok(written))
    }
}

impl AsyncRead for Gate {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(context, buffer))?;
        let read = (buffer.filled().len() - before) as u64;
        self.moved += read;
        self.received += read;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Gate {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.held {
            // `poll_send` runs in the same task, and flushes tungstenite once its frame is out.
            self.held_up = true;
            return Poll::Pending;
        }
        let written = ready!(Pin::new(&mut self.transport).poll_write(context, bytes))?;
        self.moved += written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held {
            return Poll::Pending;
        }
        Pin::new(&mut self.transport).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}

/// How many frames are handed to the kernel at once.
const MAX_FRAMES: usize = 16;

/// How many bytes wait here for the kernel, if they are more than one frame's.
const MAX_BYTES: usize = 1 << 20;

/// What tungstenite may hold back: pongs, pings and a close, of 131 bytes at most each.
const MAX_CONTROL: usize = 4 << 10;

/// How long a client may take to agree to a close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

//! Patience with a request's head: how long one may take, and which ones are refused outright.
//!
//! Hyper has one timer for a head and for the wait before it, and accepts two spellings that
//! others read differently: a bare line feed, and Content-Length beside Transfer-Encoding. This
//! sits between hyper and the connection and sees each head's bytes as they come.
//!
//! It looks at the heads that begin while nothing else is going on. One that was sent ahead,
//! behind another request, is hyper's alone to judge, and it judges safely: by Transfer-Encoding
//! where there are two lengths, after which it closes the connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::transport::Transport;

/// A connection that is watched while a head is awaited or read.
pub(super) struct HeadGuard {
    transport: Transport,
    patience: Patience,
    stage: Stage,
    /// When patience ends.
    due: Instant,
    /// Set for then, or for earlier: to set it anew for each request would cost more than to look
    /// again when it is over.
    deadline: Pin<Box<Sleep>>,
    requests: Arc<Requests>,
    /// A response is stuck half-way, and how long it may be.
    stuck: Option<Pin<Box<Sleep>>>,
    /// Bytes of the next request that came while a call was watched.
    early: Vec<u8>,
}

/// How long the server waits.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From a head's first byte to its end.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// For a client to read any of its response.
    pub write: Duration,
    /// For a client that still sends after it was answered to take notice.
    pub linger: Duration,
}

enum Stage {
    Idle,
    Head(Scanner),
    /// Somebody else's wait has the deadline.
    Busy,
    /// Answered and closing; what still comes is thrown away, for a client that is reset while
    /// it sends may never see the answer.
    Lingering,
}

impl HeadGuard {
    pub(super) fn new(transport: Transport, patience: Patience) -> (Self, Arc<Requests>) {
        let requests = Arc::new(Requests::default());
        let guard = Self {
            transport,
            patience,
            stage: Stage::Idle,
            due: Instant::now() + patience.idle,
            deadline: Box::pin(sleep(patience.idle)),
            requests: requests.clone(),
            stuck: None,
            early: Vec::new(),
        };
        (guard, requests)
    }

    pub(super) fn into_transport(self) -> Transport {
        self.transport
    }

    /// Looks whether a caller is still there. Hyper does not, for there are clients that close
    /// their half once they have asked; those of calls must not.
    fn poll_hang_up(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.requests.is_watched(context) || !self.early.is_empty() {
            return Ok(());
        }
        let mut space = [0; 512];
        let mut buffer = ReadBuf::new(&mut space);
        match Pin::new(&mut self.transport).poll_read(context, &mut buffer) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                let reason = "the caller has hung up";
                Err(io::Error::new(io::ErrorKind::ConnectionReset, reason))
            }
            Poll::Ready(read) => {
                self.early.extend_from_slice(buffer.filled());
                read
            }
        }
    }

    fn enter(&mut self, stage: Stage, patience: Duration) {
        self.stage = stage;
        self.due = Instant::now() + patience;
        if self.due < self.deadline.deadline() {
            self.deadline.as_mut().reset(self.due);
        }
    }

    /// Ready when patience has ended.
    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.deadline.as_mut().poll(context));
            if self.deadline.deadline() >= self.due {
                return Poll::Ready(());
            }
            self.deadline.as_mut().reset(self.due);
        }
    }

    fn saw(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut begun = Scanner::default();
        let scanned = match &mut self.stage {
            Stage::Idle => begun.scan(bytes),
            Stage::Head(scanner) => scanner.scan(bytes),
            Stage::Busy | Stage::Lingering => return,
        };
        if let Some(flaw) = scanned {
            *self.requests.flaw() = flaw;
            self.stage = Stage::Busy;
        } else if let Stage::Idle = self.stage {
            self.enter(Stage::Head(begun), self.patience.head);
        }
    }

    /// Ends the connection, in a way that nobody takes for a good one, if a response was cut off.
    fn check_cut(&self) -> io::Result<()> {
        if self.requests.is_cut.load(Ordering::Acquire) {
            self.transport.reset();
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    /// Notes whether a write went on, and gives up one that has not for too long.
    fn watch_write<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let patience = self.patience.write;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stuck.as_mut().poll(context));
        let reason = "the client does not read its response";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, reason)))
    }

    /// Tells a client that was too slow, if a single write can.
    fn give_up(&mut self, context: &mut Context<'_>) -> io::Error {
        if matches!(self.stage, Stage::Head(_)) && self.stuck.is_none() {
            let _ = Pin::new(&mut self.transport).poll_write(context, TIMEOUT);
            let _ = Pin::new(&mut self.transport).poll_flush(context);
        }
        io::Error::new(io::ErrorKind::TimedOut, "no whole request in time")
    }
}

impl AsyncRead for HeadGuard {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.requests.began.swap(false, Ordering::AcqRel) {
            // Perhaps by a head that came in together with the request before.
            this.stage = Stage::Busy;
        }
        if this.requests.done.swap(false, Ordering::AcqRel) {
            this.enter(Stage::Idle, this.patience.idle);
        }
        let before = buffer.filled().len();
        let read = if this.early.is_empty() {
            Pin::new(&mut this.transport).poll_read(context, buffer)
        } else {
            let length = this.early.len().min(buffer.remaining());
            buffer.put_slice(&this.early[..length]);
            this.early.drain(..length);
            Poll::Ready(Ok(()))
        };
        if read.is_ready() {
            this.saw(&buffer.filled()[before..]);
            return read;
        }
        if matches!(this.stage, Stage::Idle | Stage::Head(_)) {
            ready!(this.poll_due(context));
            return Poll::Ready(Err(this.give_up(context)));
        }
        Poll::Pending
    }
}

impl AsyncWrite for HeadGuard {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_cut()?;
        let written = Pin::new(&mut this.transport).poll_write(context, bytes);
        this.watch_write(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_cut()?;
        let written = Pin::new(&mut this.transport).poll_write_vectored(context, slices);
        this.watch_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Hyper comes by here whenever it has looked at everything else.
        this.check_cut()?;
        this.poll_hang_up(context)?;
        let flushed = Pin::new(&mut this.transport).poll_flush(context);
        this.watch_write(context, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !matches!(this.stage, Stage::Lingering) {
            let shut_down = Pin::new(&mut this.transport).poll_shutdown(context);
            ready!(this.watch_write(context, shut_down))?;
            this.enter(Stage::Lingering, this.patience.linger);
        }
        let mut space = [0; 4_096];
        // Looked at first, for who never pauses must not be read for ever.
        while this.poll_due(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut space);
            let read = ready!(Pin::new(&mut this.transport).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What the guard and the requests on its connection tell each other.
#[derive(Default)]
pub(super) struct Requests {
    /// What the last head was refused for.
    flaw: Mutex<Option<Flaw>>,
    /// A head has been read.
    began: AtomicBool,
    /// A response has been sent, so the next head is awaited.
    done: AtomicBool,
    /// The request is a call, and whether all of it has been read.
    is_call: AtomicBool,
    is_whole: AtomicBool,
    /// Its answer was cut off where the end of the connection is all that tells.
    is_cut: AtomicBool,
    watcher: AtomicWaker,
}

impl Requests {
    /// Says that a request has begun; why it is refused, if it is.
    pub(super) fn begin(&self) -> Option<Flaw> {
        self.done.store(false, Ordering::Release);
        self.is_call.store(false, Ordering::Release);
        self.is_whole.store(false, Ordering::Release);
        self.began.store(true, Ordering::Release);
        self.flaw().take()
    }

    /// Says that the request at hand is a call, for which nothing must be done once its caller has
    /// hung up.
    pub(super) fn call(&self) {
        self.is_call.store(true, Ordering::Release);
    }

    /// Says that all of a call was read, so that only the end of the connection is to come.
    pub(super) fn watch(&self) {
        self.is_whole.store(true, Ordering::Release);
        self.watcher.wake();
    }

    /// Says that a response was cut off and must not look as if it were whole: the connection ends
    /// with the next look at it.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
    }

    /// Whether the end of the connection is to be looked for; if not yet, the task is woken.
    fn is_watched(&self, context: &Context<'_>) -> bool {
        if !self.is_call.load(Ordering::Acquire) {
            return false;
        }
        self.watcher.register(context.waker());
        self.is_whole.load(Ordering::Acquire)
    }

    /// Says that the request at hand has had its response.
    pub(super) fn finish(&self) {
        self.is_call.store(false, Ordering::Release);
        self.done.store(true, Ordering::Release);
    }

    fn flaw(&self) -> std::sync::MutexGuard<'_, Option<Flaw>> {
        self.flaw.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A head that two readers could read in two ways (RFC 9112, sections 2.2 and 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    #[error("a line must end in a carriage return and a line feed")]
    BareLineFeed,
    #[error("a request must not have both Content-Length and Transfer-Encoding")]
    TwoLengths,
}

/// Reads a head line by line, just well enough to see its end and its flaws.
#[derive(Default)]
struct Scanner {
    /// The beginning of the line, in lower case; enough for the longest name looked for.
    start: [u8; TRANSFER_ENCODING.len()],
    /// Bytes in the line, its carriage return included.
    length: usize,
    last: u8,
    lines: usize,
    bare_line_feed: bool,
    content_length: bool,
    transfer_encoding: bool,
}

impl Scanner {
    /// Takes what came; at the head's end, tells whether it has a flaw.
    fn scan(&mut self, mut bytes: &[u8]) -> Option<Option<Flaw>> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.take(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.bare_line_feed |= self.last != b'\r';
            let empty = self.length == usize::from(self.last == b'\r');
            self.content_length |= self.start.starts_with(CONTENT_LENGTH);
            self.transfer_encoding |= self.start == *TRANSFER_ENCODING;
            // An empty line before the request line is allowed, and ends nothing.
            if empty && self.lines > 0 {
                return Some(self.flaw());
            }
            self.lines += usize::from(!empty);
            (self.start, self.length, self.last) = Default::default();
        }
        self.take(bytes);
        None
    }

    /// Takes more of a line.
    fn take(&mut self, piece: &[u8]) {
        let room = self.start.iter_mut().skip(self.length);
        for (place, byte) in room.zip(piece) {
            *place = byte.to_ascii_lowercase();
        }
        self.length += piece.len();
        self.last = piece.last().copied().unwrap_or(self.last);
    }

    fn flaw(&self) -> Option<Flaw> {
        if self.bare_line_feed {
            return Some(Flaw::BareLineFeed);
        }
        (self.content_length && self.transfer_encoding).then_some(Flaw::TwoLengths)
    }
}

const CONTENT_LENGTH: &[u8; 15] = b"content-length:";
const TRANSFER_ENCODING: &[u8; 18] = b"transfer-encoding:";

const TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    connection: close\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 64\r\n\r\n\
    408 Request Timeout: the head of the request took far too long.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_where_it_ends_however_it_is_cut() {
        for (head, flaw) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", None),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n", None),
            (
                "POST / HTTP/1.1\r\nX-Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                None,
            ),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", Some(Flaw::BareLineFeed)),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", Some(Flaw::BareLineFeed)),
            (
                "POST / HTTP/1.1\r\nCONTENT-length: 1\r\nTransfer-ENCODING: chunked\r\n\r\n",
                Some(Flaw::TwoLengths),
            ),
        ] {
            for cut in 1..head.len() {
                let mut scanner = Scanner::default();
                assert_eq!(
                    scanner.scan(&head.as_bytes()[..cut]),
                    None,
                    "{head:?} at {cut}"
                );
                let rest = &head.as_bytes()[cut..];
                assert_eq!(scanner.scan(rest), Some(flaw), "{head:?} at {cut}");
            }
        }
    }

    #[test]
    fn the_timeouts_length_is_right() {
        let text = str::from_utf8(TIMEOUT).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
    }
}

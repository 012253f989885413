//! Two connections that have become one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::time::sleep;

/// Carries bytes both ways until both sides have ended, one has failed, or for `idle` nothing has
/// moved. Says how many bytes went to `b` and came from it.
///
/// # Errors
///
/// When it did not end well, so that neither side may be closed as if it had.
pub async fn relay<A, B>(a: A, b: B, idle: Duration) -> io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let moved = Arc::new(AtomicU64::new(0));
    let mut a = Counted {
        inner: a,
        moved: moved.clone(),
    };
    let mut b = b;
    tokio::select! {
        copied = copy_bidirectional_with_sizes(&mut a, &mut b, BUFFER, BUFFER) => copied,
        () = standstill(&moved, idle) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Ends once nothing has moved for so long, give or take as much.
async fn standstill(moved: &AtomicU64, idle: Duration) {
    let mut before = moved.load(Ordering::Relaxed);
    loop {
        sleep(idle).await;
        let now = moved.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
    }
}

/// Counts what goes through, either way.
struct Counted<S> {
    inner: S,
    moved: Arc<AtomicU64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        self.moved.fetch_add(read as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
        self.moved.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// What is on its way in each direction, in bytes.
const BUFFER: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn each_side_may_end_before_the_other() {
        let (mut caller, a) = duplex(64);
        let (mut target, b) = duplex(64);
        let relaying = tokio::spawn(relay(a, b, Duration::from_secs(60)));
        caller.write_all(b"question").await.unwrap();
        caller.shutdown().await.unwrap();
        let mut question = String::new();
        target.read_to_string(&mut question).await.unwrap();
        target.write_all(b"answer").await.unwrap();
        drop(target);
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.unwrap();
        assert_eq!((&*question, &*answer), ("question", "answer"));
        assert_eq!(relaying.await.unwrap().unwrap(), (8, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn what_stands_still_for_too_long_is_ended() {
        let (_caller, a) = duplex(64);
        let (mut target, b) = duplex(64);
        let idle = Duration::from_secs(60);
        let relaying = tokio::spawn(relay(a, b, idle));
        for _ in 0..5 {
            sleep(idle * 2 / 3).await;
            target.write_all(b".").await.unwrap();
        }
        assert!(!relaying.is_finished());
        let error = relaying.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}

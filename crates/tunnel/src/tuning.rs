//! How HTTP/2 is spoken in a tunnel, and why it is not hyper's usual way.
//!
//! A tunnel is shared by callers who do not know each other. With the usual settings a few of them
//! stall it for all, by not reading, or end it for all, by hanging up often enough.

use std::time::Duration;

use hyper::client::conn::http2 as client;
use hyper::server::conn::http2 as server;
use hyper_util::rt::TokioTimer;

/// How a connection finds out that nobody is at the other end any more.
#[derive(Debug, Clone, Copy)]
pub struct KeepAlive {
    /// How often the other end is asked for a sign of life.
    pub interval: Duration,
    /// How long it may take to give one. Behind much data on a slow line that is long.
    pub timeout: Duration,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(20),
            timeout: Duration::from_secs(30),
        }
    }
}

/// How the broker speaks.
pub(crate) fn client<E: Clone>(executor: E, keep_alive: KeepAlive) -> client::Builder<E> {
    let mut builder = client::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS)
        .max_local_error_reset_streams(None)
        .max_pending_accept_reset_streams(RESETS)
        .keep_alive_interval(keep_alive.interval)
        .keep_alive_timeout(keep_alive.timeout)
        .keep_alive_while_idle(true);
    builder
}

/// How a responder speaks that takes so many calls at a time.
pub(crate) fn server<E: Clone>(
    executor: E,
    max_calls: u32,
    keep_alive: KeepAlive,
) -> server::Builder<E> {
    let mut builder = server::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS)
        .max_concurrent_streams(max_calls)
        .max_local_error_reset_streams(None)
        .max_pending_accept_reset_streams(RESETS)
        .enable_connect_protocol()
        .keep_alive_interval(keep_alive.interval)
        .keep_alive_timeout(keep_alive.timeout);
    builder
}

/// How many calls a tunnel carries at a time, whatever a responder offers.
pub const MAX_CALLS: usize = 1_024;

/// What one call may have on its way in one direction, in bytes. It bounds what a call costs in
/// memory, and how much is queued before a ping on a slow line.
const STREAM_WINDOW: u32 = 256 << 10;

/// As much as there may be. What is smaller than the windows of all calls together is used up by
/// those who do not read; and the budget by which h2 ends a connection for small frames that
/// nobody reads is half of this.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// In bytes.
const FRAME: u32 = 64 << 10;

/// What waits here for one call to be sent, in bytes.
const SEND_BUFFER: usize = 128 << 10;

/// More than what the broker accepts of a caller.
const HEADERS: u32 = 128 << 10;

/// How many callers may hang up at once. The usual number is that of an attacker, where all
/// streams are one client's.
const RESETS: usize = 8_192;

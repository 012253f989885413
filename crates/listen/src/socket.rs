//! One WebSocket and its messages.
//!
//! It is read only while the consumer has room for what may come. The clock that notices a dead
//! server stands still meanwhile: it is the consumer who is silent then.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hookbot_protocol::event::EVENTS_V1;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message as Frame};

use crate::connect::{Http, Transport, connect, refused};
use crate::endpoint::{Endpoint, Timing};
use crate::error::Error;
use crate::feed::Outlet;
use crate::message::{Naming, Said};

/// An open WebSocket that messages come from.
pub(crate) struct Socket {
    stream: WebSocketStream<Heard<Box<dyn Transport>>>,
    naming: Naming,
    endpoint: Endpoint,
    /// Where to go on when this connection is lost.
    pub(crate) place: Option<String>,
    /// Whether anything came of it.
    pub(crate) fruitful: bool,
}

/// How a connection ended.
pub(crate) enum Ending {
    /// Nobody wants more messages.
    Stopped,
    /// It can't give more messages.
    Failed(Error),
}

impl Socket {
    /// Connects and shakes hands, before the deadline for both.
    ///
    /// With a place, messages go on behind it.
    pub(crate) async fn open(endpoint: &Endpoint, place: Option<String>) -> Result<Self, Error> {
        let Upgraded { stream, headers } = open(endpoint, place.as_deref(), EVENTS_V1).await?;
        // A server that knows nothing of events gives plain frames.
        let has_events = headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(endpoint.max_message))
            .max_frame_size(Some(endpoint.max_message));
        let stream = Heard::now(stream);
        Ok(Self {
            stream: WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await,
            naming: if has_events {
                Naming::Event
            } else {
                Naming::of(endpoint.target.path())
            },
            endpoint: endpoint.clone(),
            place,
            fruitful: false,
        })
    }

    /// Carries messages to the consumer until it wants no more or the connection fails.
    pub(crate) async fn carry(&mut self, outlet: &mut Outlet) -> Ending {
        let timing = self.endpoint.timing.clone();
        let Outlet {
            items,
            waiting,
            heard,
            stop,
        } = outlet;
        let mut room = None;
        let mut reading_since = Instant::now();
        heard.set(reading_since);
        let mut next_ping = Some(reading_since + ping_pause(&timing));
        loop {
            let given_up = self.stream.get_ref().at.max(reading_since) + timing.silence;
            tokio::select! {
                // What the server has sent must count before the clock does.
                biased;
                _ = &mut *stop => {
                    self.close(CloseCode::Normal).await;
                    return Ending::Stopped;
                }
                () = at(next_ping) => match self.ping().await {
                    Ok(()) => next_ping = Some(Instant::now() + ping_pause(&timing)),
                    Err(error @ Error::Timeout { .. }) => return Ending::Failed(error),
                    // Reading tells why, after what the server could still send.
                    Err(_) => next_ping = None,
                },
                reserved = items.reserve(), if room.is_none() => {
                    let Ok(reserved) = reserved else {
                        self.close(CloseCode::Normal).await;
                        return Ending::Stopped;
                    };
                    if let Some(error) = waiting.take() {
                        reserved.send(Err(error));
                    } else {
                        room = Some(reserved);
                        reading_since = Instant::now();
                    }
                }
                frame = self.stream.next(), if room.is_some() => {
                    heard.set(self.stream.get_ref().at);
                    let Some(item) = self.read(frame).await else {
                        continue;
                    };
                    match (item, room.take()) {
                        (Err(error), _) if !error.is_passing() => return Ending::Failed(error),
                        (item, Some(room)) => room.send(item),
                        (_, None) => {}
                    }
                }
                // A part of a message may have come since, and moved the moment.
                () = sleep_until(given_up), if room.is_some() => {
                    if self.stream.get_ref().at.max(reading_since) + timing.silence <= given_up {
                        return Ending::Failed(Error::Silent(timing.silence));
                    }
                }
            }
        }
    }

    /// Makes an item of a frame, or nothing if it is not for the consumer.
    async fn read(
        &mut self,
        frame: Option<Result<Frame, tungstenite::Error>>,
    ) -> Option<Result<Said, Error>> {
        let payload = match frame {
            Some(Ok(Frame::Binary(payload))) => payload,
            Some(Ok(Frame::Text(text))) => text.into(),
            Some(Ok(Frame::Close(frame))) => return Some(Err(self.closed(frame).await)),
            // Answering pings is tungstenite's business.
            Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => return None,
            Some(Err(error)) => return Some(Err(self.broken(error).await)),
            None => return Some(Err(Error::Lost(io::ErrorKind::UnexpectedEof.into()))),
        };
        self.fruitful = true;
        let said = self.naming.read(payload);
        match &said {
            Ok(Said::Message(message)) => {
                if let Some(cursor) = message.cursor() {
                    self.place = Some(cursor.to_owned());
                }
            }
            Ok(Said::Place(place)) => self.place = Some(place.clone()),
            Ok(Said::Gap(gap)) => self.place = Some(gap.oldest.clone()),
            Err(_) => {}
        }
        Some(said)
    }

    /// Answers the server's close.
    async fn closed(&mut self, frame: Option<CloseFrame>) -> Error {
        // Reading the close has queued the answer. Failing to send it changes nothing.
        let _ = timeout(self.endpoint.timing.finish, self.stream.flush()).await;
        frame.map_or_else(
            || Error::Closed {
                code: CloseCode::Status.into(),
                reason: String::new(),
            },
            |frame| Error::Closed {
                code: frame.code.into(),
                reason: self.endpoint.quote(&frame.reason),
            },
        )
    }

    /// Finds the name of what tungstenite met, and tells the server what it did wrong.
    async fn broken(&mut self, error: tungstenite::Error) -> Error {
        match error {
            tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                self.close(CloseCode::Size).await;
                Error::TooLarge {
                    limit: self.endpoint.max_message,
                }
            }
            tungstenite::Error::Io(error) => Error::Lost(error),
            tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Error::Lost(io::ErrorKind::UnexpectedEof.into())
            }
            tungstenite::Error::Utf8(_) => {
                self.close(CloseCode::Invalid).await;
                Error::protocol(error)
            }
            error => {
                self.close(CloseCode::Protocol).await;
                Error::protocol(error)
            }
        }
    }

    async fn ping(&mut self) -> Result<(), Error> {
        let after = self.endpoint.timing.write;
        let sent = timeout(after, self.stream.send(Frame::Ping(Bytes::new())));
        let sent = sent.await.map_err(|_| Error::Timeout {
            what: format!("sending a ping to {}", self.endpoint.server()),
            after,
        })?;
        sent.map_err(Error::protocol)
    }

    /// Says goodbye, and waits until the server has heard it: closing a socket with bytes unread
    /// would take the goodbye back.
    async fn close(&mut self, code: CloseCode) {
        let frame = CloseFrame {
            code,
            reason: "".into(),
        };
        let farewell = async {
            self.stream.close(Some(frame)).await?;
            while let Some(Ok(frame)) = self.stream.next().await {
                if frame.is_close() {
                    return Ok(());
                }
            }
            // After an error frames can't be told apart, but bytes still end.
            let rest = self.stream.get_mut();
            let mut scrap = [0; 1024];
            while rest.read(&mut scrap).await? > 0 {}
            Ok::<_, tungstenite::Error>(())
        };
        // The connection ends here in any case.
        let _ = timeout(self.endpoint.timing.finish, farewell).await;
    }
}

/// A WebSocket connection whose handshake is done, for those who speak something else than events
/// on it.
pub struct Upgraded {
    /// Its bytes, frames and all.
    pub stream: Box<dyn Transport>,
    /// The headers with which the server has agreed.
    pub headers: HeaderMap,
}

/// Opens a WebSocket, before the deadline for connecting, with this subprotocol.
///
/// # Errors
///
/// Whatever keeps it from connecting; [`Error::Protocol`] when the server does not speak the
/// subprotocol.
pub async fn upgrade(endpoint: &Endpoint, subprotocol: &'static str) -> Result<Upgraded, Error> {
    let upgraded = open(endpoint, None, subprotocol).await?;
    if !upgraded
        .headers
        .contains_key(header::SEC_WEBSOCKET_PROTOCOL)
    {
        return Err(Error::protocol("it does not speak the subprotocol"));
    }
    Ok(upgraded)
}

/// Connects and shakes hands, before the deadline for both. With a place, messages go on behind it.
async fn open(
    endpoint: &Endpoint,
    place: Option<&str>,
    subprotocol: &'static str,
) -> Result<Upgraded, Error> {
    let after = endpoint.timing.connect;
    let opened = timeout(after, async {
        let stream = connect(endpoint).await?;
        shake_hands(endpoint, place, subprotocol, stream).await
    });
    opened.await.map_err(|_| Error::Timeout {
        what: format!("connecting to {}", endpoint.server()),
        after,
    })?
}

/// Makes a WebSocket of an HTTP connection.
///
/// hyper shakes hands rather than tungstenite, which would cut off what a refusal says.
async fn shake_hands(
    endpoint: &Endpoint,
    place: Option<&str>,
    subprotocol: &'static str,
    stream: Box<dyn Transport>,
) -> Result<Upgraded, Error> {
    let key = generate_key();
    let mut request = Request::new(Full::default());
    *request.uri_mut() = endpoint.target_after(place)?.into();
    *request.headers_mut() = endpoint.request_headers();
    for (name, value) in [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_VERSION, "13"),
        (header::SEC_WEBSOCKET_KEY, &key),
        (header::SEC_WEBSOCKET_PROTOCOL, subprotocol),
    ] {
        let value = HeaderValue::from_str(value).map_err(Error::protocol)?;
        request.headers_mut().insert(name, value);
    }

    let mut http = Http::start(stream).await?;
    let response = http.requests.send_request(request).await;
    let response = response.map_err(Error::protocol)?;
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => {}
        status if status.is_success() => {
            return Err(Error::protocol(format!(
                "it answered {status} to the handshake of a WebSocket"
            )));
        }
        _ => return Err(refused(endpoint, response).await),
    }
    check(&response, &key, subprotocol)?;
    let headers = response.headers().clone();
    let stream = hyper::upgrade::on(response).await;
    let stream = TokioIo::new(stream.map_err(Error::protocol)?);
    Ok(Upgraded {
        stream: Box::new(stream),
        headers,
    })
}

/// Checks that the server meant this very upgrade, and chose the subprotocol or none.
fn check(response: &Response<Incoming>, key: &str, subprotocol: &str) -> Result<(), Error> {
    let has = |name, text: &str| {
        let value: Option<&HeaderValue> = response.headers().get(name);
        value.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(text.as_bytes()))
    };
    if !has(header::UPGRADE, "websocket") {
        return Err(Error::protocol("it upgraded to something else"));
    }
    if !has(
        header::SEC_WEBSOCKET_ACCEPT,
        &derive_accept_key(key.as_bytes()),
    ) {
        return Err(Error::protocol("it answered another upgrade than ours"));
    }
    let chosen = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
    if chosen.is_some_and(|chosen| chosen.as_bytes() != subprotocol.as_bytes()) {
        return Err(Error::protocol(
            "it chose a subprotocol that was not offered",
        ));
    }
    Ok(())
}

/// A stream that remembers when bytes last came from it: a long message on a slow line is not
/// silence.
struct Heard<S> {
    stream: S,
    at: Instant,
}

impl<S> Heard<S> {
    fn now(stream: S) -> Self {
        Self {
            stream,
            at: Instant::now(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.at = Instant::now();
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Pings of many listeners that a restart brought back at once should not stay in step.
fn ping_pause(timing: &Timing) -> Duration {
    timing.ping - timing.ping_jitter + timing.ping_jitter.mul_f64(2.0 * fastrand::f64())
}

/// Waits for a moment that may never come.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// tungstenite allocates it up front and clears it with each read.
const READ_BUFFER: usize = 8 * 1024;

/// Only control frames are sent.
const WRITE_BUFFER: usize = 64 * 1024;

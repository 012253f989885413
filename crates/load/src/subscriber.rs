//! One subscriber's connection: the handshake, and reading for as long as there is something.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use crate::arrivals::Arrivals;
use crate::clock;
use crate::decoder::{Decoder, Said};
use crate::event_lines::EventLines;
use crate::failure::Failure;
use crate::frames::{Frames, pong};
use crate::seat::Seat;
use crate::shape::Shape;
use crate::stream::Stream;
use crate::target::{Peculiar, Target};

/// A subscriber that the server has let in.
#[derive(Debug)]
pub(crate) struct Subscriber {
    stream: Stream,
    decoder: Decoder,
    early: Vec<u8>,
    events: bool,
}

/// How long a handshake may take. The server may have thousands to do before this one.
const PATIENCE: Duration = Duration::from_secs(60);

/// As much is read at a time, by all the subscribers of a thread into the same place.
const BUFFER: usize = 256 << 10;

struct Scratch {
    bytes: Vec<u8>,
    waits: Vec<u64>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        bytes: vec![0; BUFFER],
        waits: Vec::new(),
    });
}

/// What one read brought besides messages.
#[derive(Default)]
struct Read {
    pong: Option<Vec<u8>>,
    ended: bool,
}

impl Subscriber {
    /// Connects and subscribes; with a place to resume from, to event frames.
    pub(crate) async fn connect(
        target: &Target,
        run: u16,
        topic: u32,
        after: Option<&str>,
        peculiar: Peculiar,
    ) -> Result<Self, Failure> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no handshake in time");
        let shaking = async {
            let mut stream = target.connect(peculiar).await?;
            let request = target.subscribe_request(run, topic, after);
            stream.write_all(request.as_bytes()).await?;
            stream.flush().await?;
            let (status, early) = head(&mut stream).await?;
            Ok::<_, io::Error>((stream, status, early))
        };
        let shaken = timeout(PATIENCE, shaking).await;
        let (stream, status, early) = shaken
            .unwrap_or_else(|_| Err(late()))
            .map_err(Failure::Unreachable)?;
        let (expected, decoder) = match (target.shape(), after) {
            (Shape::Gosmee, _) => (200, Decoder::Events(EventLines::default())),
            (_, None) => (101, Decoder::Frames(Frames::of_stamps())),
            (_, Some(_)) => (101, Decoder::Frames(Frames::whole())),
        };
        if status != expected {
            return Err(Failure::Refused(status));
        }
        Ok(Self {
            stream,
            decoder,
            early,
            events: after.is_some(),
        })
    }

    /// Enters everything that comes until the server ends it.
    pub(crate) async fn read(mut self, seat: &Seat, arrivals: &Arrivals) {
        let early = std::mem::take(&mut self.early);
        let mut waits = Vec::new();
        let mut read = self.enter(&early, &mut waits, seat, arrivals);
        while !read.ended {
            if let Some(pong) = read.pong.take() {
                let written = self.stream.write_all(&pong).await;
                if written.is_err() || self.stream.flush().await.is_err() {
                    break;
                }
            }
            read = poll_fn(|cx| self.poll(cx, seat, arrivals)).await;
        }
        seat.account().cut_off += 1;
    }

    fn poll(&mut self, cx: &mut Context<'_>, seat: &Seat, arrivals: &Arrivals) -> Poll<Read> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(&mut scratch.bytes);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            let bytes = buffer.filled();
            if read.is_err() || bytes.is_empty() {
                return Poll::Ready(Read {
                    ended: true,
                    ..Read::default()
                });
            }
            Poll::Ready(self.enter(bytes, &mut scratch.waits, seat, arrivals))
        })
    }

    fn enter(
        &mut self,
        bytes: &[u8],
        waits: &mut Vec<u64>,
        seat: &Seat,
        arrivals: &Arrivals,
    ) -> Read {
        let now = clock::now();
        let mut read = Read::default();
        let mut account = seat.account();
        waits.clear();
        let events = self.events;
        let fed = self.decoder.feed(bytes, &mut |said| match said {
            Said::Payload(start, length) => {
                let sent = if events {
                    account.enter_event(start)
                } else {
                    account.ledger.enter(start, length)
                };
                waits.extend(sent.map(|sent| now.saturating_sub(sent)));
            }
            Said::Ping(payload) => read.pong = Some(pong(payload)),
            Said::Close(_) => read.ended = true,
        });
        read.ended |= fed.is_err();
        arrivals.add(waits, now);
        read
    }

    /// Stays connected without ever reading.
    pub(crate) async fn stall(self) {
        std::future::pending::<()>().await;
        drop(self);
    }
}

/// The status of a response without a body, and what came behind its head.
async fn head(stream: &mut Stream) -> io::Result<(u16, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(512);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(&bytes).map_err(io::Error::other)?;
        if let httparse::Status::Complete(end) = parsed {
            return Ok((response.code.unwrap_or_default(), bytes[end..].to_vec()));
        }
    }
}

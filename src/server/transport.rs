//! One accepted connection's bytes, whatever carries them.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::error::HttpError;
use super::networks::counted_by;
use super::places::Place;
use super::proxies;

/// A connection, and its place among those the server allows at once.
pub struct Transport {
    stream: Stream,
    place: Option<Place>,
}

/// What carries the bytes. TLS is boxed: its state is large, and plain connections are many.
pub(super) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Transport {
    pub(super) fn new(stream: Stream, place: Option<Place>) -> Self {
        Self { stream, place }
    }

    /// Counts its place for a network, unless it is counted already.
    pub(super) fn count(&mut self, network: Option<IpAddr>) -> Result<(), HttpError> {
        match (&mut self.place, network) {
            (Some(place), Some(network)) => place.count(network),
            _ => Ok(()),
        }
    }

    /// Gives its place back before it is closed.
    pub(super) fn leave_place(&mut self) {
        self.place = None;
    }

    /// Whether the bytes come over a network.
    pub(super) fn is_network(&self) -> bool {
        !matches!(self.stream, Stream::Unix(_))
    }

    /// Does a TLS handshake where the bytes come over a network; a unix socket needs none.
    pub(super) async fn secure(mut self, acceptor: &TlsAcceptor) -> io::Result<Self> {
        if let Stream::Tcp(stream) = self.stream {
            self.stream = Stream::Tls(Box::new(acceptor.accept(stream).await?));
        }
        Ok(self)
    }
}

impl Transport {
    /// Reads what a proxy says of its client, before anything else.
    pub(super) async fn read_proxy_header(&mut self) -> io::Result<Option<SocketAddr>> {
        match &mut self.stream {
            Stream::Tcp(stream) => proxies::read_header(stream).await,
            Stream::Tls(stream) => proxies::read_header(stream).await,
            Stream::Unix(stream) => proxies::read_header(stream).await,
        }
    }
}

impl Transport {
    /// Has the connection end, once it is dropped, in a way that nobody takes for a good end.
    pub(super) fn reset(&self) {
        let stream = match &self.stream {
            Stream::Tcp(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
            Stream::Unix(_) => return,
        };
        // It is over in any case.
        let _ = stream.set_zero_linger();
    }
}

impl From<TcpStream> for Transport {
    /// A plain connection that counts against no limit, for those who accept by themselves.
    fn from(stream: TcpStream) -> Self {
        Self::new(Stream::Tcp(stream), None)
    }
}

/// Calls the same method on whichever stream it is.
macro_rules! on_stream {
    ($self:ident, $method:ident $(, $argument:expr)*) => {
        match &mut $self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Tls(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_stream!(self, poll_read, context, buffer)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, poll_write, context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if length <= SMALL {
            // A plain write takes the kernel less than a vectored one, by more than this copy.
            let mut bytes = [0; SMALL];
            let mut at = 0;
            for slice in slices {
                bytes[at..at + slice.len()].copy_from_slice(slice);
                at += slice.len();
            }
            return self.poll_write(context, &bytes[..length]);
        }
        on_stream!(self, poll_write_vectored, context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, poll_flush, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, poll_shutdown, context)
    }
}

/// What is written in one piece, in bytes.
const SMALL: usize = 2 << 10;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Somebody on the network.
    Ip(SocketAddr),
    /// A process on this machine, through a unix socket.
    Local,
}

impl Peer {
    /// The address to count by: an IPv6 network stands for all its addresses, since one party
    /// commonly has that many.
    pub(super) fn network(self) -> Option<IpAddr> {
        self.ip().map(counted_by)
    }

    /// The address, without its port.
    pub(super) fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Local => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A proxy need not say from which port its client is.
            Self::Ip(address) if address.port() == 0 => address.ip().to_canonical().fmt(f),
            Self::Ip(address) => {
                let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
                canonical.fmt(f)
            }
            Self::Local => f.write_str("local"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_by_network_and_shown_in_their_usual_form() {
        let peer = |text: &str| Peer::Ip(text.parse().unwrap());
        for (address, network, shown) in [
            ("10.0.0.1:5", "10.0.0.1", "10.0.0.1:5"),
            ("[::ffff:10.0.0.1]:5", "10.0.0.1", "10.0.0.1:5"),
            (
                "[2001:db8:1:2:3:4:5:6]:5",
                "2001:db8:1:2::",
                "[2001:db8:1:2:3:4:5:6]:5",
            ),
        ] {
            assert_eq!(peer(address).network(), Some(network.parse().unwrap()));
            assert_eq!(peer(address).to_string(), shown);
        }
        assert_eq!(Peer::Local.network(), None);
    }
}

//! A service to measure a tunnel with: it does as little as it can, at `127.0.0.1:3000` or where
//! its argument says.
//!
//! | | |
//! | --- | --- |
//! | `/sleep/<ms>` | answers after so long |
//! | `/down/<bytes>` | answers with so many |
//! | anything else | reads the body and answers with as much, up to a MiB; with `ok` where there is none |

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1);
    let address: SocketAddr = address.as_deref().unwrap_or("127.0.0.1:3000").parse()?;
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    // Whoever does not fit in comes a second later, which says nothing of the tunnel.
    let listener = socket.listen(4_096)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let connection = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service_fn(answer))
            .with_upgrades();
        tokio::spawn(connection);
    }
}

type Answer = Response<Either<Full<Bytes>, UnsyncBody>>;

type UnsyncBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

async fn answer(request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    let path = request.uri().path().to_owned();
    let number = |text: Option<&str>| text.and_then(|text| text.parse().ok()).unwrap_or(0_u64);
    if let Some(ms) = path.strip_prefix("/sleep/") {
        sleep(Duration::from_millis(number(Some(ms)))).await;
    } else if let Some(bytes) = path.strip_prefix("/down/") {
        return Ok(Response::new(Either::Right(zeros(number(Some(bytes))))));
    }
    let mut body = request.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, Bytes::len);
    }
    let answer = match length {
        0 => Bytes::from_static(b"ok"),
        length => Bytes::from_static(&ZEROS).slice(..length.min(ZEROS.len())),
    };
    Ok(Response::new(Either::Left(Full::new(answer))))
}

/// So many bytes, in pieces.
fn zeros(bytes: u64) -> UnsyncBody {
    let piece = Bytes::from_static(&ZEROS[..64 << 10]);
    let number = usize::try_from(bytes).unwrap_or(usize::MAX) / piece.len();
    let pieces = std::iter::repeat_n(piece, number).map(|piece| Ok(Frame::data(piece)));
    let body = StreamBody::new(stream::iter(pieces));
    debug_assert!(!body.is_end_stream());
    body.boxed_unsync()
}

static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

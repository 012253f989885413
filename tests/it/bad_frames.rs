use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{PATIENCE, TestServer, token};

/// A WebSocket on which a test can say anything.
async fn raw_socket(server: &TestServer) -> TcpStream {
    let mut stream = server.connect().await;
    let head = format!(
        "GET /sub/t?token={} HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        token("/sub/t")
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    while !reply.ends_with(b"\r\n\r\n") {
        reply.push(stream.read_u8().await.unwrap());
    }
    stream
}

/// A frame that is masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ ..=125 => frame.push(0x80 | length as u8),
        length @ ..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The code of the close frame that the server answers with; `None` when it just closes.
async fn answer(stream: &mut TcpStream) -> Option<u16> {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("the server neither answered nor closed");
    let at = bytes.iter().position(|byte| *byte == 0x88)?;
    Some(u16::from_be_bytes(
        bytes.get(at + 2..at + 4)?.try_into().ok()?,
    ))
}

#[tokio::test]
async fn a_frame_that_breaks_a_rule_closes_with_the_rule_s_code() {
    let server = TestServer::start().await;
    let limit = 64 << 10;
    for (name, frames, code) in [
        ("not masked", b"\x82\x01x".to_vec(), 1002),
        ("a reserved bit", frame(0xc2, b"x"), 1002),
        ("a reserved opcode", frame(0x83, b"x"), 1002),
        ("a reserved control opcode", frame(0x8b, b""), 1002),
        ("a control frame in pieces", frame(0x09, b""), 1002),
        ("a long ping", frame(0x89, &[0; 126]), 1002),
        ("a continuation of nothing", frame(0x80, b"x"), 1002),
        (
            "a new message inside another",
            [frame(0x02, b"x"), frame(0x82, b"y")].concat(),
            1002,
        ),
        ("text that is not UTF-8", frame(0x81, b"\xff"), 1007),
        (
            "text cut inside a character",
            [frame(0x01, b"\xc3"), frame(0x80, b"x")].concat(),
            1007,
        ),
        (
            "a frame over the limit",
            frame(0x82, &vec![0; limit + 1]),
            1009,
        ),
        (
            "a declared monster",
            b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0".to_vec(),
            1009,
        ),
        (
            "pieces over the limit",
            [frame(0x02, &vec![0; limit]), frame(0x80, b"x")].concat(),
            1009,
        ),
        ("a close with one byte", frame(0x88, b"x"), 1002),
        (
            "a close with a code nobody may send",
            frame(0x88, &1005_u16.to_be_bytes()),
            1002,
        ),
    ] {
        let mut stream = raw_socket(&server).await;
        stream.write_all(&frames).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(answer(&mut stream).await, Some(code), "{name}");
    }
}

#[tokio::test]
async fn a_close_is_answered_with_a_close() {
    let server = TestServer::start().await;
    let mut stream = raw_socket(&server).await;
    stream
        .write_all(&frame(0x88, &1000_u16.to_be_bytes()))
        .await
        .unwrap();
    assert_eq!(answer(&mut stream).await, Some(1000));
}

#[tokio::test]
async fn whatever_is_allowed_is_taken_and_ignored() {
    let server = TestServer::start().await;
    let mut stream = raw_socket(&server).await;
    let limit = 64 << 10;
    for frames in [
        frame(0x82, &vec![0; limit]),
        frame(0x81, "ü".as_bytes()),
        [frame(0x01, b"\xc3"), frame(0x8a, b""), frame(0x80, b"\xbc")].concat(),
        frame(0x8a, b"an unasked pong"),
        frame(0x82, b""),
    ] {
        stream.write_all(&frames).await.unwrap();
    }
    server.publish("t", "hello").await;
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply, *b"\x82\x05hello");
}

#[tokio::test]
async fn a_client_that_never_stops_talking_is_closed() {
    let server = TestServer::start().await;
    let mut stream = raw_socket(&server).await;
    let flood = frame(0x89, b"").repeat(100_000);
    // It may be closed before it has said everything.
    let _ = stream.write_all(&flood).await;
    let code = answer(&mut stream).await;
    // A reset may overtake the close frame, as the rest of the flood was not read.
    assert!(matches!(code, Some(1008) | None), "{code:?}");
    let healthy = server.subscribe("/sub/t").await;
    drop(healthy);
}

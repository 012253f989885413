//! What a server sends its subscribers, taken apart as it comes: WebSocket frames, or the lines of
//! an event stream.
//!
//! Bytes go through one buffer that all subscribers of a thread share, so what a decoder keeps
//! between two reads is small: of a payload only its beginning is looked at, the rest is skipped.

use crate::event_lines::EventLines;
use crate::frames::Frames;

/// Something that the server said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    /// A message: as much of its payload as is kept, and its whole length.
    Payload(&'a [u8], u64),
    /// A ping, to be answered with the same bytes.
    Ping(&'a [u8]),
    /// The end, with its code.
    Close(u16),
}

/// Bytes that follow no rule that is known here.
#[derive(Debug, thiserror::Error)]
#[error("the server sent what is no frame of a message")]
pub(crate) struct Malformed;

/// Takes one subscriber's bytes apart.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// WebSocket frames.
    Frames(Frames),
    /// Server-sent events as gosmee makes them.
    Events(EventLines),
}

impl Decoder {
    /// Tells everything that is complete with these bytes.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        tell: &mut impl FnMut(Said<'_>),
    ) -> Result<(), Malformed> {
        match self {
            Self::Frames(frames) => frames.feed(bytes, tell),
            Self::Events(lines) => lines.feed(bytes, tell),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::stamp::Stamp;

    /// What a decoder tells of these bytes when they come in pieces of a size.
    fn told(mut decoder: Decoder, bytes: &[u8], piece: usize) -> Vec<(Vec<u8>, u64)> {
        let mut told = Vec::new();
        for piece in bytes.chunks(piece) {
            let tell = &mut |said: Said<'_>| match said {
                Said::Payload(start, length) => told.push((start.to_vec(), length)),
                Said::Ping(payload) => told.push((payload.to_vec(), 1_000_000)),
                Said::Close(code) => told.push((Vec::new(), code.into())),
            };
            decoder.feed(piece, tell).unwrap();
        }
        told
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len();
        let mut frame = match length {
            0..126 => vec![first, length as u8],
            126..65_536 => vec![first, 126, (length >> 8) as u8, length as u8],
            _ => [&[first, 127][..], &(length as u64).to_be_bytes()].concat(),
        };
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn frames_are_the_same_however_their_bytes_are_cut() {
        let long: Vec<u8> = (0..70_000_u32).map(|n| n as u8).collect();
        let bytes = [
            frame(0x82, b"short"),
            frame(0x89, b"ping"),
            frame(0x82, &long[..300]),
            frame(0x81, &long),
            frame(0x82, b""),
            frame(0x88, &1001_u16.to_be_bytes()),
        ]
        .concat();
        let end = Stamp::END;
        let stamps = [
            (b"short".to_vec(), 5),
            (b"ping".to_vec(), 1_000_000),
            (long[..end].to_vec(), 300),
            (long[..end].to_vec(), 70_000),
            (Vec::new(), 0),
            (Vec::new(), 1001),
        ];
        for piece in [1, 2, 3, 7, 41, 500, 17_000, bytes.len()] {
            let decoder = Decoder::Frames(Frames::of_stamps());
            assert_eq!(told(decoder, &bytes, piece), stamps, "in pieces of {piece}");
            let whole = told(Decoder::Frames(Frames::whole()), &bytes, piece.max(40));
            assert_eq!(whole[3], (long.clone(), 70_000));
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bytes in [
            &[0x02, 1, 0][..],
            &[0xc2, 1, 0],
            &[0x82, 0x81, 0, 0, 0, 0, 0],
            &[0x83, 0],
        ] {
            let mut frames = Frames::of_stamps();
            assert!(frames.feed(bytes, &mut |_| {}).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_body_in_an_event_is_found_however_its_bytes_are_cut() {
        let mut expected = Vec::new();
        let mut stream = String::from("data: {\"message\":\"ready\"}\n\n: keepalive\n\n");
        for size in [41, 42, 43, 44, 1_000] {
            let payload: Vec<u8> = (0..size).map(|n| n as u8).collect();
            expected.push((payload[..size.min(42)].to_vec(), size as u64));
            let body = STANDARD.encode(&payload);
            stream += &format!("id: 7\ndata: {{\"bodyB\":\"{body}\",\"host\":\"h\"}}\n\n");
        }
        for piece in [1, 5, 100, stream.len()] {
            let decoder = Decoder::Events(EventLines::default());
            assert_eq!(told(decoder, stream.as_bytes(), piece), expected);
        }
    }
}

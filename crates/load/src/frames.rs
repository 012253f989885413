//! What a server sends its subscribers, taken apart as it comes: WebSocket frames, or the lines of
//! an event stream.
//!
//! Bytes go through one buffer that all subscribers of a thread share, so what a decoder keeps
//! between two reads is small: of a payload only its beginning is looked at, the rest is skipped.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::stamp::Stamp;

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

/// WebSocket frames, of which the first bytes of each payload are kept.
#[derive(Debug)]
pub(crate) struct Frames {
    keep: u64,
    skip: u64,
    partial: Vec<u8>,
}

/// How much is added to a partial frame at a time.
const STEP: usize = 16 << 10;

impl Frames {
    /// Keeps as much of a payload as its stamp takes.
    pub(crate) fn of_stamps() -> Self {
        Self::keeping(Stamp::END as u64)
    }

    /// Keeps payloads whole.
    pub(crate) fn whole() -> Self {
        Self::keeping(u64::MAX)
    }

    fn keeping(keep: u64) -> Self {
        Self {
            keep,
            skip: 0,
            partial: Vec::new(),
        }
    }

    fn feed(&mut self, mut bytes: &[u8], tell: &mut impl FnMut(Said<'_>)) -> Result<(), Malformed> {
        loop {
            let skipped = self.skip.min(bytes.len() as u64);
            self.skip -= skipped;
            bytes = &bytes[skipped as usize..];
            if bytes.is_empty() {
                return Ok(());
            }
            let before = self.partial.len();
            let head = if before == 0 {
                Head::parse(bytes, self.keep)?
            } else {
                self.partial
                    .extend_from_slice(&bytes[..bytes.len().min(STEP)]);
                Head::parse(&self.partial, self.keep)?
            };
            let Some(head) = head else {
                if before == 0 {
                    self.partial.extend_from_slice(bytes);
                    return Ok(());
                }
                bytes = &bytes[self.partial.len() - before..];
                continue;
            };
            let frame = if before == 0 { bytes } else { &self.partial };
            head.tell(frame, tell)?;
            self.skip = head.skip();
            bytes = &bytes[head.end - before..];
            // Thousands of idle subscribers must not each hold a buffer.
            self.partial = Vec::new();
        }
    }
}

/// The beginning of a frame, as far as it is looked at.
struct Head {
    opcode: OpCode,
    payload: usize,
    end: usize,
    length: u64,
}

impl Head {
    fn parse(bytes: &[u8], keep: u64) -> Result<Option<Self>, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Malformed)?;
        let Some((header, length)) = parsed else {
            return Ok(None);
        };
        let reserved = header.rsv1 || header.rsv2 || header.rsv3;
        if !header.is_final || reserved || header.mask.is_some() {
            return Err(Malformed);
        }
        let payload = cursor.position() as usize;
        let kept = match header.opcode {
            OpCode::Control(_) if length > 125 => return Err(Malformed),
            OpCode::Control(_) => length,
            OpCode::Data(_) => length.min(keep),
        };
        let end = payload + usize::try_from(kept).map_err(|_| Malformed)?;
        let head = Self {
            opcode: header.opcode,
            payload,
            end,
            length,
        };
        Ok((bytes.len() >= end).then_some(head))
    }

    fn skip(&self) -> u64 {
        self.length - (self.end - self.payload) as u64
    }

    fn tell(&self, frame: &[u8], tell: &mut impl FnMut(Said<'_>)) -> Result<(), Malformed> {
        let payload = &frame[self.payload..self.end];
        match self.opcode {
            OpCode::Data(Data::Binary | Data::Text) => tell(Said::Payload(payload, self.length)),
            OpCode::Control(Control::Ping) => tell(Said::Ping(payload)),
            OpCode::Control(Control::Close) => {
                let code = payload
                    .first_chunk()
                    .map_or(1005, |code| u16::from_be_bytes(*code));
                tell(Said::Close(code));
            }
            OpCode::Control(Control::Pong) => {}
            _ => return Err(Malformed),
        }
        Ok(())
    }
}

/// The answer to a ping. Its mask is zero: it hides nothing, and no proxy is in between.
pub(crate) fn pong(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x8a, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

/// Lines of an event stream, with a payload in base64 in the JSON of each event.
#[derive(Debug, Default)]
pub(crate) struct EventLines {
    line: Vec<u8>,
}

const BODY: &[u8] = b"\"bodyB\":\"";

impl EventLines {
    fn feed(&mut self, mut bytes: &[u8], tell: &mut impl FnMut(Said<'_>)) -> Result<(), Malformed> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            if self.line.is_empty() {
                Self::line(&bytes[..end], tell)?;
            } else {
                self.line.extend_from_slice(&bytes[..end]);
                Self::line(&self.line, tell)?;
                self.line = Vec::new();
            }
            bytes = &bytes[end + 1..];
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn line(line: &[u8], tell: &mut impl FnMut(Said<'_>)) -> Result<(), Malformed> {
        let Some(at) = line.windows(BODY.len()).position(|part| part == BODY) else {
            // Comments, ids, and events that say that the stream has begun.
            return Ok(());
        };
        let text = &line[at + BODY.len()..];
        let end = text
            .iter()
            .position(|byte| *byte == b'"')
            .ok_or(Malformed)?;
        let text = &text[..end];
        let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
        let length = text.len() / 4 * 3 - padding.min(2);
        let kept = &text[..text.len().min(Stamp::END.div_ceil(3) * 4)];
        let mut start = [0; Stamp::END.div_ceil(3) * 3];
        let decoded = STANDARD
            .decode_slice(kept, &mut start)
            .map_err(|_| Malformed)?;
        tell(Said::Payload(&start[..decoded], length as u64));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

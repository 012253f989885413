//! WebSocket frames of a server.

use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::decoder::{Malformed, Said};
use crate::stamp::Stamp;

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

    /// Tells everything that is complete with these bytes.
    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        tell: &mut impl FnMut(Said<'_>),
    ) -> Result<(), Malformed> {
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

//! An event stream as gosmee makes it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::decoder::{Malformed, Said};
use crate::stamp::Stamp;

/// Lines of an event stream, with a payload in base64 in the JSON of each event.
#[derive(Debug, Default)]
pub(crate) struct EventLines {
    line: Vec<u8>,
}

const BODY: &[u8] = b"\"bodyB\":\"";

impl EventLines {
    /// Tells everything that is complete with these bytes.
    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        tell: &mut impl FnMut(Said<'_>),
    ) -> Result<(), Malformed> {
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

//! What goes over a subscriber's WebSocket: the message's bytes behind a frame header.
//!
//! A server's frames are not masked, so one encoding serves every subscriber. It is made the
//! first time somebody wants it.

use crate::cursor::Epoch;
use crate::event::frame_start;
use crate::message::Message;

/// How a subscriber wants its messages framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The payload alone, for a subscription to one topic.
    Plain,
    /// The topic, NUL, the payload: for a subscription to a prefix.
    Prefixed,
    /// What is known of the message as JSON, NUL, the payload: for who asked for events. The
    /// epoch is the log's.
    Event(Epoch),
}

/// Takes a prefixed frame apart, at the first NUL only: payloads may have more.
#[must_use]
pub fn split_prefixed(frame: &[u8]) -> Option<(&str, &[u8])> {
    let at = frame.iter().position(|byte| *byte == 0)?;
    let topic = str::from_utf8(&frame[..at]).ok()?;
    Some((topic, &frame[at + 1..]))
}

/// One whole frame with this payload, for what is not a message.
#[must_use]
pub fn encode(payload: &[u8]) -> Vec<u8> {
    whole(FINAL_BINARY, payload)
}

/// One whole frame with this text, for other programs' protocols.
#[must_use]
pub fn encode_text(text: &str) -> Vec<u8> {
    whole(FINAL_TEXT, text.as_bytes())
}

fn whole(start: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(start, payload.len());
    frame.extend_from_slice(payload);
    frame
}

/// What goes before a message's payload on the wire: the frame's header, and what the form puts
/// before the payload.
pub(crate) fn head(form: Form, message: &Message) -> Box<[u8]> {
    let start = match form {
        Form::Plain => Vec::new(),
        Form::Prefixed => [message.topic().as_str().as_bytes(), b"\0"].concat(),
        Form::Event(epoch) => frame_start(message, epoch),
    };
    let mut head = header(FINAL_BINARY, start.len() + message.body_in(form).len());
    head.extend(start);
    head.into()
}

/// The header of one final frame (RFC 6455, section 5.2).
fn header(start: u8, length: usize) -> Vec<u8> {
    let mut header = Vec::with_capacity(10);
    header.push(start);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..=125), _) => header.push(length),
        (_, Ok(length)) => {
            header.push(126);
            header.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            header.push(127);
            header.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    header
}

/// FIN, and opcode 1.
const FINAL_TEXT: u8 = 0x81;

/// FIN, and opcode 2.
const FINAL_BINARY: u8 = 0x82;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_the_length_in_the_shortest_way() {
        for (payload, header) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            assert_eq!(super::header(FINAL_BINARY, payload), header);
        }
        assert_eq!(encode(b"hi"), b"\x82\x02hi");
        assert_eq!(encode_text("hi"), b"\x81\x02hi");
    }

    #[test]
    fn a_prefixed_frame_is_split_at_its_first_nul() {
        assert_eq!(split_prefixed(b"a/b\0x\0y"), Some(("a/b", &b"x\0y"[..])));
        assert_eq!(split_prefixed(b"a\0"), Some(("a", &b""[..])));
        assert_eq!(split_prefixed(b"a"), None);
        assert_eq!(split_prefixed(b"\xff\0x"), None);
    }
}

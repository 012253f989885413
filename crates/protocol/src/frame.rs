//! What goes over a subscriber's WebSocket: the message's bytes behind a frame header.
//!
//! A server's frames are not masked, so one encoding serves every subscriber. It is made the
//! first time somebody wants it.

/// How a subscriber wants its messages framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The payload alone, for a subscription to one topic.
    Plain,
    /// The topic, NUL, the payload: for a subscription to a prefix.
    Prefixed,
}

/// Takes a prefixed frame apart, at the first NUL only: payloads may have more.
#[must_use]
pub fn split_prefixed(frame: &[u8]) -> Option<(&str, &[u8])> {
    let at = frame.iter().position(|byte| *byte == 0)?;
    let topic = str::from_utf8(&frame[..at]).ok()?;
    Some((topic, &frame[at + 1..]))
}

/// What comes before the payload on the wire: the header of one final binary frame (RFC 6455,
/// section 5.2), and the topic where the form has it.
pub(crate) fn head(form: Form, topic: &str, payload: usize) -> Box<[u8]> {
    let prefix = match form {
        Form::Plain => 0,
        Form::Prefixed => topic.len() + 1,
    };
    let length = (prefix + payload) as u64;
    let mut head = Vec::with_capacity(10 + prefix);
    head.push(FINAL_BINARY);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..=125), _) => head.push(length),
        (_, Ok(length)) => {
            head.push(126);
            head.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            head.push(127);
            head.extend_from_slice(&length.to_be_bytes());
        }
    }
    if form == Form::Prefixed {
        head.extend_from_slice(topic.as_bytes());
        head.push(0);
    }
    head.into()
}

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
            assert_eq!(&*head(Form::Plain, "t", payload), header);
        }
        assert_eq!(&*head(Form::Prefixed, "a/b", 2), b"\x82\x06a/b\0");
    }

    #[test]
    fn a_prefixed_frame_is_split_at_its_first_nul() {
        assert_eq!(split_prefixed(b"a/b\0x\0y"), Some(("a/b", &b"x\0y"[..])));
        assert_eq!(split_prefixed(b"a\0"), Some(("a", &b""[..])));
        assert_eq!(split_prefixed(b"a"), None);
        assert_eq!(split_prefixed(b"\xff\0x"), None);
    }
}

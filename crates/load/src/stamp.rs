//! What a payload says of itself: who published it, as which, and when.
//!
//! The payload is JSON, because gosmee takes nothing else, with all that is read at a fixed place
//! near its beginning, so that a subscriber looks at some forty bytes whatever the size.

/// One message's identity and its send time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which run it belongs to, so that nothing left over from another is counted.
    pub(crate) run: u16,
    /// Which publisher sent it.
    pub(crate) publisher: u16,
    /// The number of its topic.
    pub(crate) topic: u32,
    /// Which of this publisher's messages on this topic it is, from 0 on.
    pub(crate) sequence: u32,
    /// When it was sent, or in an open loop, when it should have been.
    pub(crate) sent: u64,
}

const OPENING: &[u8] = b"{\"h\":\"";
const CLOSING: &[u8] = b"\"}";
/// Digits of: run, publisher, topic, sequence, time.
const DIGITS: [usize; 5] = [4, 4, 5, 8, 13];
const STAMP_LENGTH: usize = 34;

impl Stamp {
    /// How much of a payload has to be kept to read its stamp.
    pub(crate) const END: usize = OPENING.len() + STAMP_LENGTH;
    /// The smallest payload that has room for a stamp.
    pub(crate) const MIN_SIZE: usize = Self::END + CLOSING.len();
    /// More topics than this have no number.
    pub(crate) const MAX_TOPICS: u32 = 1 << 20;

    /// A payload of this size, with room for a stamp.
    pub(crate) fn blank(size: usize) -> Vec<u8> {
        let size = size.max(Self::MIN_SIZE);
        let mut payload = vec![b'x'; size];
        payload[..OPENING.len()].copy_from_slice(OPENING);
        payload[size - CLOSING.len()..].copy_from_slice(CLOSING);
        payload
    }

    /// Writes itself into a blank payload, or over another stamp.
    pub(crate) fn write(&self, payload: &mut [u8]) {
        let mut rest = &mut payload[OPENING.len()..Self::END];
        for (mut value, digits) in self.fields().into_iter().zip(DIGITS) {
            let (place, behind) = rest.split_at_mut(digits);
            for digit in place.iter_mut().rev() {
                *digit = b"0123456789abcdef"[(value & 15) as usize];
                value >>= 4;
            }
            rest = behind;
        }
    }

    /// Reads the stamp at the beginning of a payload; `None` where there is none.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let mut rest = payload.get(..Self::END)?.strip_prefix(OPENING)?;
        let mut values = [0; DIGITS.len()];
        for (value, digits) in values.iter_mut().zip(DIGITS) {
            let (place, behind) = rest.split_at(digits);
            for digit in place {
                *value = *value << 4 | u64::from(char::from(*digit).to_digit(16)?);
            }
            rest = behind;
        }
        let [run, publisher, topic, sequence, sent] = values;
        Some(Self {
            run: run.try_into().ok()?,
            publisher: publisher.try_into().ok()?,
            topic: topic.try_into().ok()?,
            sequence: sequence.try_into().ok()?,
            sent,
        })
    }

    fn fields(&self) -> [u64; DIGITS.len()] {
        [
            self.run.into(),
            self.publisher.into(),
            self.topic.into(),
            self.sequence.into(),
            self.sent,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        run: 0xbeef,
        publisher: 7,
        topic: Stamp::MAX_TOPICS - 1,
        sequence: u32::MAX,
        sent: 0x000f_1234_5678_9abc,
    };

    #[test]
    fn a_stamp_is_read_as_it_was_written_and_the_payload_is_json() {
        for size in [0, Stamp::MIN_SIZE, 1_024] {
            let mut payload = Stamp::blank(size);
            assert_eq!(payload.len(), size.max(Stamp::MIN_SIZE));
            STAMP.write(&mut payload);
            assert_eq!(Stamp::read(&payload), Some(STAMP));
            assert_eq!(Stamp::read(&payload[..Stamp::END]), Some(STAMP));
            assert!(serde_json::from_slice::<serde_json::Value>(&payload).is_ok());
        }
    }

    #[test]
    fn what_is_no_stamp_is_not_read() {
        let mut payload = Stamp::blank(100);
        assert_eq!(Stamp::read(&payload), None, "no digits yet");
        STAMP.write(&mut payload);
        assert_eq!(Stamp::read(&payload[..Stamp::END - 1]), None, "cut off");
        payload[0] = b'[';
        assert_eq!(Stamp::read(&payload), None, "something else");
    }
}

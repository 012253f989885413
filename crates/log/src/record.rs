//! One message as it is on disk: a head of fixed size, then the lengths of the fields, then the
//! fields, the body last.
//!
//! Head and contents have a checksum each, seeded by the segment, so that a record of another
//! segment or of another log is no record here. A head that is whole is enough to learn that a
//! record was written, whatever became of its contents.
//!
//! Every record says how far each lane was durable when its batch was written. That is how
//! recovery tells a batch that never got acknowledged from damage to one that was.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use crc32c::crc32c_append;
use hookbot_protocol::{Format, Headers, Message, Offset, Publication, Topic};

/// What the log adds to a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) offset: Offset,
    /// Microseconds since 1970.
    pub(crate) time: u64,
    /// The last offset of each lane, in the order of [`crate::lane::Space`], before the batch
    /// that this record is of.
    pub(crate) durable: [Offset; 2],
}

/// The part of a record that can be read alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    /// Bytes of the whole record.
    pub(crate) size: usize,
    pub(crate) stamp: Stamp,
    contents_crc: u32,
    format: u8,
    has_delivery_id: bool,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    #[error("the record's head is damaged")]
    Head,
    #[error("the record ends before its end")]
    Short,
    #[error("the record's contents are damaged")]
    Contents,
    #[error("the record's contents make no message")]
    Malformed,
    #[error("another record is in this place")]
    Other,
}

/// How many bytes a publication takes on disk.
pub(crate) fn size(publication: &Publication) -> usize {
    let lengths: usize = fields(publication).iter().sum();
    HEAD + LENGTHS + lengths + publication.body.len()
}

/// Appends everything but the body, which goes right behind.
pub(crate) fn encode(publication: &Publication, stamp: Stamp, seed: u32, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + HEAD, 0);
    for length in fields(publication) {
        put(out, length);
    }
    out.extend_from_slice(publication.topic.as_str().as_bytes());
    out.extend_from_slice(publication.method.as_bytes());
    out.extend_from_slice(publication.query.as_bytes());
    out.extend_from_slice(publication.address.as_bytes());
    out.extend_from_slice(publication.delivery_id.as_deref().unwrap_or("").as_bytes());
    for table in [&publication.headers, &publication.attributes] {
        for (name, value) in table.iter() {
            put(out, name.len());
            put(out, value.len());
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(value);
        }
    }

    let fields = &out[start + HEAD..];
    let size = fields.len() + publication.body.len();
    let contents_crc = crc32c_append(crc32c_append(seed, fields), &publication.body);
    let format = match publication.format {
        Format::Raw => RAW,
        Format::Github => GITHUB,
    };
    let head = &mut out[start..start + HEAD];
    let size = u32::try_from(size).expect("a record was measured before");
    head[0..4].copy_from_slice(&size.to_le_bytes());
    head[8..12].copy_from_slice(&contents_crc.to_le_bytes());
    head[12] = format;
    head[13] = publication.delivery_id.is_some().into();
    head[16..24].copy_from_slice(&stamp.offset.0.to_le_bytes());
    head[24..32].copy_from_slice(&stamp.time.to_le_bytes());
    head[32..40].copy_from_slice(&stamp.durable[0].0.to_le_bytes());
    head[40..48].copy_from_slice(&stamp.durable[1].0.to_le_bytes());
    let crc = head_crc(head, seed);
    head[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the head that `bytes` begin with.
pub(crate) fn decode_head(bytes: &[u8], seed: u32) -> Result<Head, Damage> {
    let head = bytes.get(..HEAD).ok_or(Damage::Short)?;
    let contents = read_u32(head, 0) as usize;
    // Cheap, and true of hardly any text: a search for the next record depends on it.
    if !(LENGTHS..=MAX_SIZE).contains(&contents) {
        return Err(Damage::Head);
    }
    if read_u32(head, 4) != head_crc(head, seed) || head[12] > GITHUB || head[13] > 1 {
        return Err(Damage::Head);
    }
    Ok(Head {
        size: HEAD + contents,
        stamp: Stamp {
            offset: Offset(read_u64(head, 16)),
            time: read_u64(head, 24),
            durable: [Offset(read_u64(head, 32)), Offset(read_u64(head, 40))],
        },
        contents_crc: read_u32(head, 8),
        format: head[12],
        has_delivery_id: head[13] == 1,
    })
}

/// What an index needs to know of a record.
pub(crate) struct Parts<'a> {
    pub(crate) topic: &'a str,
    pub(crate) delivery_id: Option<&'a str>,
    pub(crate) body: &'a [u8],
}

/// Checks one whole record.
pub(crate) fn check<'a>(bytes: &'a [u8], head: &Head, seed: u32) -> Result<Parts<'a>, Damage> {
    let contents = bytes.get(HEAD..head.size).ok_or(Damage::Short)?;
    if crc32c_append(seed, contents) != head.contents_crc {
        return Err(Damage::Contents);
    }
    let mut fields = [&[][..]; 7];
    let mut rest = &contents[LENGTHS..];
    for (at, field) in fields.iter_mut().enumerate() {
        let length = read_u32(contents, at * 4) as usize;
        (*field, rest) = rest.split_at_checked(length).ok_or(Damage::Malformed)?;
    }
    Ok(Parts {
        topic: text(fields[0])?,
        delivery_id: match head.has_delivery_id {
            true => Some(text(fields[4])?),
            false => None,
        },
        body: rest,
    })
}

/// Makes the message of one whole record that [`check`] has passed.
pub(crate) fn decode(bytes: &Bytes, head: &Head) -> Result<Message, Damage> {
    let contents = bytes.slice(HEAD..head.size);
    let mut rest = &contents[LENGTHS..];
    let mut field = |at: usize| -> Result<&[u8], Damage> {
        let length = read_u32(&contents, at * 4) as usize;
        let (field, tail) = rest.split_at_checked(length).ok_or(Damage::Malformed)?;
        rest = tail;
        Ok(field)
    };
    let topic = Topic::parse(text(field(0)?)?).map_err(|_| Damage::Malformed)?;
    let method = text(field(1)?)?.into();
    let query = text(field(2)?)?.into();
    let address = text(field(3)?)?.into();
    let delivery_id = text(field(4)?)?;
    let headers = table(field(5)?)?;
    let attributes = table(field(6)?)?;
    let publication = Publication {
        topic,
        method,
        query,
        address,
        headers,
        body: body(bytes, rest),
        format: if head.format == GITHUB {
            Format::Github
        } else {
            Format::Raw
        },
        delivery_id: head.has_delivery_id.then(|| delivery_id.into()),
        attributes,
    };
    let time = system_time(head.stamp.time);
    Ok(Message::new(publication, head.stamp.offset, time))
}

/// Microseconds since 1970, and 0 before.
pub(crate) fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros().try_into().unwrap_or(u64::MAX))
}

/// The inverse of [`micros`].
pub(crate) fn system_time(micros: u64) -> SystemTime {
    let since = Duration::from_micros(micros);
    SystemTime::UNIX_EPOCH
        .checked_add(since)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A large body stays where it was read to; a small one must not keep a large buffer alive.
fn body(bytes: &Bytes, body: &[u8]) -> Bytes {
    if body.len() > bytes.len() / 2 {
        bytes.slice_ref(body)
    } else {
        Bytes::copy_from_slice(body)
    }
}

/// The lengths of all fields but the body, in the order they are written.
fn fields(publication: &Publication) -> [usize; 7] {
    let table = |table: &Headers| -> usize {
        let sizes = table
            .iter()
            .map(|(name, value)| 8 + name.len() + value.len());
        sizes.sum()
    };
    [
        publication.topic.as_str().len(),
        publication.method.len(),
        publication.query.len(),
        publication.address.len(),
        publication.delivery_id.as_deref().map_or(0, str::len),
        table(&publication.headers),
        table(&publication.attributes),
    ]
}

fn table(mut bytes: &[u8]) -> Result<Headers, Damage> {
    let mut headers = Headers::default();
    while !bytes.is_empty() {
        let (lengths, rest) = bytes.split_at_checked(8).ok_or(Damage::Malformed)?;
        let (name, rest) = rest
            .split_at_checked(read_u32(lengths, 0) as usize)
            .ok_or(Damage::Malformed)?;
        let (value, rest) = rest
            .split_at_checked(read_u32(lengths, 4) as usize)
            .ok_or(Damage::Malformed)?;
        if name.len() > usize::from(u16::MAX) {
            return Err(Damage::Malformed);
        }
        headers.push(text(name)?, value);
        bytes = rest;
    }
    Ok(headers)
}

fn text(bytes: &[u8]) -> Result<&str, Damage> {
    str::from_utf8(bytes).map_err(|_| Damage::Malformed)
}

fn head_crc(head: &[u8], seed: u32) -> u32 {
    crc32c_append(crc32c_append(seed, &head[..4]), &head[8..HEAD])
}

fn put(out: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("a record was measured before");
    out.extend_from_slice(&length.to_le_bytes());
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Bytes of a head.
pub(crate) const HEAD: usize = 48;

/// Bytes of the lengths behind the head.
const LENGTHS: usize = 28;

/// The most that a record may take. A damaged length asks for no more memory than this.
pub(crate) const MAX_SIZE: usize = 256 << 20;

const RAW: u8 = 0;
const GITHUB: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STAMP: Stamp = Stamp {
        offset: Offset(7),
        time: 1_700_000_000_000_001,
        durable: [Offset(4), Offset(5)],
    };

    fn publication(text: &str, body: &[u8]) -> Publication {
        let table = [(text, body), ("", b"")];
        Publication {
            method: "POST".into(),
            query: text.into(),
            address: "192.0.2.1".into(),
            headers: table.into_iter().collect(),
            format: Format::Github,
            delivery_id: Some(text.into()),
            attributes: table.into_iter().rev().collect(),
            ..Publication::new(Topic::parse("a/b").unwrap(), body.to_vec())
        }
    }

    fn written(publication: &Publication) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(publication, STAMP, 1, &mut bytes);
        bytes.extend_from_slice(&publication.body);
        bytes
    }

    fn read(bytes: Vec<u8>, seed: u32) -> Result<Message, Damage> {
        let head = decode_head(&bytes, seed)?;
        check(&bytes, &head, seed)?;
        decode(&bytes.into(), &head)
    }

    proptest! {
        #[test]
        fn a_record_reads_as_it_was_written(
            text in ".{0,20}",
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let publication = publication(&text, &body);
            let bytes = written(&publication);
            prop_assert_eq!(bytes.len(), size(&publication));
            prop_assert_eq!(decode_head(&bytes, 1).unwrap().stamp, STAMP);
            let message = read(bytes, 1).unwrap();
            prop_assert_eq!(micros(message.time), STAMP.time);
            prop_assert_eq!(message.offset, STAMP.offset);
            prop_assert_eq!(message.publication, publication);
        }

        #[test]
        fn no_bytes_panic_even_with_the_right_checksums(
            mut bytes in prop::collection::vec(any::<u8>(), HEAD + LENGTHS..300),
            small in prop::collection::vec(0u32..40, 7),
        ) {
            let _ = read(bytes.clone(), 1);
            bytes[12] &= 1;
            bytes[13] &= 1;
            for (at, length) in small.iter().enumerate() {
                bytes[HEAD + at * 4..][..4].copy_from_slice(&length.to_le_bytes());
            }
            let length = u32::try_from(bytes.len() - HEAD).unwrap();
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            let crc = crc32c_append(1, &bytes[HEAD..]);
            bytes[8..12].copy_from_slice(&crc.to_le_bytes());
            let crc = head_crc(&bytes[..HEAD], 1);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            let _ = read(bytes, 1);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_missing_byte_is_noticed() {
        let bytes = written(&publication("x", b"body"));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(read(bytes, 1).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(read(bytes[..length].to_vec(), 1).is_err());
        }
        assert!(read(bytes, 2).is_err(), "of another segment");
    }
}

//! The index of a sealed segment, in a file beside it.
//!
//! It can be made again from the segment at any time, so a sidecar that is missing, damaged or
//! another segment's is simply replaced.

use std::io::{self, ErrorKind};

use crc32c::crc32c_append;
use hookbot_protocol::{Filter, Offset};

use crate::bloom::{self, Bloom};
use crate::disk::{Disk, read_exact};
use crate::index::{Growing, Index};
use crate::meta::Meta;
use crate::record::{read_u32, read_u64};
use crate::segment::{Extent, Place, hash_topic};

/// What stays in memory of a sealed segment.
#[derive(Debug, Clone)]
pub(crate) struct Summary {
    pub(crate) extent: Extent,
    pub(crate) sidecar_bytes: u64,
    /// Hashes of all topics, of their ancestors and of all deliveries.
    pub(crate) bloom: Bloom,
}

/// The whole of a sidecar.
#[derive(Debug)]
pub(crate) struct Frozen {
    extent: Extent,
    base: Offset,
    offsets: Vec<u32>,
    positions: Vec<u32>,
    /// All topics, sorted, one behind the other.
    texts: String,
    /// Where each topic ends in `texts`, and where its numbers end in `postings`.
    text_ends: Vec<u32>,
    posting_ends: Vec<u32>,
    postings: Vec<u32>,
    /// Sorted by hash.
    deliveries: Vec<(u64, u32)>,
}

impl Frozen {
    /// How much memory it takes, nearly.
    pub(crate) fn size(&self) -> usize {
        self.postings.len() * 12
            + self.texts.len()
            + self.text_ends.len() * 8
            + self.deliveries.len() * 16
    }

    fn topic(&self, at: usize) -> &str {
        let start = at
            .checked_sub(1)
            .map_or(0, |before| self.text_ends[before] as usize);
        &self.texts[start..self.text_ends[at] as usize]
    }

    fn posting(&self, at: usize) -> &[u32] {
        let start = at
            .checked_sub(1)
            .map_or(0, |before| self.posting_ends[before] as usize);
        &self.postings[start..self.posting_ends[at] as usize]
    }

    /// The first topic that is not less than `text`.
    fn first_topic(&self, text: &str) -> usize {
        let (mut low, mut high) = (0, self.text_ends.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.topic(middle) < text {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

impl Index for Frozen {
    fn extent(&self) -> &Extent {
        &self.extent
    }

    fn offset(&self, number: u32) -> Offset {
        Offset(self.base.0 + u64::from(self.offsets[number as usize]))
    }

    fn position(&self, number: u32) -> u64 {
        let position = self.positions.get(number as usize);
        position.map_or(self.extent.end, |position| u64::from(*position))
    }

    fn postings(&self, filter: &Filter) -> Vec<&[u32]> {
        let text = filter.as_str();
        let matches = |topic: &str| match filter {
            Filter::Topic(_) => topic == text,
            Filter::Prefix(_) => topic.starts_with(text),
        };
        (self.first_topic(text)..self.text_ends.len())
            .take_while(|at| matches(self.topic(*at)))
            .map(|at| self.posting(at))
            .collect()
    }

    fn delivery(&self, hash: u64) -> Option<u32> {
        let at = self
            .deliveries
            .binary_search_by_key(&hash, |(hash, _)| *hash);
        Some(self.deliveries[at.ok()?].1)
    }
}

/// The bytes of the sidecar, and what stays in memory.
pub(crate) fn encode(index: &Growing, seed: u32, meta: &Meta) -> (Vec<u8>, Summary) {
    let mut hashes: Vec<u64> = index.deliveries.keys().copied().collect();
    for topic in index.topics.keys() {
        hashes.push(hash_topic(meta, topic));
        hashes.extend(ancestors(topic).map(|ancestor| hash_topic(meta, ancestor)));
    }
    hashes.sort_unstable();
    hashes.dedup();
    let bloom = Bloom::new(hashes.iter().copied());

    let texts: usize = index.topics.keys().map(|topic| topic.len()).sum();
    let Extent {
        count,
        first,
        last,
        end,
        first_time,
        min_time,
        max_time,
    } = index.extent;
    let mut bytes = Vec::new();
    for number in [
        MAGIC,
        VERSION,
        count,
        texts as u32,
        index.topics.len() as u32,
        index.deliveries.len() as u32,
        bloom.as_bytes().len() as u32,
        0,
    ] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for number in [
        index.base.0,
        first.0,
        last.0,
        end,
        first_time,
        min_time,
        max_time,
    ] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(bloom.as_bytes());
    let crc = crc32c_append(seed, &bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());

    let body = bytes.len();
    let mut put = |number: u32| bytes.extend_from_slice(&number.to_le_bytes());
    index.offsets.iter().copied().for_each(&mut put);
    index.positions.iter().copied().for_each(&mut put);
    let mut ends = (0, 0);
    for (topic, numbers) in &index.topics {
        ends = (ends.0 + topic.len(), ends.1 + numbers.len());
        put(ends.0 as u32);
        put(ends.1 as u32);
    }
    index.topics.values().flatten().copied().for_each(&mut put);
    let mut deliveries: Vec<_> = index.deliveries.iter().collect();
    deliveries.sort_unstable();
    for (hash, number) in deliveries {
        bytes.extend_from_slice(&hash.to_le_bytes());
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for topic in index.topics.keys() {
        bytes.extend_from_slice(topic.as_bytes());
    }
    let crc = crc32c_append(seed, &bytes[body..]);
    bytes.extend_from_slice(&crc.to_le_bytes());
    let summary = Summary {
        extent: index.extent,
        sidecar_bytes: bytes.len() as u64,
        bloom,
    };
    (bytes, summary)
}

/// Reads what stays in memory. Fails if the file is not this segment's sidecar.
pub(crate) fn read_summary(disk: &dyn Disk, place: Place, seed: u32) -> io::Result<Summary> {
    let file = disk.open(&place.index_name())?;
    let mut head = vec![0; HEAD];
    read_exact(&*file, &mut head, 0)?;
    let bloom = read_u32(&head, 24) as usize;
    if bloom > bloom::MAX_BYTES {
        return Err(ErrorKind::InvalidData.into());
    }
    head.resize(HEAD + bloom + 4, 0);
    read_exact(&*file, &mut head[HEAD..], HEAD as u64)?;
    let sizes = Sizes::checked(&head, seed).ok_or(ErrorKind::InvalidData)?;
    if file.length()? != sizes.whole() as u64 {
        return Err(ErrorKind::InvalidData.into());
    }
    let bloom = Bloom::from_bytes(&head[HEAD..HEAD + bloom]).ok_or(ErrorKind::InvalidData)?;
    Ok(Summary {
        extent: extent(&head),
        sidecar_bytes: sizes.whole() as u64,
        bloom,
    })
}

/// Reads all of it. Fails if any of it is damaged.
pub(crate) fn read(disk: &dyn Disk, place: Place, seed: u32) -> io::Result<Frozen> {
    let file = disk.open(&place.index_name())?;
    let length = usize::try_from(file.length()?).map_err(|_| ErrorKind::InvalidData)?;
    if length > MAX_SIDECAR {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    read_exact(&*file, &mut bytes, 0)?;
    decode(&bytes, seed).ok_or_else(|| ErrorKind::InvalidData.into())
}

pub(crate) fn decode(bytes: &[u8], seed: u32) -> Option<Frozen> {
    let sizes = Sizes::checked(bytes, seed)?;
    if bytes.len() != sizes.whole() {
        return None;
    }
    let (mut rest, crc) = bytes[sizes.head()..].split_last_chunk::<4>()?;
    if crc32c_append(seed, rest) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut take = |length: usize| {
        let (section, tail) = rest.split_at(length);
        rest = tail;
        section
    };
    let numbers = |section: &[u8]| -> Vec<u32> {
        section
            .chunks_exact(4)
            .map(|chunk| read_u32(chunk, 0))
            .collect()
    };
    let offsets = numbers(take(sizes.count * 4));
    let positions = numbers(take(sizes.count * 4));
    let ends = numbers(take(sizes.topics * 8));
    let postings = numbers(take(sizes.count * 4));
    let deliveries = take(sizes.deliveries * 12).chunks_exact(12);
    let deliveries = deliveries
        .map(|chunk| (read_u64(chunk, 0), read_u32(chunk, 8)))
        .collect();
    Some(Frozen {
        extent: extent(bytes),
        base: Offset(read_u64(bytes, 32)),
        offsets,
        positions,
        texts: String::from_utf8(rest.to_vec()).ok()?,
        text_ends: ends.iter().step_by(2).copied().collect(),
        posting_ends: ends.iter().skip(1).step_by(2).copied().collect(),
        postings,
        deliveries,
    })
}

/// How long the sections are.
struct Sizes {
    count: usize,
    texts: usize,
    topics: usize,
    deliveries: usize,
    bloom: usize,
}

impl Sizes {
    /// Reads them from a head whose checksum is right; so they are as they were written.
    fn checked(bytes: &[u8], seed: u32) -> Option<Self> {
        let head = bytes.get(..HEAD)?;
        let size = |at| read_u32(head, at) as usize;
        if (read_u32(head, 0), read_u32(head, 4)) != (MAGIC, VERSION) {
            return None;
        }
        let sizes = Self {
            count: size(8),
            texts: size(12),
            topics: size(16),
            deliveries: size(20),
            bloom: size(24),
        };
        let (head, crc) = bytes.get(..sizes.head())?.split_last_chunk::<4>()?;
        (crc32c_append(seed, head) == u32::from_le_bytes(*crc)).then_some(sizes)
    }

    fn head(&self) -> usize {
        HEAD + self.bloom + 4
    }

    fn whole(&self) -> usize {
        self.head() + self.count * 12 + self.topics * 8 + self.deliveries * 12 + self.texts + 4
    }
}

fn extent(head: &[u8]) -> Extent {
    Extent {
        count: read_u32(head, 8),
        first: Offset(read_u64(head, 40)),
        last: Offset(read_u64(head, 48)),
        end: read_u64(head, 56),
        first_time: read_u64(head, 64),
        min_time: read_u64(head, 72),
        max_time: read_u64(head, 80),
    }
}

/// The prefixes that cover a topic, as [`hookbot_protocol::Topic::ancestors`] has them.
fn ancestors(topic: &str) -> impl Iterator<Item = &str> {
    topic.match_indices('/').map(|(at, _)| &topic[..=at])
}

const MAGIC: u32 = u32::from_le_bytes(*b"hbix");

/// Of the sidecar alone: another one only means that all of them are made again.
const VERSION: u32 = 1;

/// Bytes before the Bloom filter.
const HEAD: usize = 88;

/// More than the largest segment's.
const MAX_SIDECAR: usize = 1 << 30;

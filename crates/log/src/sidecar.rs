//! The index of a sealed segment, in a file beside it.
//!
//! It can be made again from the segment at any time, so a sidecar that is missing, damaged or
//! another segment's is simply replaced. Whoever looks something up reads the few blocks of it
//! that say so.

use std::io::{self, ErrorKind};

use crc32c::crc32c_append;
use hookbot_protocol::{Filter, Offset};

use crate::blocks::{self, BLOCK, Blocks, Section};
use crate::bloom::{self, Bloom};
use crate::disk::{Disk, read_exact};
use crate::index::{DENSE, Growing, Index, first_not};
use crate::meta::Meta;
use crate::record::{read_u32, read_u64};
use crate::segment::{Extent, Place, hash_topic};

/// What stays in memory of a sealed segment.
#[derive(Debug, Clone)]
pub(crate) struct Summary {
    pub(crate) extent: Extent,
    base: Offset,
    sections: Sections,
    /// Hashes of all topics, of their ancestors and of all deliveries.
    pub(crate) bloom: Bloom,
}

impl Summary {
    pub(crate) fn sidecar_bytes(&self) -> u64 {
        self.sections.end()
    }
}

/// The parts of a sidecar behind its head.
#[derive(Debug, Clone, Copy)]
struct Sections {
    /// For each record its offset, less the base, and its position.
    records: Section,
    /// All topics, sorted: the length, the text, and where its numbers begin in `postings`. None
    /// lies across two blocks.
    topics: Section,
    /// Numbers of records, ordered by topic, and then by number.
    postings: Section,
    /// Hash and number, sorted.
    deliveries: Section,
}

impl Sections {
    fn new(head: u64, count: u32, topics: u32, deliveries: u32) -> Self {
        let section = |start, length| Section { start, length };
        let count = u64::from(count);
        let records = section(head, count * RECORD);
        let topics = section(records.end(), topics.into());
        let postings = section(topics.end(), count * POSTING);
        let deliveries = section(postings.end(), u64::from(deliveries) * DELIVERY);
        Self {
            records,
            topics,
            postings,
            deliveries,
        }
    }

    fn end(&self) -> u64 {
        self.deliveries.end()
    }

    fn all(self) -> [Section; 4] {
        [self.records, self.topics, self.postings, self.deliveries]
    }
}

/// An index that is read from its file as far as it is asked.
pub(crate) struct Frozen<'a> {
    summary: &'a Summary,
    blocks: Blocks,
}

impl<'a> Frozen<'a> {
    pub(crate) fn open(
        disk: &dyn Disk,
        place: Place,
        seed: u32,
        summary: &'a Summary,
    ) -> io::Result<Self> {
        let file = disk.open(&place.index_name())?;
        let blocks = Blocks::new(file, seed);
        Ok(Self { summary, blocks })
    }

    /// Reads all of it, to see whether anything is damaged.
    pub(crate) fn check(&self) -> io::Result<()> {
        for section in self.summary.sections.all() {
            for block in 0..section.blocks() {
                self.blocks.block(section, block)?;
            }
        }
        Ok(())
    }

    fn record(&self, number: u32) -> io::Result<[u8; RECORD as usize]> {
        let at = u64::from(number) * RECORD;
        self.blocks.get(self.summary.sections.records, at)
    }

    fn posting(&self, at: u32) -> io::Result<u32> {
        let at = u64::from(at) * POSTING;
        let bytes = self.blocks.get(self.summary.sections.postings, at)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Where the postings begin of the first topic that is not less than `text`.
    fn first_posting(&self, text: &[u8]) -> io::Result<u32> {
        let section = self.summary.sections.topics;
        let next = first_not(0..section.blocks(), |block| {
            let block = self.blocks.block(section, block)?;
            let first = topics(&block).next().ok_or(ErrorKind::InvalidData)?;
            Ok(first.0 < text)
        })?;
        // The last block that begins before it may have it, and if not, then the next one.
        for block in next.saturating_sub(1)..(next + 1).min(section.blocks()) {
            let block = self.blocks.block(section, block)?;
            if let Some((_, posting)) = topics(&block).find(|(topic, _)| *topic >= text) {
                return Ok(posting);
            }
        }
        Ok(self.count())
    }
}

impl Index for Frozen<'_> {
    fn count(&self) -> u32 {
        self.summary.extent.count
    }

    fn offset(&self, number: u32) -> io::Result<Offset> {
        let offset = read_u32(&self.record(number)?, 0);
        Ok(Offset(self.summary.base.0 + u64::from(offset)))
    }

    fn position(&self, number: u32) -> io::Result<u64> {
        if number == self.count() {
            return Ok(self.summary.extent.end);
        }
        Ok(read_u32(&self.record(number)?, 4).into())
    }

    fn matching(&self, filter: &Filter, start: u32, most: usize) -> io::Result<Option<Vec<u32>>> {
        let text = filter.as_str().as_bytes();
        // What comes right behind all that the filter matches.
        let mut behind = text.to_vec();
        match filter {
            Filter::Topic(_) => behind.push(0),
            // It ends in a slash.
            Filter::Prefix(_) => *behind.last_mut().ok_or(ErrorKind::InvalidInput)? += 1,
        }
        let (low, high) = (self.first_posting(text)?, self.first_posting(&behind)?);
        if low > high || high > self.count() {
            return Err(ErrorKind::InvalidData.into());
        }
        if let Filter::Topic(_) = filter {
            let own = u64::from(low)..u64::from(high);
            let first = first_not(own, |at| Ok(self.posting(at as u32)? < start))? as u32;
            let last = high.min(first.saturating_add(most as u32 + 1));
            let numbers = (first..last).map(|at| self.posting(at));
            return numbers.collect::<io::Result<_>>().map(Some);
        }
        if (high - low) as usize >= self.count() as usize / DENSE {
            return Ok(None);
        }
        let mut numbers = Vec::new();
        for at in low..high {
            numbers.extend(Some(self.posting(at)?).filter(|number| *number >= start));
        }
        Ok(Some(numbers))
    }

    fn delivery(&self, hash: u64) -> io::Result<Option<u32>> {
        let section = self.summary.sections.deliveries;
        let entry = |at: u64| -> io::Result<[u8; DELIVERY as usize]> {
            self.blocks.get(section, at * DELIVERY)
        };
        let count = section.length / DELIVERY;
        let at = first_not(0..count, |at| Ok(read_u64(&entry(at)?, 0) < hash))?;
        if at == count {
            return Ok(None);
        }
        let found = entry(at)?;
        Ok((read_u64(&found, 0) == hash).then(|| read_u32(&found, 8)))
    }
}

/// The topics in a block, each with where its postings begin.
fn topics(mut block: &[u8]) -> impl Iterator<Item = (&[u8], u32)> {
    std::iter::from_fn(move || {
        let (length, rest) = block.split_first_chunk::<2>()?;
        let length = u16::from_le_bytes(*length) as usize;
        // Zeros fill a block that has no room for the next topic.
        if length == 0 || rest.len() < length + POSTING as usize {
            return None;
        }
        let (topic, rest) = rest.split_at(length);
        let (posting, rest) = rest.split_at(POSTING as usize);
        block = rest;
        Some((topic, read_u32(posting, 0)))
    })
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
    let topics = encode_topics(index);

    let Extent {
        count,
        first,
        last,
        end,
        first_time,
        min_time,
        max_time,
    } = index.extent;
    let deliveries = index.deliveries.len() as u32;
    let mut bytes = Vec::new();
    for number in [
        MAGIC,
        VERSION,
        count,
        topics.len() as u32,
        deliveries,
        bloom.as_bytes().len() as u32,
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
    let sections = Sections::new(bytes.len() as u64, count, topics.len() as u32, deliveries);

    let records = index.offsets.iter().zip(&index.positions);
    let records = records.flat_map(|(offset, position)| [*offset, *position]);
    let records: Vec<u8> = records.flat_map(u32::to_le_bytes).collect();
    let postings = index.topics.values().flatten();
    let postings: Vec<u8> = postings.copied().flat_map(u32::to_le_bytes).collect();
    let mut deliveries: Vec<_> = index.deliveries.iter().collect();
    deliveries.sort_unstable();
    let entry = |(hash, number): (&u64, &u32)| {
        let (hash, number) = (hash.to_le_bytes(), number.to_le_bytes());
        hash.into_iter().chain(number)
    };
    let deliveries: Vec<u8> = deliveries.into_iter().flat_map(entry).collect();
    for section in [records, topics, postings, deliveries] {
        blocks::append(&mut bytes, &section, seed);
    }
    let summary = Summary {
        extent: index.extent,
        base: index.base,
        sections,
        bloom,
    };
    (bytes, summary)
}

fn encode_topics(index: &Growing) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut posting = 0_u32;
    for (topic, numbers) in &index.topics {
        let room = BLOCK - bytes.len() % BLOCK;
        if 2 + topic.len() + POSTING as usize > room {
            bytes.resize(bytes.len() + room, 0);
        }
        bytes.extend_from_slice(&(topic.len() as u16).to_le_bytes());
        bytes.extend_from_slice(topic.as_bytes());
        bytes.extend_from_slice(&posting.to_le_bytes());
        posting += numbers.len() as u32;
    }
    bytes
}

/// Reads what stays in memory. Fails if the file is not this segment's sidecar.
pub(crate) fn read_summary(disk: &dyn Disk, place: Place, seed: u32) -> io::Result<Summary> {
    let file = disk.open(&place.index_name())?;
    let mut head = vec![0; HEAD];
    read_exact(&*file, &mut head, 0)?;
    let bloom = read_u32(&head, 20) as usize;
    if (read_u32(&head, 0), read_u32(&head, 4)) != (MAGIC, VERSION) || bloom > bloom::MAX_BYTES {
        return Err(ErrorKind::InvalidData.into());
    }
    head.resize(HEAD + bloom + 4, 0);
    read_exact(&*file, &mut head[HEAD..], HEAD as u64)?;
    let (checked, crc) = head.split_at(HEAD + bloom);
    if crc32c_append(seed, checked).to_le_bytes() != *crc {
        return Err(ErrorKind::InvalidData.into());
    }
    let [count, topics, deliveries] = [8, 12, 16].map(|at| read_u32(&head, at));
    let sections = Sections::new(head.len() as u64, count, topics, deliveries);
    if file.length()? != sections.end() {
        return Err(ErrorKind::InvalidData.into());
    }
    let [base, first, last, end, first_time, min_time, max_time] =
        [24, 32, 40, 48, 56, 64, 72].map(|at| read_u64(&head, at));
    Ok(Summary {
        extent: Extent {
            count,
            first: Offset(first),
            last: Offset(last),
            end,
            first_time,
            min_time,
            max_time,
        },
        base: Offset(base),
        sections,
        bloom: Bloom::from_bytes(&checked[HEAD..]).ok_or(ErrorKind::InvalidData)?,
    })
}

/// The prefixes that cover a topic, as [`hookbot_protocol::Topic::ancestors`] has them.
fn ancestors(topic: &str) -> impl Iterator<Item = &str> {
    topic.match_indices('/').map(|(at, _)| &topic[..=at])
}

const MAGIC: u32 = u32::from_le_bytes(*b"hbix");

/// Of the sidecar alone: another one only means that all of them are made again.
const VERSION: u32 = 2;

/// Bytes before the Bloom filter.
const HEAD: usize = 80;

/// Bytes of an entry.
const RECORD: u64 = 8;
const POSTING: u64 = 4;
const DELIVERY: u64 = 12;

#[cfg(test)]
mod tests {
    use hookbot_protocol::Epoch;
    use proptest::prelude::*;

    use super::*;
    use crate::disk::replace;
    use crate::fault::FaultDisk;
    use crate::segment::Space;

    const PLACE: Place = Place {
        space: Space::Safe,
        number: 1,
    };
    const SEED: u32 = 7;
    const FILTERS: [&str; 8] = ["a", "a/", "a/b", "a/b/", "b", "b/", "c/", "a/0"];

    /// One in a few is so long that three fill a block.
    fn topic(number: u32) -> String {
        match number % 9 {
            0 => "a".to_owned(),
            1 => "b".to_owned(),
            2 => "a/b".to_owned(),
            3 => format!("c/{}{number}", "x".repeat(1_000)),
            4 => format!("a0{number}"),
            5 => format!("a.{number}"),
            6 => format!("a/b/{number}"),
            _ => format!("a/{}", number % 70),
        }
    }

    fn growing(topics: &[u32]) -> Growing {
        let mut index = Growing::new(Offset(5));
        let mut offset = 5;
        for (at, number) in topics.iter().enumerate() {
            offset += u64::from(number % 3 + 1);
            let delivery = (number % 4 == 0).then_some(u64::from(*number) << 20);
            index.push(Offset(offset), at as u64, 100, &topic(*number), delivery);
        }
        index
    }

    fn written(bytes: &[u8]) -> FaultDisk {
        let disk = FaultDisk::new(1);
        replace(&disk, &PLACE.index_name(), bytes).unwrap();
        disk
    }

    fn encoded(index: &Growing) -> Vec<u8> {
        let meta = Meta {
            epoch: Epoch(1),
            ..Meta::new()
        };
        encode(index, SEED, &meta).0
    }

    /// The positions of what a filter matches, page by page.
    fn found(
        index: &dyn Index,
        filter: &Filter,
        mut from: Offset,
        topics: &[u32],
    ) -> io::Result<Vec<u64>> {
        let mut all = Vec::new();
        loop {
            let page = index.find(filter, from, 10)?;
            let records = page.records.iter().map(|record| record.at);
            all.extend(records.filter(|at| {
                let number = (*at as usize - crate::segment::HEADER) / 100;
                let topic = hookbot_protocol::Topic::parse(&topic(topics[number]));
                filter.matches(&topic.expect("it is a topic"))
            }));
            match page.covered {
                Some(covered) => from = covered,
                None => return Ok(all),
            }
        }
    }

    proptest! {
        #[test]
        fn a_file_answers_as_the_index_it_was_made_of(
            topics in prop::collection::vec(0..600_u32, 0..700),
            from in 0..1_500_u64,
        ) {
            let index = growing(&topics);
            let disk = written(&encoded(&index));
            let summary = read_summary(&disk, PLACE, SEED).unwrap();
            let frozen = Frozen::open(&disk, PLACE, SEED, &summary).unwrap();
            frozen.check().unwrap();
            prop_assert_eq!(summary.extent, index.extent);
            for text in FILTERS {
                let filter = Filter::parse(text).unwrap();
                let expected = found(&index, &filter, Offset(from), &topics).unwrap();
                let own = found(&frozen, &filter, Offset(from), &topics).unwrap();
                prop_assert_eq!(own, expected, "{}", text);
            }
            for hash in (0..600).map(|number| number << 20) {
                let delivery = frozen.delivery(hash).unwrap();
                prop_assert_eq!(delivery, index.deliveries.get(&hash).copied());
            }
        }
    }

    #[test]
    fn no_flipped_bit_changes_an_answer() {
        let topics: Vec<u32> = (0..40).map(|number| number * 31 % 200).collect();
        let index = growing(&topics);
        let bytes = encoded(&index);
        let mut noticed = 0;
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            let disk = written(&bytes);
            let Ok(summary) = read_summary(&disk, PLACE, SEED) else {
                noticed += 1;
                continue;
            };
            let frozen = Frozen::open(&disk, PLACE, SEED, &summary).unwrap();
            assert!(frozen.check().is_err(), "byte {at}");
            noticed += 1;
            for text in FILTERS {
                let filter = Filter::parse(text).unwrap();
                if let Ok(own) = found(&frozen, &filter, Offset(0), &topics) {
                    let expected = found(&index, &filter, Offset(0), &topics).unwrap();
                    assert_eq!(own, expected, "byte {at}");
                }
            }
        }
        assert_eq!(noticed, bytes.len());
    }
}

//! Which records of a segment a filter may match.
//!
//! An index only proposes. Whoever reads a record through it checks the record's checksum,
//! offset and topic, so a wrong index can never give a wrong message.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::{Bound, Range};

use hookbot_protocol::{Filter, Offset};

use crate::segment::{Extent, HEADER};

/// The records of one segment, numbered from 0.
pub(crate) trait Index {
    fn count(&self) -> u32;
    fn offset(&self, number: u32) -> io::Result<Offset>;
    /// Where a record begins in the file. That of the count is the end of the last one.
    fn position(&self, number: u32) -> io::Result<u64>;
    /// The records from `start` on that the filter matches, or more than `most` of the first of
    /// each topic; in no order. Nothing where it is cheaper to look at everything.
    fn matching(&self, filter: &Filter, start: u32, most: usize) -> io::Result<Option<Vec<u32>>>;
    /// The newest record with this hash of a delivery.
    fn delivery(&self, hash: u64) -> io::Result<Option<u32>>;

    fn located(&self, number: u32) -> io::Result<Located> {
        Ok(Located {
            offset: self.offset(number)?,
            at: self.position(number)?,
            end: self.position(number + 1)?,
        })
    }

    /// The first record whose offset is `from` or more.
    fn number(&self, from: Offset) -> io::Result<u32> {
        let count = self.count().into();
        first_not(0..count, |number| Ok(self.offset(number as u32)? < from))
            .map(|number| number as u32)
    }

    /// At most `most` records from `from` on that `filter` may match.
    fn find(&self, filter: &Filter, from: Offset, most: usize) -> io::Result<Found> {
        let start = self.number(from)?;
        let matching = if is_root(filter) {
            None
        } else {
            self.matching(filter, start, most)?
        };
        let Some(mut numbers) = matching else {
            return self.all(start);
        };
        let mut covered = None;
        if numbers.len() > most {
            let (_, first_left_out, _) = numbers.select_nth_unstable(most);
            covered = Some(self.offset(*first_left_out)?);
            numbers.truncate(most);
        }
        numbers.sort_unstable();
        let records = numbers.into_iter().map(|number| self.located(number));
        Ok(Found {
            records: records.collect::<io::Result<_>>()?,
            covered,
        })
    }

    /// Some records from `start` on.
    fn all(&self, start: u32) -> io::Result<Found> {
        let end = self.count().min(start.saturating_add(SCAN));
        let records = (start..end).map(|number| self.located(number));
        let is_end = end == self.count();
        Ok(Found {
            records: records.collect::<io::Result<_>>()?,
            covered: if is_end {
                None
            } else {
                Some(self.offset(end)?)
            },
        })
    }
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) offset: Offset,
    pub(crate) at: u64,
    pub(crate) end: u64,
}

/// What a segment may have for a filter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) records: Vec<Located>,
    /// Where to go on, if that is in this segment.
    pub(crate) covered: Option<Offset>,
}

/// The index of a segment that still grows.
#[derive(Debug)]
pub(crate) struct Growing {
    pub(crate) extent: Extent,
    pub(crate) base: Offset,
    /// Less the base.
    pub(crate) offsets: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    pub(crate) topics: BTreeMap<Box<str>, Vec<u32>>,
    pub(crate) deliveries: HashMap<u64, u32>,
}

impl Growing {
    pub(crate) fn new(base: Offset) -> Self {
        Self {
            extent: Extent {
                count: 0,
                first: base,
                last: base,
                end: HEADER as u64,
                first_time: 0,
                min_time: u64::MAX,
                max_time: 0,
            },
            base,
            offsets: Vec::new(),
            positions: Vec::new(),
            topics: BTreeMap::new(),
            deliveries: HashMap::new(),
        }
    }

    /// Adds the record behind the last one.
    ///
    /// The segment was closed before an offset or a position could be too large for it.
    pub(crate) fn push(
        &mut self,
        offset: Offset,
        time: u64,
        size: usize,
        topic: &str,
        delivery: Option<u64>,
    ) {
        let Extent { count, end, .. } = self.extent;
        self.offsets.push((offset.0 - self.base.0) as u32);
        self.positions.push(end as u32);
        match self.topics.get_mut(topic) {
            Some(numbers) => numbers.push(count),
            None => {
                self.topics.insert(topic.into(), vec![count]);
            }
        }
        if let Some(hash) = delivery {
            self.deliveries.insert(hash, count);
        }
        if count == 0 {
            self.extent.first = offset;
            self.extent.first_time = time;
        }
        self.extent = Extent {
            count: count + 1,
            last: offset,
            end: end + size as u64,
            min_time: self.extent.min_time.min(time),
            max_time: self.extent.max_time.max(time),
            ..self.extent
        };
    }

    pub(crate) fn offset(&self, number: u32) -> Offset {
        Offset(self.base.0 + u64::from(self.offsets[number as usize]))
    }

    pub(crate) fn position(&self, number: u32) -> u64 {
        let position = self.positions.get(number as usize);
        position.map_or(self.extent.end, |position| u64::from(*position))
    }

    /// The first record whose offset is `from` or more.
    pub(crate) fn number(&self, from: Offset) -> u32 {
        let before = |offset: &u32| self.base.0 + u64::from(*offset) < from.0;
        self.offsets.partition_point(before) as u32
    }
}

impl Index for Growing {
    fn count(&self) -> u32 {
        self.extent.count
    }

    fn offset(&self, number: u32) -> io::Result<Offset> {
        Ok(self.offset(number))
    }

    fn position(&self, number: u32) -> io::Result<u64> {
        Ok(self.position(number))
    }

    fn matching(&self, filter: &Filter, start: u32, most: usize) -> io::Result<Option<Vec<u32>>> {
        let text = filter.as_str();
        let mut postings: Vec<&[u32]> = Vec::new();
        if let Filter::Topic(_) = filter {
            postings.extend(self.topics.get(text).map(|numbers| &**numbers));
        } else {
            let below = (Bound::Included(text), Bound::Unbounded);
            let below = self.topics.range::<str, _>(below);
            let below = below.take_while(|(topic, _)| topic.starts_with(text));
            postings.extend(below.map(|(_, numbers)| &**numbers));
        }
        for posting in &mut postings {
            *posting = &posting[posting.partition_point(|number| *number < start)..];
        }
        let total: usize = postings.iter().map(|posting| posting.len()).sum();
        if postings.len() > 1 && total >= (self.count() - start) as usize / DENSE {
            return Ok(None);
        }
        let first = |posting: &[u32]| posting[..posting.len().min(most + 1)].to_vec();
        Ok(Some(postings.into_iter().flat_map(first).collect()))
    }

    fn delivery(&self, hash: u64) -> io::Result<Option<u32>> {
        Ok(self.deliveries.get(&hash).copied())
    }
}

/// The first of a range that is not before what is looked for; all that are come first.
pub(crate) fn first_not(
    Range { start, end }: Range<u64>,
    mut is_before: impl FnMut(u64) -> io::Result<bool>,
) -> io::Result<u64> {
    let (mut low, mut high) = (start, end);
    while low < high {
        let middle = low.midpoint(high);
        if is_before(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// Whether the filter matches everything in its lane.
pub(crate) fn is_root(filter: &Filter) -> bool {
    matches!(filter, Filter::Prefix(_)) && matches!(filter.as_str(), "" | "/unsafe/")
}

/// A prefix that matches one record in so many is not worth being looked up.
pub(crate) const DENSE: usize = 4;

/// How many records are proposed at once where all are.
const SCAN: u32 = 1_024;

//! Which records of a segment a filter may match.
//!
//! An index only proposes. Whoever reads a record through it checks the record's checksum,
//! offset and topic, so a wrong index can never give a wrong message.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use hookbot_protocol::{Filter, Offset};

use crate::segment::{Extent, HEADER};

/// The records of one segment, numbered from 0.
pub(crate) trait Index {
    fn extent(&self) -> &Extent;
    fn offset(&self, number: u32) -> Offset;
    /// Where a record begins in the file. That of the count is the end of the last one.
    fn position(&self, number: u32) -> u64;
    /// The records of each topic that the filter matches, each list in order.
    fn postings(&self, filter: &Filter) -> Vec<&[u32]>;
    /// The newest record with this hash of a delivery.
    fn delivery(&self, hash: u64) -> Option<u32>;

    fn located(&self, number: u32) -> Located {
        Located {
            offset: self.offset(number),
            at: self.position(number),
            end: self.position(number + 1),
        }
    }

    /// The first record whose offset is `from` or more.
    fn number(&self, from: Offset) -> u32 {
        let (mut low, mut high) = (0, self.extent().count);
        while low < high {
            let middle = low.midpoint(high);
            if self.offset(middle) < from {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// At most `most` records from `from` on that `filter` may match.
    fn find(&self, filter: &Filter, from: Offset, most: usize) -> Found {
        let count = self.extent().count;
        let start = self.number(from);
        let all = || {
            let end = count.min(start.saturating_add(SCAN));
            Found {
                records: (start..end).map(|number| self.located(number)).collect(),
                covered: (end < count).then(|| self.offset(end)),
            }
        };
        if is_root(filter) {
            return all();
        }
        let mut postings = self.postings(filter);
        for posting in &mut postings {
            *posting = &posting[posting.partition_point(|number| *number < start)..];
        }
        let total: usize = postings.iter().map(|posting| posting.len()).sum();
        // Beyond some density it is cheaper to look at everything.
        if postings.len() > 1 && total >= (count - start) as usize / 4 {
            return all();
        }
        let mut numbers: Vec<u32> = Vec::new();
        for posting in postings {
            numbers.extend(posting.iter().take(most + 1));
        }
        let covered = (numbers.len() > most).then(|| {
            let (_, first_left_out, _) = numbers.select_nth_unstable(most);
            let covered = self.offset(*first_left_out);
            numbers.truncate(most);
            covered
        });
        numbers.sort_unstable();
        Found {
            records: numbers
                .into_iter()
                .map(|number| self.located(number))
                .collect(),
            covered,
        }
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
}

impl Index for Growing {
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
        if let Filter::Topic(_) = filter {
            return self
                .topics
                .get(text)
                .map(|numbers| &**numbers)
                .into_iter()
                .collect();
        }
        let below = (Bound::Included(text), Bound::Unbounded);
        let below = self.topics.range::<str, _>(below);
        below
            .take_while(|(topic, _)| topic.starts_with(text))
            .map(|(_, numbers)| &**numbers)
            .collect()
    }

    fn delivery(&self, hash: u64) -> Option<u32> {
        self.deliveries.get(&hash).copied()
    }
}

/// Whether the filter matches everything in its lane.
pub(crate) fn is_root(filter: &Filter) -> bool {
    matches!(filter, Filter::Prefix(_)) && matches!(filter.as_str(), "" | "/unsafe/")
}

/// How many records are proposed at once where all are.
const SCAN: u32 = 1_024;

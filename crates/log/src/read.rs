//! Reading from disk: pages, times, and the record that a delivery repeats.
//!
//! Everything here blocks. The caller takes it off the threads that others wait for.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use hookbot_protocol::{Filter, Message, Offset, Publication};

use crate::batch::is_same;
use crate::disk::{File, read_exact};
use crate::index::{Located, is_root};
use crate::newest::Room;
use crate::record::{self, Damage};
use crate::scan::Window;
use crate::segment::{Indexed, Segment, Space, hash_topic};
use crate::store::Store;
use crate::{Limit, Page, ReadError};

impl Store {
    /// Reads a page of what `filter` matches, from `from` up to `upto`.
    pub(crate) fn read_page(
        &self,
        filter: &Filter,
        from: Offset,
        upto: Offset,
        limit: Limit,
    ) -> Result<Page, ReadError> {
        let lane = &self.lanes[Space::of_filter(filter) as usize];
        let segments = lane.segments();
        if let Some(first) = lane.trimmed(&segments, from) {
            return Err(ReadError::Trimmed { first });
        }
        let mut page = Page {
            messages: Vec::new(),
            next: from,
        };
        let mut room = Room::new(limit);
        let start = segments.partition_point(|segment| segment.header.base <= from);
        let mut looked_into = 0;
        for at in start.saturating_sub(1)..segments.len() {
            let segment = &segments[at];
            let end = segments
                .get(at + 1)
                .map_or(upto, |next| next.header.base)
                .min(upto);
            if page.next >= upto || looked_into == SEGMENTS {
                return Ok(page);
            }
            if end <= page.next || !self.may_have(segment, filter) {
                page.next = page.next.max(end);
                continue;
            }
            looked_into += 1;
            match self.read_segment(segment, filter, end, &mut room, &mut page) {
                Ok(true) => {}
                Ok(false) => return Ok(page),
                // What was found before the damage can still be had.
                Err(ReadError::Broken { .. }) if !page.messages.is_empty() => return Ok(page),
                Err(error) => {
                    // Trimmed since the list was taken.
                    if let Some(first) = lane.trimmed(&lane.segments(), from) {
                        return Err(ReadError::Trimmed { first });
                    }
                    self.counters.could_not_read();
                    tracing::error!("{error}");
                    return Err(error);
                }
            }
        }
        Ok(page)
    }

    /// Reads on in one segment. Says whether all of it up to `end` has been looked at.
    fn read_segment(
        &self,
        segment: &Segment,
        filter: &Filter,
        end: Offset,
        room: &mut Room,
        page: &mut Page,
    ) -> Result<bool, ReadError> {
        let name = segment.place().log_name();
        let from = page.next;
        let found = self
            .look_up(segment, |index| index.find(filter, from, CANDIDATES))
            .map_err(|error| broken(from, &format!("{name}: {error}")))?;
        if !found.records.is_empty() {
            let file = self.disk.open(&name);
            let file = file.map_err(|error| broken(from, &format!("{name}: {error}")))?;
            let mut reader = Reader::new(&*file, &found.records);
            for record in &found.records {
                if record.offset >= end {
                    break;
                }
                let message = reader
                    .read(record, segment.seed, |topic| matches(filter, topic))
                    .map_err(|error| {
                        let what = format!("{name}, at byte {}: {error}", record.at);
                        broken(record.offset, &what)
                    })?;
                if let Some(message) = message {
                    if !room.take(&message) {
                        return Ok(false);
                    }
                    page.messages.push(Arc::new(message));
                }
                page.next = record.offset.next();
            }
        }
        page.next = found.covered.unwrap_or(end).min(end);
        Ok(found.covered.is_none())
    }

    fn may_have(&self, segment: &Segment, filter: &Filter) -> bool {
        match &*segment.index() {
            Indexed::Growing(_) => true,
            // The roots are in no filter: everything is below them.
            Indexed::Sealed(_) if is_root(filter) => true,
            Indexed::Sealed(summary) => summary
                .bloom
                .may_have(hash_topic(&self.meta, filter.as_str())),
        }
    }

    /// All messages from `from` on, of both lanes, in order; some of them, if there are many.
    /// What is damaged or trimmed is left out.
    pub(crate) fn read_all(&self, from: Offset, upto: Offset) -> Page {
        let mut messages = Vec::new();
        let mut next = upto;
        for filter in ["/", "/unsafe/"] {
            let filter = Filter::parse(filter).expect("the roots are filters");
            let mut at = from;
            loop {
                match self.read_page(&filter, at, upto, PAGE) {
                    Ok(page) => {
                        messages.extend(page.messages);
                        next = next.min(page.next);
                        break;
                    }
                    Err(ReadError::Trimmed { first }) => at = first,
                    Err(ReadError::Broken { at: broken, reason }) => {
                        tracing::error!("nobody gets the message at offset {broken}: {reason}");
                        at = broken.next();
                    }
                }
            }
        }
        messages.retain(|message| message.offset < next);
        messages.sort_unstable_by_key(|message| message.offset);
        Page { messages, next }
    }

    /// The first offset whose message is not older than `time`, or `upto`.
    pub(crate) fn seek(&self, time: SystemTime, upto: Offset) -> Result<Offset, ReadError> {
        let time = record::micros(time);
        let mut first = upto;
        for lane in &self.lanes {
            for segment in lane.segments().iter() {
                if let Some(found) = self.seek_segment(segment, time)? {
                    first = first.min(found);
                    break;
                }
            }
        }
        Ok(first)
    }

    fn seek_segment(&self, segment: &Segment, time: u64) -> Result<Option<Offset>, ReadError> {
        let extent = segment.extent();
        if extent.count == 0 || extent.max_time < time {
            return Ok(None);
        }
        if extent.min_time >= time {
            return Ok(Some(extent.first));
        }
        let broken = |at: Offset| move |error: io::Error| broken(at, &error);
        let file = match self.disk.open(&segment.place().log_name()) {
            // Trimmed since the list was taken.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(broken(extent.first))?,
        };
        // Times need not be in order, for clocks are set back.
        let mut window = Window::new(&*file).map_err(broken(extent.first))?;
        let mut number = 0;
        while number < extent.count {
            let found = self.look_up(segment, |index| index.all(number));
            let found = found.map_err(broken(extent.first))?;
            for located in &found.records {
                let head = window.get(located.at, record::HEAD);
                let head = head.map_err(broken(located.offset))?;
                let head = record::decode_head(head, segment.seed).map_err(io::Error::other);
                if head.map_err(broken(located.offset))?.stamp.time >= time {
                    return Ok(Some(located.offset));
                }
            }
            number += found.records.len() as u32;
        }
        Ok(None)
    }

    /// The message in one segment that `publication` repeats, if there is one that is not older
    /// than `since`.
    ///
    /// One that can't be read is none: to keep a message twice is better than not to keep it.
    pub(crate) fn find_delivery(
        &self,
        segment: &Segment,
        publication: &Publication,
        hash: u64,
        since: u64,
    ) -> Option<Offset> {
        let found = self.try_find_delivery(segment, publication, hash, since);
        found.unwrap_or_else(|error| {
            let name = segment.place().log_name();
            tracing::error!("cannot look for a delivery in {name}: {error}");
            None
        })
    }

    fn try_find_delivery(
        &self,
        segment: &Segment,
        publication: &Publication,
        hash: u64,
        since: u64,
    ) -> io::Result<Option<Offset>> {
        if !may_have_delivery(segment, hash, since) {
            return Ok(None);
        }
        let located = self.look_up(segment, |index| {
            let number = index.delivery(hash)?;
            number.map(|number| index.located(number)).transpose()
        })?;
        let Some(located) = located else {
            return Ok(None);
        };
        let file = self.disk.open(&segment.place().log_name())?;
        let mut reader = Reader::new(&*file, &[]);
        let message = reader.read(&located, segment.seed, |_| true)?;
        let message = message.filter(|message| {
            is_same(&message.publication, publication) && record::micros(message.time) >= since
        });
        Ok(message.map(|message| message.offset))
    }
}

/// Whether it is worth looking into a segment for a delivery.
pub(crate) fn may_have_delivery(segment: &Segment, hash: u64, since: u64) -> bool {
    match &*segment.index() {
        Indexed::Growing(index) => index.deliveries.contains_key(&hash),
        Indexed::Sealed(summary) => {
            summary.extent.max_time >= since && summary.bloom.may_have(hash)
        }
    }
}

/// Reads the records of a list, those that lie side by side with one call.
struct Reader<'a> {
    file: &'a dyn File,
    coming: &'a [Located],
    bytes: Bytes,
    start: u64,
}

impl<'a> Reader<'a> {
    fn new(file: &'a dyn File, coming: &'a [Located]) -> Self {
        Self {
            file,
            coming,
            bytes: Bytes::new(),
            start: 0,
        }
    }

    /// Reads a record and makes a message of it if its topic is wanted.
    fn read(
        &mut self,
        record: &Located,
        seed: u32,
        wanted: impl FnOnce(&str) -> bool,
    ) -> io::Result<Option<Message>> {
        let damage = |damage: Damage| io::Error::new(ErrorKind::InvalidData, damage);
        if record.at < self.start || record.end > self.start + self.bytes.len() as u64 {
            self.load(record)?;
        }
        let at = (record.at - self.start) as usize;
        let bytes = self.bytes.slice(at..at + (record.end - record.at) as usize);
        let head = record::decode_head(&bytes, seed).map_err(damage)?;
        if head.stamp.offset != record.offset || head.size != bytes.len() {
            return Err(damage(Damage::Other));
        }
        let parts = record::check(&bytes, &head, seed).map_err(damage)?;
        if !wanted(parts.topic) {
            return Ok(None);
        }
        Ok(Some(record::decode(&bytes, &head).map_err(damage)?))
    }

    fn load(&mut self, record: &Located) -> io::Result<()> {
        let at = self.coming.partition_point(|coming| coming.at < record.at);
        let mut end = record.end;
        for next in self.coming.iter().skip(at + 1) {
            if next.at != end || next.end - record.at > RUN {
                break;
            }
            end = next.end;
        }
        let size = usize::try_from(end - record.at).unwrap_or(usize::MAX);
        let mut bytes = vec![0; size.min(record::MAX_SIZE + record::HEAD)];
        read_exact(self.file, &mut bytes, record.at)?;
        self.bytes = bytes.into();
        self.start = record.at;
        Ok(())
    }
}

fn matches(filter: &Filter, topic: &str) -> bool {
    match filter {
        Filter::Topic(own) => own.as_str() == topic,
        // The record is in this lane, so the root of another space can't match it.
        Filter::Prefix(_) => topic.starts_with(filter.as_str()),
    }
}

fn broken(at: Offset, what: &dyn ToString) -> ReadError {
    ReadError::Broken {
        at,
        reason: what.to_string().into(),
    }
}

/// How many records an index is asked for at once.
const CANDIDATES: usize = 1_024;

/// How many segments one page looks into, so that a reader who is gone is not read for long.
const SEGMENTS: usize = 16;

/// How many bytes are read with one call, if they are more than one record's.
const RUN: u64 = 256 << 10;

/// What the tail reads from disk in one go.
const PAGE: Limit = Limit {
    messages: 256,
    bytes: 4 << 20,
};

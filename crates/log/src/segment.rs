//! A segment: one file of a lane, and what is known of it.

use std::hash::Hasher;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crc32c::crc32c_append;
use hookbot_protocol::{Epoch, Filter, Offset, Topic};
use siphasher::sip::SipHasher13;

use crate::index::Growing;
use crate::meta::{Meta, VERSION};
use crate::record::{read_u32, read_u64};
use crate::sidecar::Summary;

/// The two spaces of topics. Each has a lane of segments, so that what strangers publish never
/// pushes out what was published with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Space {
    Safe,
    Unsafe,
}

impl Space {
    pub(crate) const ALL: [Self; 2] = [Self::Safe, Self::Unsafe];

    pub(crate) fn of(topic: &Topic) -> Self {
        Self::new(topic.is_unsafe())
    }

    /// A filter never matches topics of both.
    pub(crate) fn of_filter(filter: &Filter) -> Self {
        Self::new(filter.as_str().starts_with('/'))
    }

    fn new(is_unsafe: bool) -> Self {
        if is_unsafe { Self::Unsafe } else { Self::Safe }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Unsafe => "unsafe",
        }
    }
}

/// Which segment of which lane. Numbers of a lane run from 1 without a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) space: Space,
    pub(crate) number: u64,
}

impl Place {
    pub(crate) fn log_name(self) -> String {
        format!("{}-{:08}{LOG}", self.space.name(), self.number)
    }

    pub(crate) fn index_name(self) -> String {
        format!("{}-{:08}{INDEX}", self.space.name(), self.number)
    }

    /// The segment that a file is the log or, if `ending` says so, the sidecar of.
    pub(crate) fn of_file(name: &str, ending: &str) -> Option<Self> {
        let (space, number) = name.strip_suffix(ending)?.split_once('-')?;
        let space = Space::ALL.into_iter().find(|own| own.name() == space)?;
        let number = number.parse().ok()?;
        let place = Self { space, number };
        // Only the one spelling that is written here.
        let own = [place.log_name(), place.index_name()];
        own.iter().any(|own| own == name).then_some(place)
    }

    /// What all checksums in the segment begin with.
    pub(crate) fn seed(self, meta: &Meta) -> u32 {
        let seed = crc32c_append(self.space as u32, &meta.salt);
        crc32c_append(seed, &self.number.to_le_bytes())
    }
}

/// What a segment's file begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) place: Place,
    /// What a repair wrote: the segment before may end earlier than `durable` says.
    pub(crate) after_repair: bool,
    /// The epoch in which it was begun.
    pub(crate) epoch: Epoch,
    /// No record in it has an offset below this.
    pub(crate) base: Offset,
    /// When it was begun, in microseconds since 1970.
    pub(crate) time: u64,
    /// The last offset of each lane when it was begun.
    pub(crate) durable: [Offset; 2],
}

impl Header {
    pub(crate) fn encode(&self, seed: u32) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..4].copy_from_slice(MAGIC);
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8] = self.place.space as u8;
        bytes[9] = self.after_repair.into();
        let numbers = [
            self.epoch.0,
            self.place.number,
            self.base.0,
            self.time,
            self.durable[0].0,
            self.durable[1].0,
        ];
        for (at, number) in numbers.into_iter().enumerate() {
            bytes[12 + at * 8..20 + at * 8].copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c_append(seed, &bytes[..HEADER - 4]);
        bytes[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER], place: Place, seed: u32) -> Option<Self> {
        let crc = crc32c_append(seed, &bytes[..HEADER - 4]);
        // The seed makes sure of the lane and the number.
        if bytes[..4] != *MAGIC
            || read_u32(bytes, 4) != VERSION
            || read_u32(bytes, HEADER - 4) != crc
        {
            return None;
        }
        Some(Self {
            place,
            after_repair: bytes[9] == 1,
            epoch: Epoch(read_u64(bytes, 12)),
            base: Offset(read_u64(bytes, 28)),
            time: read_u64(bytes, 36),
            durable: [Offset(read_u64(bytes, 44)), Offset(read_u64(bytes, 52))],
        })
    }
}

/// One segment, shared by the thread that writes it and everybody who reads it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: Header,
    pub(crate) seed: u32,
    index: RwLock<Indexed>,
}

/// Where the index of a segment is.
#[derive(Debug)]
pub(crate) enum Indexed {
    /// In memory, because the segment grows or its sidecar has yet to be written.
    Growing(Growing),
    /// In its sidecar.
    Sealed(Summary),
}

impl Segment {
    pub(crate) fn new(header: Header, seed: u32, index: Indexed) -> Self {
        Self {
            header,
            seed,
            index: RwLock::new(index),
        }
    }

    pub(crate) fn place(&self) -> Place {
        self.header.place
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Indexed> {
        // No code that holds the lock can leave the index half changed.
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Indexed> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn extent(&self) -> Extent {
        match &*self.index() {
            Indexed::Growing(index) => index.extent,
            Indexed::Sealed(summary) => summary.extent,
        }
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        match &*self.index() {
            Indexed::Growing(index) => index.extent.end,
            Indexed::Sealed(summary) => summary.extent.end + summary.sidecar_bytes(),
        }
    }
}

/// How far a segment reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Records.
    pub(crate) count: u32,
    /// Offset of the first and the last record, if there are any.
    pub(crate) first: Offset,
    pub(crate) last: Offset,
    /// The place in the file behind the last record.
    pub(crate) end: u64,
    pub(crate) first_time: u64,
    pub(crate) min_time: u64,
    pub(crate) max_time: u64,
}

/// The hash of a topic or a prefix, for the Bloom filter.
pub(crate) fn hash_topic(meta: &Meta, text: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_key(&meta.salt);
    hasher.write(b"t");
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// The hash of what makes two publications the same delivery.
pub(crate) fn hash_delivery(meta: &Meta, topic: &str, id: &str, body: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_key(&meta.salt);
    hasher.write(b"d");
    hasher.write_u32(crc32c_append(0, body));
    hasher.write_u64(body.len() as u64);
    hasher.write_u64(topic.len() as u64);
    hasher.write(topic.as_bytes());
    hasher.write(id.as_bytes());
    hasher.finish()
}

/// What the names of the files end in.
pub(crate) const LOG: &str = ".log";
pub(crate) const INDEX: &str = ".idx";

/// Bytes of a header; the first record is right behind it.
pub(crate) const HEADER: usize = 64;

const MAGIC: &[u8; 4] = b"hblg";

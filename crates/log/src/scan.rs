//! Reading a segment from its beginning, record by record, without an index.

use std::io;

use hookbot_protocol::Offset;

use crate::disk::{File, read_exact};
use crate::index::Growing;
use crate::meta::Meta;
use crate::record::{self, Damage, HEAD, Head};
use crate::segment::{HEADER, Header, hash_delivery};

/// What a scan has found.
pub(crate) struct Scan {
    /// The records up to the first that is damaged.
    pub(crate) index: Growing,
    /// What is wrong there, if that is not simply the end: of the file, or before zeros that
    /// reach to it.
    pub(crate) damage: Option<Damage>,
    /// How far each lane was durable, as far as any record says, damaged ones and those behind
    /// them included.
    pub(crate) durable: [Offset; 2],
    /// The largest offset that any record says it has, damaged ones and those behind them
    /// included.
    pub(crate) newest: Offset,
    pub(crate) length: u64,
}

impl Scan {
    /// Scans a segment.
    pub(crate) fn new(
        file: &dyn File,
        header: &Header,
        seed: u32,
        meta: &Meta,
    ) -> io::Result<Self> {
        let mut window = Window::new(file)?;
        let mut scan = Self {
            index: Growing::new(header.base),
            damage: None,
            durable: header.durable,
            newest: Offset(0),
            length: window.length,
        };
        let mut last = Offset(header.base.0.saturating_sub(1));
        loop {
            let at = scan.index.extent.end;
            if at == scan.length {
                return Ok(scan);
            }
            match read_record(&mut window, at, seed, last) {
                Ok(Err(damage)) => {
                    scan.damage = Some(damage);
                    break;
                }
                Ok(Ok((head, bytes))) => {
                    let Ok(parts) = record::check(bytes, &head, seed) else {
                        scan.damage = Some(Damage::Malformed);
                        break;
                    };
                    let delivery = parts.delivery_id;
                    let delivery =
                        delivery.map(|id| hash_delivery(meta, parts.topic, id, parts.body));
                    let stamp = head.stamp;
                    scan.index
                        .push(stamp.offset, stamp.time, head.size, parts.topic, delivery);
                    scan.learn(&head);
                    last = stamp.offset;
                }
                Err(error) => return Err(error),
            }
        }
        let mut at = scan.index.extent.end;
        if window.is_zero_from(at)? {
            // Written in advance, to be written over.
            scan.damage = None;
            return Ok(scan);
        }
        while let Some((found, head)) = next_head(&mut window, at, seed)? {
            scan.learn(&head);
            at = found + 1;
        }
        Ok(scan)
    }

    /// The first offset of the last batch that any record is of.
    pub(crate) fn last_batch(&self) -> Offset {
        self.durable[0].max(self.durable[1]).next()
    }

    fn learn(&mut self, head: &Head) {
        self.newest = self.newest.max(head.stamp.offset);
        for (own, durable) in self.durable.iter_mut().zip(head.stamp.durable) {
            *own = (*own).max(durable);
        }
    }
}

/// Reads the record at `at`, which must come after `last`.
pub(crate) fn read_record<'a>(
    window: &'a mut Window<'_>,
    at: u64,
    seed: u32,
    last: Offset,
) -> io::Result<Result<(Head, &'a [u8]), Damage>> {
    let head = match record::decode_head(window.get(at, HEAD)?, seed) {
        Ok(head) if head.stamp.offset <= last => return Ok(Err(Damage::Other)),
        Ok(head) => head,
        Err(damage) => return Ok(Err(damage)),
    };
    let bytes = window.get(at, head.size)?;
    Ok(record::check(bytes, &head, seed).map(|_| (head, bytes)))
}

/// Looks for a whole head at `at` or anywhere behind it.
pub(crate) fn next_head(
    window: &mut Window<'_>,
    mut at: u64,
    seed: u32,
) -> io::Result<Option<(u64, Head)>> {
    while at + (HEAD as u64) <= window.length {
        let bytes = window.get(at, CHUNK)?;
        let heads = bytes.windows(HEAD).enumerate();
        for (skipped, bytes) in heads {
            if let Ok(head) = record::decode_head(bytes, seed) {
                return Ok(Some((at + skipped as u64, head)));
            }
        }
        at += (bytes.len() + 1 - HEAD) as u64;
    }
    Ok(None)
}

/// Reads a segment's header, if it is whole.
pub(crate) fn read_header(
    file: &dyn File,
    place: crate::segment::Place,
    seed: u32,
) -> io::Result<Option<Header>> {
    let mut bytes = [0; HEADER];
    match read_exact(file, &mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        read => read.map(|()| Header::decode(&bytes, place, seed)),
    }
}

/// A piece of a file in memory, which moves along.
pub(crate) struct Window<'a> {
    file: &'a dyn File,
    pub(crate) length: u64,
    bytes: Vec<u8>,
    start: u64,
}

impl<'a> Window<'a> {
    pub(crate) fn new(file: &'a dyn File) -> io::Result<Self> {
        Ok(Self {
            file,
            length: file.length()?,
            bytes: Vec::new(),
            start: 0,
        })
    }

    /// Whether there is nothing but zeros from `at` on.
    fn is_zero_from(&mut self, mut at: u64) -> io::Result<bool> {
        while at < self.length {
            let bytes = self.get(at, CHUNK)?;
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += bytes.len() as u64;
        }
        Ok(true)
    }

    /// The bytes at `at`, as many as were asked for or as there are.
    pub(crate) fn get(&mut self, at: u64, size: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.length.saturating_sub(at)).unwrap_or(usize::MAX);
        let size = size.min(left);
        let end = self.start + self.bytes.len() as u64;
        if at < self.start || at + size as u64 > end {
            self.bytes.clear();
            self.bytes.resize(size.max(CHUNK.min(left)), 0);
            self.bytes.shrink_to(4 * CHUNK);
            self.start = at;
            read_exact(self.file, &mut self.bytes, at)?;
        }
        let skip = (at - self.start) as usize;
        Ok(&self.bytes[skip..skip + size])
    }
}

/// How much is read at once.
const CHUNK: usize = 256 << 10;

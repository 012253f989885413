//! Writing: one thread that takes whatever has arrived, writes it as one batch, syncs, and only
//! then says so.
//!
//! At most one batch is in flight, in both lanes together. Nobody waits on purpose: while one
//! batch is being synced the next one gathers.
//!
//! A sync that failed is never tried again, because the system may have forgotten what it could
//! not write. The log then takes nothing more until it is opened anew.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Instant, SystemTime};

use hookbot_protocol::{Cursor, Offset};

use crate::batch::{Batch, Pending, Publisher, Request};
use crate::disk::{self, Disk, File};
use crate::index::Growing;
use crate::queue::{Queue, Work};
use crate::record::{self, Stamp};
use crate::segment::{HEADER, Header, Indexed, Place, Segment, Space};
use crate::store::Store;
use crate::{AppendError, Appended};

/// The one who writes.
pub(crate) struct Writer {
    store: Arc<Store>,
    /// Where closed segments go, or nothing, to wake the keeper.
    closed: SyncSender<Option<Arc<Segment>>>,
    ends: [End; 2],
    next: Offset,
}

/// The growing end of a lane.
pub(crate) struct End {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn File>,
    /// Where the records end, as far as they are durable.
    pub(crate) at: u64,
    /// Where the zeros end that have been written behind them.
    pub(crate) room: u64,
    /// The last offset of the lane.
    pub(crate) last: Offset,
}

impl Writer {
    pub(crate) fn new(
        store: Arc<Store>,
        closed: SyncSender<Option<Arc<Segment>>>,
        ends: [End; 2],
    ) -> Self {
        let next = store.newest().next();
        Self {
            store,
            closed,
            ends,
            next,
        }
    }

    /// Works until the queue is closed and empty.
    pub(crate) fn run(mut self, queue: &Queue) {
        // However this ends, nobody shall wait for an answer that never comes.
        let _abandoned = Abandon(queue);
        while let Some(work) = queue.take() {
            match work {
                Work::Append(batch) => self.commit(batch),
                Work::Close(space) => self.close(space),
                // If it has something to do already, it will look afterwards.
                Work::WakeKeeper => drop(self.closed.try_send(None)),
            }
        }
    }

    fn commit(&mut self, mut requests: Vec<Request>) {
        // Who no longer waits has been told that the message is not in the log.
        requests.retain(|request| !request.publisher.is_closed());
        if requests.is_empty() {
            return;
        }
        if self.store.has_failed() {
            for request in requests {
                answer(request.publisher, Err(AppendError::Failed));
            }
            return;
        }
        let start = Instant::now();
        let now = record::micros(SystemTime::now());
        let batch = Batch::new(&self.store, requests, self.next, now);
        match self.write(&batch.pending, now) {
            Ok(bytes) => {
                let counters = &self.store.counters;
                counters.committed(batch.pending.len(), bytes, start.elapsed());
                self.publish(batch);
            }
            Err(error) => {
                self.store.counters.failed();
                for publisher in batch.into_publishers() {
                    answer(publisher, Err(error));
                }
            }
        }
    }

    /// Writes a batch and syncs it. If that fails, none of it is in the log.
    fn write(&mut self, pending: &[Pending], now: u64) -> Result<usize, AppendError> {
        let mut sizes = [0; 2];
        let mut counts = [0; 2];
        for pending in pending {
            let space = Space::of(pending.message.topic()) as usize;
            sizes[space] += pending.size;
            counts[space] += 1;
        }
        for space in Space::ALL {
            let at = space as usize;
            if counts[at] > 0 && self.is_closed_by(space, sizes[at] as u64, counts[at]) {
                self.roll(space, now).map_err(|error| self.refuse(&error))?;
            }
        }
        self.write_records(pending, now)
            .and_then(|()| self.make_room(sizes))
            .and_then(|()| self.sync(counts))
            .map_err(|error| match error {
                // A sync that failed is not to be trusted, whatever it says.
                Failure::Write(error) if disk::is_full(&error) => self.cut_back(&error, counts),
                Failure::Write(error) | Failure::Sync(error) => self.fail(&error),
            })?;
        Ok(sizes.iter().sum())
    }

    fn write_records(&self, pending: &[Pending], now: u64) -> Result<(), Failure> {
        let durable = [self.ends[0].last, self.ends[1].last];
        for space in Space::ALL {
            let end = &self.ends[space as usize];
            let mut bytes = Vec::new();
            // Where in `bytes` a body goes that is not copied there.
            let mut bodies: Vec<(usize, &[u8])> = Vec::new();
            for Pending { message, .. } in pending {
                if Space::of(message.topic()) != space {
                    continue;
                }
                let stamp = Stamp {
                    offset: message.offset,
                    time: now,
                    durable,
                };
                let publication = &message.publication;
                record::encode(publication, stamp, end.segment.seed, &mut bytes);
                if publication.body.len() < BY_REFERENCE {
                    bytes.extend_from_slice(&publication.body);
                } else {
                    bodies.push((bytes.len(), &publication.body));
                }
            }
            if bytes.is_empty() {
                continue;
            }
            let mut parts = Vec::with_capacity(bodies.len() * 2 + 1);
            let mut copied = 0;
            for (at, body) in bodies {
                parts.push(IoSlice::new(&bytes[copied..at]));
                parts.push(IoSlice::new(body));
                copied = at;
            }
            parts.push(IoSlice::new(&bytes[copied..]));
            disk::write_all(&*end.file, &mut parts, end.at).map_err(Failure::Write)?;
        }
        Ok(())
    }

    /// Writes zeros behind the records where the file is about to grow: a file system syncs
    /// what goes where something has been before far more quickly, for it has nothing of its own
    /// to write.
    fn make_room(&mut self, sizes: [usize; 2]) -> Result<(), Failure> {
        let segment = self.store.options.segment_bytes();
        for (end, size) in self.ends.iter_mut().zip(sizes) {
            let at = end.at + size as u64;
            let room = segment.min(at + (segment / 16).min(ROOM));
            if size == 0 || at <= end.room || at >= room {
                continue;
            }
            let zeros = vec![0; (room - at) as usize];
            match disk::write_all(&*end.file, &mut [IoSlice::new(&zeros)], at) {
                Ok(()) => end.room = room,
                // The records have their place, that is enough.
                Err(error) if disk::is_full(&error) => {}
                Err(error) => return Err(Failure::Write(error)),
            }
        }
        Ok(())
    }

    fn sync(&self, counts: [usize; 2]) -> Result<(), Failure> {
        for (end, count) in self.ends.iter().zip(counts) {
            if count > 0 && self.store.options.sync {
                end.file.sync().map_err(Failure::Sync)?;
            }
        }
        Ok(())
    }

    /// The batch is durable: tells the index, the readers, the publishers.
    fn publish(&mut self, batch: Batch) {
        let Batch { pending, repeats } = batch;
        for space in Space::ALL {
            let end = &mut self.ends[space as usize];
            let mut index = end.segment.index_mut();
            let Indexed::Growing(index) = &mut *index else {
                unreachable!("the end of a lane has its index in memory");
            };
            for pending in &pending {
                let message = &pending.message;
                if Space::of(message.topic()) == space {
                    let time = record::micros(message.time);
                    let topic = message.topic().as_str();
                    index.push(message.offset, time, pending.size, topic, pending.delivery);
                    end.at += pending.size as u64;
                    end.last = message.offset;
                }
            }
        }
        if let Some(last) = pending.last() {
            self.next = last.message.offset.next();
            let messages = pending.iter().map(|pending| pending.message.clone());
            self.store.publish(messages);
        }
        for pending in pending {
            let offset = pending.message.offset;
            answer(pending.publisher, Ok(self.appended(offset, false)));
        }
        for (publisher, offset) in repeats {
            answer(publisher, Ok(self.appended(offset, true)));
        }
    }

    /// Whether the segment has to be closed before so much is written.
    fn is_closed_by(&self, space: Space, bytes: u64, count: usize) -> bool {
        let End { segment, at, .. } = &self.ends[space as usize];
        let extent = segment.extent();
        let reach = self.next.0 + count as u64 - segment.header.base.0;
        extent.count > 0
            && (at + bytes > self.store.options.segment_bytes()
                || extent.count as usize + count > MAX_RECORDS
                || reach >= u64::from(u32::MAX) - MAX_BATCH)
    }

    /// Closes a segment before its time.
    fn close(&mut self, space: Space) {
        let segment = &self.ends[space as usize].segment;
        if segment.extent().count == 0 || self.store.has_failed() {
            return;
        }
        let now = record::micros(SystemTime::now());
        if let Err(error) = self.roll(space, now) {
            self.refuse(&error);
        }
    }

    /// Begins the next segment of a lane. Everything of it is durable before it is used.
    fn roll(&mut self, space: Space, now: u64) -> Result<(), Failure> {
        let end = &mut self.ends[space as usize];
        if end.room > end.at {
            end.file.truncate(end.at).map_err(Failure::Write)?;
            end.file.sync().map_err(Failure::Sync)?;
            end.room = end.at;
        }
        let number = end.segment.place().number + 1;
        let header = Header {
            place: Place { space, number },
            after_repair: false,
            epoch: self.store.meta.epoch,
            base: self.next,
            time: now,
            durable: [self.ends[0].last, self.ends[1].last],
        };
        let seed = header.place.seed(&self.store.meta);
        let file = begin(&*self.store.disk, &header, seed).inspect_err(|_| {
            // What there is of the file is in the way of nothing: the next try empties it, and
            // recovery knows a segment that was never begun.
            let _ = self.store.disk.remove(&header.place.log_name());
        })?;
        let segment = Segment::new(header, seed, Indexed::Growing(Growing::new(header.base)));
        let segment = Arc::new(segment);
        self.store.lanes[space as usize].push(segment.clone());
        let end = &mut self.ends[space as usize];
        let closed = std::mem::replace(&mut end.segment, segment);
        end.file = file;
        end.at = HEADER as u64;
        end.room = end.at;
        // Waits if sealing is behind, or memory would fill up with indexes. The other side is
        // gone only once this thread is.
        let _ = self.closed.send(Some(closed));
        Ok(())
    }

    fn refuse(&self, failure: &Failure) -> AppendError {
        match failure {
            Failure::Write(error) if disk::is_full(error) => {
                tracing::warn!("no room for a new segment: {error}");
                self.store.was_full();
                AppendError::Full
            }
            Failure::Write(error) | Failure::Sync(error) => self.fail(error),
        }
    }

    /// Takes back what was written of a batch for which there was no room.
    fn cut_back(&mut self, error: &io::Error, counts: [usize; 2]) -> AppendError {
        tracing::warn!("no room for a batch: {error}");
        let written = self.ends.iter_mut().zip(counts);
        let mut written = written.filter(|(_, count)| *count > 0);
        let cut = written.try_for_each(|(end, _)| {
            end.room = end.at;
            end.file.truncate(end.at)?;
            // Or after a crash these messages might be there all the same, though their
            // publishers were told otherwise.
            end.file.sync()
        });
        if let Err(error) = cut {
            return self.fail(&error);
        }
        self.store.was_full();
        AppendError::Full
    }

    fn fail(&self, error: &io::Error) -> AppendError {
        tracing::error!("the log takes no more messages, because writing has failed: {error}");
        self.store.fail();
        AppendError::Failed
    }

    fn appended(&self, offset: Offset, is_duplicate: bool) -> Appended {
        let epoch = self.store.meta.epoch;
        Appended {
            cursor: Cursor { epoch, offset },
            is_duplicate,
        }
    }
}

/// Ends the queue when the writer ends.
struct Abandon<'a>(&'a Queue);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// What went wrong on the way to the disk.
pub(crate) enum Failure {
    Write(io::Error),
    Sync(io::Error),
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Write(error) | Failure::Sync(error) => error,
        }
    }
}

/// Makes the file of a new segment.
pub(crate) fn begin(disk: &dyn Disk, header: &Header, seed: u32) -> Result<Arc<dyn File>, Failure> {
    let file = disk
        .create(&header.place.log_name())
        .map_err(Failure::Write)?;
    let bytes = header.encode(seed);
    disk::write_all(&*file, &mut [IoSlice::new(&bytes)], 0).map_err(Failure::Write)?;
    file.sync().map_err(Failure::Sync)?;
    disk.sync().map_err(Failure::Sync)?;
    Ok(file)
}

fn answer(publisher: Publisher, answer: Result<Appended, AppendError>) {
    // One that has gone away does not want to know.
    let _ = publisher.send(answer);
}

/// The most records in a segment, because their index is in memory while it grows.
const MAX_RECORDS: usize = 262_144;

/// More than there are in any batch.
const MAX_BATCH: u64 = 1 << 16;

/// How far ahead of its records a file has been written, at most.
const ROOM: u64 = 256 << 10;

/// Bodies from this size on are written from where they are.
const BY_REFERENCE: usize = 8 << 10;

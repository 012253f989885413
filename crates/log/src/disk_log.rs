//! The log on disk.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, SystemTime};

use futures_core::future::BoxFuture;
use hookbot_protocol::{Cursor, Epoch, Filter, Message, Offset, Publication};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::batch::{Deduplicate, Request, since};
use crate::commit::{End, Writer};
use crate::disk::{Disk, Folder};
use crate::error::OpenError;
use crate::lane::Lane;
use crate::meta::{self, Meta};
use crate::options::Options;
use crate::queue::Queue;
use crate::read::may_have_delivery;
use crate::record::{self, micros};
use crate::recover::{Recovered, recover};
use crate::repair::repair;
use crate::retention::{Dropped, Keeper, trim};
use crate::segment::{Space, hash_delivery};
use crate::stats::{LaneStats, Stats};
use crate::store::{READERS, Store};
use crate::{AppendError, Appended, Bounds, Limit, Log, Page, ReadError, Tail};

/// A log in a folder: what it has acknowledged is there after a crash of the process or of the
/// machine.
///
/// Dropping it writes what is queued and waits until its threads have ended.
pub struct DiskLog {
    store: Arc<Store>,
    queue: Arc<Queue>,
    dropped: Arc<Dropped>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held for as long as the folder is in use.
    _lock: Option<File>,
}

impl DiskLog {
    /// How many files it has open at most: for those who read and the tail a segment and its
    /// index each, what is written to, the folder and its lock.
    pub const DESCRIPTORS: usize = 2 * (READERS + 1) + 6;

    /// Opens the log in a folder, or begins one. Only one process can have it open.
    ///
    /// Reads the newest segments; the older ones have an index. Blocks meanwhile.
    ///
    /// # Errors
    ///
    /// When the folder is in use or can't be used, when a newer version of the program wrote
    /// it, or when something that was acknowledged is damaged. Nothing is changed then.
    pub fn open(folder: &Path, options: Options) -> Result<Self, OpenError> {
        let name = || folder.display().to_string();
        let disk = Folder::create(folder).map_err(|source| OpenError::Io {
            file: name(),
            source,
        })?;
        let lock = lock(folder)?;
        Self::open_on(Arc::new(disk), options, Some(lock))
    }

    pub(crate) fn open_on(
        disk: Arc<dyn Disk>,
        options: Options,
        lock: Option<File>,
    ) -> Result<Self, OpenError> {
        let (store, ends) = load(disk, options)?;
        let options = &store.options;
        let queue = Queue::new(options.queue_bytes, options.segment_bytes());
        let queue = Arc::new(queue);
        let dropped = Arc::new(Dropped::default());

        let (closed, closing) = sync_channel(1);
        let keeper = Keeper {
            store: store.clone(),
            queue: queue.clone(),
            dropped: dropped.clone(),
        };
        let writer = Writer::new(store.clone(), closed, ends);
        let threads = [
            spawn("log-writer", {
                let queue = queue.clone();
                move || writer.run(&queue)
            })?,
            spawn("log-keeper", move || keeper.run(&closing))?,
        ];
        Ok(Self {
            store,
            queue,
            dropped,
            threads: Mutex::new(threads.into()),
            _lock: lock,
        })
    }

    /// Figures about the log, as they are now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let next = self.store.newest().next();
        let lane = |space: Space| {
            let lane = &self.store.lanes[space as usize];
            let segments = lane.segments();
            let messages = segments
                .iter()
                .map(|segment| u64::from(segment.extent().count));
            LaneStats {
                segments: segments.len(),
                bytes: segments.iter().map(|segment| segment.bytes()).sum(),
                messages: messages.sum(),
                first: lane.first().unwrap_or(next),
                next,
            }
        };
        Stats {
            safe: lane(Space::Safe),
            r#unsafe: lane(Space::Unsafe),
            commits: self.store.counters.now(),
            queued_bytes: self.queue.bytes(),
            failed_reads: self.store.counters.failed_reads(),
        }
    }

    /// Puts a publication behind those that wait to be written.
    async fn queue(
        &self,
        publication: Publication,
        deduplicate: Option<Duration>,
    ) -> Result<Queued, AppendError> {
        let size = record::size(&publication);
        let capacity = self
            .store
            .options
            .budget(Space::of(&publication.topic))
            .bytes;
        let capacity = usize::try_from(capacity)
            .unwrap_or(usize::MAX)
            .min(record::MAX_SIZE);
        if size > capacity {
            return Err(AppendError::TooLarge { capacity });
        }
        if self.store.has_failed() {
            return Err(AppendError::Failed);
        }
        let (publication, deduplicate) = match deduplicate {
            Some(window) => match self.find(publication, window).await {
                Ok(found) => found,
                Err(offset) => return Ok(Queued::Repeats(offset)),
            },
            None => (publication, None),
        };
        let (publisher, answer) = oneshot::channel();
        let request = Request {
            publication,
            size,
            deduplicate,
            publisher,
        };
        self.queue.push(request)?;
        Ok(Queued::Written(answer))
    }

    /// Waits for what becomes of it.
    async fn answer(&self, queued: Queued) -> Result<Appended, AppendError> {
        match queued {
            Queued::Repeats(offset) => Ok(self.repeated(offset)),
            // The writer answers everything it takes, unless it panics.
            Queued::Written(answer) => answer.await.unwrap_or(Err(AppendError::Failed)),
        }
    }

    /// Looks for a delivery in the closed segments, where the writer would have to wait for the
    /// disk. Fails with the offset of the message it repeats.
    async fn find(
        &self,
        publication: Publication,
        window: Duration,
    ) -> Result<(Publication, Option<Deduplicate>), Offset> {
        let Some(id) = &publication.delivery_id else {
            return Ok((publication, None));
        };
        let topic = publication.topic.as_str();
        let hash = hash_delivery(&self.store.meta, topic, id, &publication.body);
        let segments = self.store.lanes[Space::of(&publication.topic) as usize].segments();
        let checked = segments.last().map_or(0, |segment| segment.place().number);
        let deduplicate = Deduplicate {
            hash,
            window,
            checked,
        };
        let since = since(micros(SystemTime::now()), window);
        let mut candidates: Vec<_> = segments[..segments.len() - 1].to_vec();
        candidates.retain(|segment| may_have_delivery(segment, hash, since));
        if candidates.is_empty() {
            return Ok((publication, Some(deduplicate)));
        }
        let copy = publication.clone();
        let found = self.store.clone().read(move |store| {
            let mut newest_first = candidates.iter().rev();
            newest_first.find_map(|segment| store.find_delivery(segment, &copy, hash, since))
        });
        match found.await.flatten() {
            Some(offset) => Err(offset),
            None => Ok((publication, Some(deduplicate))),
        }
    }

    fn repeated(&self, offset: Offset) -> Appended {
        let epoch = self.store.meta.epoch;
        Appended {
            cursor: Cursor { epoch, offset },
            is_duplicate: true,
        }
    }
}

/// A publication that the log has taken on.
enum Queued {
    /// It is there already.
    Repeats(Offset),
    /// The writer says what became of it.
    Written(oneshot::Receiver<Result<Appended, AppendError>>),
}

impl Log for DiskLog {
    fn epoch(&self) -> Epoch {
        self.store.meta.epoch
    }

    fn append(
        &self,
        publication: Publication,
        deduplicate: Option<Duration>,
    ) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            let queued = self.queue(publication, deduplicate).await?;
            self.answer(queued).await
        })
    }

    fn append_all(
        &self,
        publications: Vec<Publication>,
        deduplicate: Option<Duration>,
    ) -> BoxFuture<'_, Vec<Result<Appended, AppendError>>> {
        Box::pin(async move {
            let mut all = Vec::with_capacity(publications.len());
            for publication in publications {
                let queued = self.queue(publication, deduplicate).await;
                let goes_on = queued.is_ok();
                all.push(queued);
                if !goes_on {
                    break;
                }
            }
            let mut answers = Vec::with_capacity(all.len());
            for queued in all {
                answers.push(match queued {
                    Ok(queued) => self.answer(queued).await,
                    Err(error) => Err(error),
                });
            }
            answers
        })
    }

    fn bounds(&self) -> Bounds {
        self.store.bounds()
    }

    fn read(
        &self,
        filter: Filter,
        from: Offset,
        limit: Limit,
    ) -> BoxFuture<'static, Result<Page, ReadError>> {
        let upto = {
            let newest = self.store.newest();
            if let Some(page) = newest.read(&filter, from, limit) {
                return Box::pin(std::future::ready(Ok(page)));
            }
            newest.next()
        };
        let store = self.store.clone();
        Box::pin(async move {
            let page = store.read(move |store| store.read_page(&filter, from, upto, limit));
            page.await.unwrap_or_else(|| Err(stopped(from)))
        })
    }

    fn seek(&self, time: SystemTime) -> BoxFuture<'static, Result<Offset, ReadError>> {
        let upto = self.store.newest().next();
        let store = self.store.clone();
        Box::pin(async move {
            let found = store.read(move |store| store.seek(time, upto));
            found.await.unwrap_or_else(|| Err(stopped(upto)))
        })
    }

    fn is_writable(&self) -> bool {
        self.store.is_writable()
    }

    fn stats(&self) -> Option<Stats> {
        Some(self.stats())
    }

    fn trim(&self, upto: Offset) {
        trim(&self.store, &self.dropped, upto);
        self.queue.wake_keeper();
    }

    fn tail(&self) -> Box<dyn Tail> {
        let mut newest = self.store.newest();
        newest.tail = Some(newest.next());
        Box::new(DiskTail(self.store.clone()))
    }
}

impl Drop for DiskLog {
    fn drop(&mut self) {
        self.queue.end();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

struct DiskTail(Arc<Store>);

impl Tail for DiskTail {
    fn next(&mut self) -> BoxFuture<'_, Vec<Arc<Message>>> {
        Box::pin(async {
            loop {
                let (from, upto) = {
                    let mut newest = self.0.newest();
                    let from = newest.tail.unwrap_or_else(|| newest.next());
                    let batch: Option<Vec<_>> = newest
                        .since(from)
                        .map(|since| since.take(BATCH).cloned().collect());
                    match batch {
                        Some(batch) if batch.is_empty() => (from, from),
                        Some(batch) => {
                            newest.tail = batch.last().map(|last| last.offset.next());
                            return batch;
                        }
                        None => (from, newest.next()),
                    }
                };
                if from == upto {
                    self.0.appended.notified().await;
                    continue;
                }
                // So far behind that memory has moved on.
                let store = self.0.clone();
                let page = spawn_blocking(move || store.read_all(from, upto)).await;
                if let Ok(page) = page {
                    self.0.newest().tail = Some(page.next);
                    if !page.messages.is_empty() {
                        return page.messages;
                    }
                }
            }
        })
    }
}

impl Drop for DiskTail {
    fn drop(&mut self) {
        self.0.newest().tail = None;
    }
}

/// Recovers a log, or begins one. Nothing writes to it yet.
pub(crate) fn load(
    disk: Arc<dyn Disk>,
    options: Options,
) -> Result<(Arc<Store>, [End; 2]), OpenError> {
    let meta = match Meta::read(&*disk)? {
        Some(meta) if options.repair => repair(&*disk, meta)?,
        Some(meta) => meta,
        None => {
            let meta = Meta::new();
            meta.write(&*disk).map_err(OpenError::io(meta::NAME))?;
            meta
        }
    };
    let Recovered { lanes, ends, next } = recover(&*disk, &meta)?;
    let [safe, r#unsafe] = lanes;
    let lanes = [
        Lane::new(Space::Safe, safe),
        Lane::new(Space::Unsafe, r#unsafe),
    ];
    let store = Store::new(disk, meta, options, lanes, next);
    Ok((Arc::new(store), ends))
}

/// Locks the folder, or says who is in the way.
pub(crate) fn lock(folder: &Path) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let file = options
        .open(folder.join(LOCK))
        .map_err(OpenError::io(folder.join(LOCK).display().to_string()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse {
            folder: folder.to_owned(),
        }),
        Err(error) => Err(OpenError::io(LOCK)(error.into())),
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    let thread = Builder::new().name(name.to_owned());
    thread.spawn(run).map_err(OpenError::io("a thread"))
}

fn stopped(at: Offset) -> ReadError {
    ReadError::Broken {
        at,
        reason: "the program is stopping".into(),
    }
}

const LOCK: &str = "lock";

/// How many messages the tail hands out at once.
const BATCH: usize = 256;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;
    use std::thread::sleep;

    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;
    use crate::fault::FaultDisk;

    #[tokio::test]
    async fn so_many_read_at_a_time_however_many_want_to() {
        let disk = Arc::new(FaultDisk::new(1));
        let log = DiskLog::open_on(disk, Options::default(), None).unwrap();
        let reading = Arc::new([const { AtomicUsize::new(0) }; 2]);
        let mut reads = JoinSet::new();
        for _ in 0..READERS * 10 {
            let reading = reading.clone();
            reads.spawn(log.store.clone().read(move |_| {
                let [now, most] = &*reading;
                most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                // Time for the others to come, if they may.
                sleep(Duration::from_millis(1));
                now.fetch_sub(1, Ordering::Relaxed);
            }));
        }
        reads.join_all().await;
        let [_, most] = &*reading;
        assert!(most.load(Ordering::Relaxed) <= READERS, "{most:?}");
    }

    #[tokio::test]
    async fn who_does_not_look_what_was_read_keeps_nobody_waiting() {
        let disk = Arc::new(FaultDisk::new(1));
        let log = DiskLog::open_on(disk, Options::default(), None).unwrap();
        let all = u32::try_from(READERS).unwrap();
        let turns = log.store.readers.clone().acquire_many_owned(all).await;
        let mut asleep: Vec<_> = (0..READERS)
            .map(|_| Box::pin(log.store.clone().read(|_| ())))
            .collect();
        poll_fn(|context| {
            for reading in &mut asleep {
                assert!(reading.as_mut().poll(context).is_pending());
            }
            Poll::Ready(())
        })
        .await;
        drop(turns);
        let reading = log.store.clone().read(|_| ());
        let read = timeout(Duration::from_secs(10), reading).await;
        assert_eq!(read, Ok(Some(())), "nobody comes to his turn");
    }
}

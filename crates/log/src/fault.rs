//! A disk for tests that loses power, fills up and fails.
//!
//! What was not synced is kept apart: sectors of files, and changes of the folder. A crash keeps
//! any subset of either.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;

use crate::disk::{Disk, File, is_full};

/// Clones are the same disk.
#[derive(Clone)]
pub(crate) struct FaultDisk(Arc<Mutex<State>>);

struct State {
    random: fastrand::Rng,
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    unsynced: Vec<Change>,
    calls: u64,
    plan: Option<(u64, Fault)>,
    is_full: bool,
    is_down: bool,
    /// Files that were opened before a crash are of no use after it.
    boot: u64,
}

#[derive(Default, Clone)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Write>,
    /// What a failed sync has forgotten: no later sync will write it.
    forgotten: Vec<Write>,
}

#[derive(Clone)]
enum Write {
    Bytes(u64, Vec<u8>),
    Truncate(u64),
}

#[derive(Clone)]
enum Change {
    Create(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

/// What happens at a call that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The power goes off.
    Crash,
    /// The device fails once.
    Io,
    /// There is no room, once.
    Full,
    /// There is no room from now on.
    StaysFull,
    /// No new file can be opened, once.
    Descriptors,
    /// A write writes only some bytes.
    Short,
    /// A signal comes.
    Interrupted,
}

impl FaultDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_files(seed, BTreeMap::new())
    }

    pub(crate) fn with_files(seed: u64, files: BTreeMap<String, Vec<u8>>) -> Self {
        let mut names = BTreeMap::new();
        let mut inodes = Vec::new();
        for (name, bytes) in files {
            names.insert(name, inodes.len());
            inodes.push(Inode {
                durable: bytes.clone(),
                bytes,
                ..Inode::default()
            });
        }
        Self(Arc::new(Mutex::new(State {
            random: fastrand::Rng::with_seed(seed),
            inodes,
            durable: names.clone(),
            names,
            unsynced: Vec::new(),
            calls: 0,
            plan: None,
            is_full: false,
            is_down: false,
            boot: 0,
        })))
    }

    /// The files as a process sees them.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let names = state.names.iter();
        names
            .map(|(name, at)| (name.clone(), state.inodes[*at].bytes.clone()))
            .collect()
    }

    /// Removes the files whose names end so, durably.
    pub(crate) fn remove_ending(&self, ending: &str) {
        let state = &mut *self.state();
        state.names.retain(|name, _| !name.ends_with(ending));
        state.durable.clone_from(&state.names);
        state.unsynced.clear();
    }

    /// Gives each file whose name ends so the contents of the next one, durably.
    pub(crate) fn rotate_ending(&self, ending: &str) {
        let state = &mut *self.state();
        let matching = state
            .names
            .iter_mut()
            .filter(|(name, _)| name.ends_with(ending));
        let mut inodes: Vec<_> = matching.map(|(_, at)| at).collect();
        let mut rotated: Vec<usize> = inodes.iter().map(|at| **at).collect();
        rotated.rotate_left(inodes.len().min(1));
        inodes
            .iter_mut()
            .zip(rotated)
            .for_each(|(at, other)| **at = other);
        state.durable.clone_from(&state.names);
        state.unsynced.clear();
    }

    /// Plans a fault for the n-th call from now.
    pub(crate) fn plan(&self, after: u64, fault: Fault) {
        let mut state = self.state();
        state.plan = Some((state.calls + after, fault));
    }

    pub(crate) fn free(&self) {
        self.state().is_full = false;
    }

    pub(crate) fn is_down(&self) -> bool {
        self.state().is_down
    }

    /// Whether the planned fault has yet to happen.
    pub(crate) fn has_plan(&self) -> bool {
        self.state().plan.is_some()
    }

    /// Loses power, if it has not, and starts again with what happened to become durable.
    pub(crate) fn restart(&self) {
        let state = &mut *self.state();
        let random = &mut state.random;
        // Now and then nothing that was not synced is kept, or all of it.
        let odds = [0.0, 0.5, 0.9, 1.0][random.usize(..4)];
        for change in std::mem::take(&mut state.unsynced) {
            if random.f64() < odds {
                apply_change(&mut state.durable, change);
            }
        }
        for inode in &mut state.inodes {
            let writes = inode.forgotten.drain(..).chain(inode.unsynced.drain(..));
            for write in writes.collect::<Vec<_>>() {
                apply_sectors(&mut inode.durable, &write, random, odds);
            }
            inode.bytes.clone_from(&inode.durable);
        }
        state.names.clone_from(&state.durable);
        state.plan = None;
        state.is_full = false;
        state.is_down = false;
        state.boot += 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .expect("no test panics while it holds the lock")
    }

    fn file(&self, state: &State, at: usize) -> Arc<dyn File> {
        Arc::new(FaultFile {
            disk: self.clone(),
            at,
            boot: state.boot,
        })
    }
}

impl State {
    /// Counts a call that changes something, and says what shall happen to it.
    fn call(&mut self, takes_room: bool) -> Result<Option<Fault>, io::Error> {
        if self.is_down {
            return Err(down());
        }
        self.calls += 1;
        let mut fault = None;
        if let Some((at, planned)) = self.plan
            && self.calls >= at
            // A disk that is full is noticed by those who need room.
            // Cutting a file is tried again by the standard library after a signal.
            && (takes_room || matches!(planned, Fault::Crash | Fault::Io))
            && planned != Fault::Descriptors
        {
            self.plan = None;
            fault = Some(planned);
        }
        match fault {
            Some(Fault::StaysFull) => self.is_full = true,
            Some(Fault::Crash) => self.is_down = true,
            Some(Fault::Io) => return Err(io::Error::from_raw_os_error(5)),
            Some(Fault::Full) => return Err(ErrorKind::StorageFull.into()),
            _ => {}
        }
        if self.is_full && takes_room {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(fault)
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        let takes_room = matches!(change, Change::Create(..));
        let fault = self.call(takes_room)?;
        apply_change(&mut self.names, change.clone());
        self.unsynced.push(change);
        if fault == Some(Fault::Crash) {
            Err(down())
        } else {
            Ok(())
        }
    }
}

impl Disk for FaultDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        if state.is_down {
            return Err(down());
        }
        Ok(state.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let state = self.state();
        if state.is_down {
            return Err(down());
        }
        let at = *state.names.get(name).ok_or(ErrorKind::NotFound)?;
        Ok(self.file(&state, at))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let state = &mut *self.state();
        if state
            .plan
            .is_some_and(|(at, fault)| fault == Fault::Descriptors && state.calls + 1 >= at)
        {
            state.plan = None;
            return Err(Errno::MFILE.into());
        }
        let at = match state.names.get(name).copied() {
            Some(at) => {
                state.call(true)?;
                let write = Write::Truncate(0);
                apply(&mut state.inodes[at].bytes, &write);
                state.inodes[at].unsynced.push(write);
                at
            }
            None => {
                let at = state.inodes.len();
                state.inodes.push(Inode::default());
                state.change(Change::Create(name.to_owned(), at))?;
                at
            }
        };
        Ok(self.file(state, at))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let at = *state.names.get(from).ok_or(ErrorKind::NotFound)?;
        state.change(Change::Rename(from.to_owned(), to.to_owned(), at))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(name) {
            return Err(ErrorKind::NotFound.into());
        }
        state.change(Change::Remove(name.to_owned()))
    }

    fn sync(&self) -> io::Result<()> {
        let state = &mut *self.state();
        let crashes = state.call(false)? == Some(Fault::Crash);
        if !crashes || state.random.bool() {
            state.unsynced.clear();
            state.durable.clone_from(&state.names);
        }
        if crashes { Err(down()) } else { Ok(()) }
    }
}

struct FaultFile {
    disk: FaultDisk,
    at: usize,
    boot: u64,
}

impl FaultFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.is_down || state.boot != self.boot {
            return Err(down());
        }
        Ok(state)
    }

    fn write(&self, write: Write, takes_room: bool) -> io::Result<usize> {
        let state = &mut *self.state()?;
        let call = state.call(takes_room);
        let is_full = call.as_ref().is_err_and(is_full);
        let fault = match call {
            // Some of it still fits.
            Err(_) if is_full => Some(Fault::Short),
            call => call?,
        };
        let write = match (fault, write) {
            (Some(Fault::Interrupted), _) => return Err(ErrorKind::Interrupted.into()),
            (Some(Fault::Short), Write::Bytes(at, mut bytes)) => {
                bytes.truncate(bytes.len().div_ceil(2));
                Write::Bytes(at, bytes)
            }
            (_, write) => write,
        };
        let inode = &mut state.inodes[self.at];
        apply(&mut inode.bytes, &write);
        inode.unsynced.push(write.clone());
        match (fault, write) {
            (Some(Fault::Crash), _) => Err(down()),
            _ if is_full => Err(ErrorKind::StorageFull.into()),
            (_, Write::Bytes(_, bytes)) => Ok(bytes.len()),
            (_, Write::Truncate(_)) => Ok(0),
        }
    }
}

impl File for FaultFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.state()?.inodes[self.at].bytes.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.state()?;
        let bytes = &state.inodes[self.at].bytes;
        let bytes = bytes.get(at as usize..).unwrap_or_default();
        let read = bytes.len().min(buffer.len());
        buffer[..read].copy_from_slice(&bytes[..read]);
        Ok(read)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        let bytes = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.write(Write::Bytes(at, bytes), true)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.write(Write::Truncate(length), false).map(|_| ())
    }

    fn sync(&self) -> io::Result<()> {
        let state = &mut *self.state()?;
        let fault = state.call(false);
        let inode = &mut state.inodes[self.at];
        match fault {
            Ok(Some(Fault::Crash)) if state.random.bool() => return Err(down()),
            Err(error) => {
                inode.forgotten.append(&mut inode.unsynced);
                return Err(error);
            }
            _ => {}
        }
        for write in std::mem::take(&mut inode.unsynced) {
            apply(&mut inode.durable, &write);
        }
        if state.is_down { Err(down()) } else { Ok(()) }
    }
}

fn apply(bytes: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Truncate(length) => bytes.resize(*length as usize, 0),
        Write::Bytes(at, new) => {
            let at = *at as usize;
            if bytes.len() < at + new.len() {
                bytes.resize(at + new.len(), 0);
            }
            bytes[at..at + new.len()].copy_from_slice(new);
        }
    }
}

/// Applies each sector of a write, or does not.
fn apply_sectors(bytes: &mut Vec<u8>, write: &Write, random: &mut fastrand::Rng, odds: f64) {
    let Write::Bytes(at, new) = write else {
        if random.f64() < odds {
            apply(bytes, write);
        }
        return;
    };
    // The new length may be durable though the bytes are not.
    let end = *at as usize + new.len();
    if bytes.len() < end && random.f64() < odds / 2.0 {
        bytes.resize(end, 0);
    }
    let mut start = *at as usize;
    while start < end {
        let stop = (start / SECTOR + 1) * SECTOR;
        let stop = stop.min(end);
        if random.f64() < odds {
            let sector = new[start - *at as usize..stop - *at as usize].to_vec();
            apply(bytes, &Write::Bytes(start as u64, sector));
        }
        start = stop;
    }
}

fn apply_change(names: &mut BTreeMap<String, usize>, change: Change) {
    match change {
        Change::Create(name, at) => {
            names.insert(name, at);
        }
        Change::Rename(from, to, at) => {
            if names.get(&from) == Some(&at) {
                names.remove(&from);
            }
            names.insert(to, at);
        }
        Change::Remove(name) => {
            names.remove(&name);
        }
    }
}

fn down() -> io::Error {
    io::Error::other("the power is off")
}

const SECTOR: usize = 512;

//! The server's processes, seen from outside: the processor time and the memory they take.
//!
//! Processor time is the sum of `schedstat` over all threads, which counts nanoseconds. A thread
//! that ended takes its share with it, so where one did, the counters of the whole process are
//! used, which keep it but count in ticks of a hundredth of a second.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::failure::Failure;

/// Processes, and all that they started.
#[derive(Debug, Clone)]
pub(crate) struct ServerProcess(Vec<u32>);

/// Processor time at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    threads: HashMap<u32, u64>,
    ticks: Duration,
}

/// Resident memory at one moment, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// All of it.
    pub(crate) resident: u64,
    /// What is no file's: heap and stacks.
    pub(crate) anonymous: u64,
}

/// How much the two ways to count may differ before some thread must have come and gone.
const TOLERANCE: Duration = Duration::from_millis(50);

impl ServerProcess {
    /// By their ids.
    ///
    /// # Errors
    ///
    /// When one can't be looked at.
    pub(crate) fn new(ids: Vec<u32>) -> Result<Self, Failure> {
        let process = Self(ids);
        process.memory()?;
        process.usage()?;
        Ok(process)
    }

    /// Their processor time so far.
    pub(crate) fn usage(&self) -> Result<Usage, Failure> {
        let mut usage = Usage::default();
        for id in self.family() {
            let stat = read(format!("/proc/{id}/stat"))?;
            usage.ticks += ticks(&stat).ok_or_else(unreadable)?;
            for thread in threads(id) {
                // It may have ended since it was listed.
                let schedstat = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
                let time = schedstat
                    .split(' ')
                    .next()
                    .and_then(|time| time.parse::<u64>().ok());
                let name = thread
                    .file_name()
                    .and_then(|name| name.to_str()?.parse::<u32>().ok());
                usage.threads.extend(name.zip(time));
            }
        }
        Ok(usage)
    }

    /// Their memory now.
    pub(crate) fn memory(&self) -> Result<Memory, Failure> {
        let mut memory = Memory {
            resident: 0,
            anonymous: 0,
        };
        for id in self.family() {
            let status = read(format!("/proc/{id}/status"))?;
            memory.resident += kib(&status, "VmRSS:").ok_or_else(unreadable)? << 10;
            memory.anonymous += kib(&status, "RssAnon:").ok_or_else(unreadable)? << 10;
        }
        Ok(memory)
    }

    /// They, and their children: nginx's workers are children of the process it was started as.
    fn family(&self) -> Vec<u32> {
        let mut family = self.0.clone();
        let mut known: HashSet<_> = family.iter().copied().collect();
        let mut at = 0;
        while let Some(id) = family.get(at).copied() {
            at += 1;
            for thread in threads(id) {
                let children = fs::read_to_string(thread.join("children")).unwrap_or_default();
                let children = children.split_whitespace().filter_map(|id| id.parse().ok());
                family.extend(children.filter(|id| known.insert(*id)));
            }
        }
        family
    }
}

impl Usage {
    /// What was used since an earlier moment.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let ticks = self.ticks.saturating_sub(earlier.ticks);
        let time = self.threads.iter().map(|(thread, time)| {
            time.saturating_sub(earlier.threads.get(thread).copied().unwrap_or(0))
        });
        let exact = Duration::from_nanos(time.sum());
        let ended = earlier
            .threads
            .keys()
            .any(|thread| !self.threads.contains_key(thread));
        if ended || self.threads.is_empty() || ticks > exact + TOLERANCE {
            return ticks.max(exact);
        }
        exact
    }
}

fn read(path: String) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|cause| Failure::Local("cannot look at the server", cause))
}

fn unreadable() -> Failure {
    let cause = io::ErrorKind::InvalidData.into();
    Failure::Local("cannot look at the server", cause)
}

fn threads(id: u32) -> Vec<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{id}/task"))
        .into_iter()
        .flatten();
    tasks.flatten().map(|task| task.path()).collect()
}

/// User and system time of a `stat` file, where a process may be called anything.
fn ticks(stat: &str) -> Option<Duration> {
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ticks = field(11)? + field(12)?;
    let second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_micros(ticks * 1_000_000 / second))
}

fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(threads: &[(u32, u64)], ticks: u64) -> Usage {
        Usage {
            threads: threads.iter().copied().collect(),
            ticks: Duration::from_millis(ticks),
        }
    }

    #[test]
    fn exact_times_count_unless_a_thread_took_its_own_with_it() {
        let ms = 1_000_000;
        let earlier = usage(&[(1, 100 * ms), (2, 50 * ms)], 150);
        let table = [
            // One more thread.
            (usage(&[(1, 110 * ms), (2, 50 * ms), (3, 2 * ms)], 170), 12),
            // One has ended.
            (usage(&[(1, 110 * ms)], 190), 40),
            // One came and went.
            (usage(&[(1, 110 * ms), (2, 50 * ms)], 260), 110),
        ];
        for (later, expected) in table {
            assert_eq!(later.since(&earlier), Duration::from_millis(expected));
        }
    }

    #[test]
    fn the_times_of_a_process_with_any_name_are_read() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 1 0 0 0 25 75 9 9 20 0 1 0";
        let second = rustix::param::clock_ticks_per_second();
        assert_eq!(
            ticks(stat),
            Some(Duration::from_micros(100_000_000 / second))
        );
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let own = ServerProcess::new(vec![std::process::id()]).unwrap();
        let before = own.usage().unwrap();
        let mut since = Duration::ZERO;
        while since.is_zero() {
            since = own.usage().unwrap().since(&before);
        }
        let memory = own.memory().unwrap();
        assert!(memory.anonymous > 0 && memory.resident >= memory.anonymous);
    }
}

//! One command against one server: how to reach it, how to look at it, and how rounds are run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use hookbot_protocol::Key;

use crate::arguments::{RunArgs, TargetArgs};
use crate::descriptors;
use crate::failure::Failure;
use crate::process::{Memory, ServerProcess, Usage};
use crate::row::Row;
use crate::spawned::Spawned;
use crate::target::Target;
use crate::tls;

/// A server, and what is known of it.
#[derive(Debug)]
pub(crate) struct Session {
    /// Where it is.
    pub(crate) target: Arc<Target>,
    process: Option<ServerProcess>,
    next_run: AtomicU16,
    _spawned: Option<Spawned>,
}

impl Session {
    /// Finds the server, or starts it.
    pub(crate) async fn begin(args: &TargetArgs) -> Result<Self, Failure> {
        let secret = secret(args)?;
        let key = secret.as_deref().map(Key::new).transpose();
        let key = key.map_err(|empty| Failure::Usage(format!("the key: {empty}")))?;
        let local = |cause| Failure::Local("cannot use the certificates", cause);
        let connector = (args.ca.is_some() || args.insecure)
            .then(|| tls::connector(args.ca.as_deref()).map_err(local))
            .transpose()?;
        let elsewhere = args.i_own_this_host;
        let target =
            Target::resolve(&args.url, args.shape, key.as_ref(), connector, elsewhere).await?;
        // A server that is started here has the same limit, and not all raise it by themselves.
        descriptors::available();
        let spawned = match &args.spawn {
            Some(command) => Some(Spawned::start(command, secret.as_deref(), &target).await?),
            None => None,
        };
        let mut pids = args.pid.clone();
        pids.extend(spawned.as_ref().map(Spawned::id));
        let process = (!pids.is_empty())
            .then(|| ServerProcess::new(pids))
            .transpose()?;
        Ok(Self {
            target: Arc::new(target),
            process,
            // Topics of an earlier run may still be retained.
            next_run: AtomicU16::new(fastrand::u16(..)),
            _spawned: spawned,
        })
    }

    /// A number for a run, with topics that nobody has used.
    pub(crate) fn run(&self) -> u16 {
        self.next_run.fetch_add(1, Ordering::Relaxed)
    }

    /// The server's memory now, if it may be looked at.
    pub(crate) fn memory(&self) -> Result<Option<Memory>, Failure> {
        self.process.as_ref().map(ServerProcess::memory).transpose()
    }

    /// The server's processor time so far, if it may be looked at.
    pub(crate) fn usage(&self) -> Result<Option<Usage>, Failure> {
        self.process.as_ref().map(ServerProcess::usage).transpose()
    }

    /// The server's processor time since an earlier moment, in microseconds; not a number where it
    /// is unknown.
    pub(crate) fn microseconds_since(&self, earlier: Option<&Usage>) -> Result<f64, Failure> {
        let used = self
            .usage()?
            .zip(earlier)
            .map(|(now, earlier)| now.since(earlier));
        Ok(used.map_or(f64::NAN, |used| used.as_secs_f64() * 1e6))
    }
}

impl Row {
    /// Adds the server's memory at some moment.
    pub(crate) fn memory(&mut self, when: &str, memory: Option<Memory>) {
        let kib =
            |bytes: fn(Memory) -> u64| memory.map_or(f64::NAN, |own| bytes(own) as f64 / 1024.0);
        self.figure(format!("rss_{when}_kib"), kib(|memory| memory.resident));
        self.figure(format!("anon_{when}_kib"), kib(|memory| memory.anonymous));
    }
}

impl RunArgs {
    /// How many threads the load has.
    pub(crate) fn threads(&self) -> usize {
        let half = || std::thread::available_parallelism().map_or(1, |all| all.get() / 2);
        self.threads.unwrap_or_else(half).max(1)
    }
}

/// The secret that tokens are made with, if there is one.
fn secret(args: &TargetArgs) -> Result<Option<Vec<u8>>, Failure> {
    if let Some(file) = &args.key_file {
        let read = std::fs::read(file);
        let mut secret = read.map_err(|cause| Failure::Local("cannot read the key file", cause))?;
        for ending in [b'\n', b'\r'] {
            secret.pop_if(|last| *last == ending);
        }
        return Ok(Some(secret));
    }
    let given = std::env::var_os("HOOKBOT_KEY").map(|key| key.into_encoded_bytes());
    let random = || {
        args.spawn
            .is_some()
            .then(|| format!("{:032x}", fastrand::u128(..)).into())
    };
    Ok(given.or_else(random))
}

//! A server that was started for the run, and ends with it.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::clock;
use crate::failure::Failure;
use crate::target::{Peculiar, Target};

/// A running server, stopped when dropped.
#[derive(Debug)]
pub(crate) struct Spawned(Child);

/// How long it may take to listen, and to stop.
const PATIENCE: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(10);

impl Spawned {
    /// Starts it with this key, and waits until it listens.
    pub(crate) async fn start(
        command: &str,
        secret: Option<&[u8]>,
        target: &Target,
    ) -> Result<Self, Failure> {
        if target.connect(Peculiar::default()).await.is_ok() {
            return Err(Failure::Usage("there is a server already".to_owned()));
        }
        let mut words = command.split_whitespace();
        let program = words.next();
        let program = program.ok_or_else(|| Failure::Usage("--spawn of nothing".to_owned()))?;
        let mut command = Command::new(program);
        command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // A line a request would be measured, too.
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "warn,hookbot::request=off");
        }
        if let Some(secret) = secret.and_then(|secret| str::from_utf8(secret).ok()) {
            command
                .env("HOOKBOT_KEY", secret)
                .env_remove("HOOKBOT_KEY_FILE");
        }
        let started = command.spawn();
        let started = started.map_err(|cause| Failure::Local("cannot start the server", cause))?;
        let mut spawned = Self(started);
        let began = clock::now();
        loop {
            let Err(cause) = target.connect(Peculiar::default()).await else {
                return Ok(spawned);
            };
            let gone = spawned.0.try_wait().is_ok_and(|ended| ended.is_some());
            if gone || clock::now() - began > PATIENCE.as_nanos() as u64 {
                return Err(Failure::Unreachable(io::Error::other(cause)));
            }
            tokio::time::sleep(STEP).await;
        }
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        let id = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(id) = id {
            // It may be gone already.
            let _ = kill_process(id, Signal::TERM);
        }
        let began = clock::now();
        while clock::now() - began < PATIENCE.as_nanos() as u64 {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(STEP);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

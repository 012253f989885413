//! The program in a process of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::runtime::Runtime;

/// How long a row takes: as long as `--seconds` says, or three.
pub(crate) fn time() -> Duration {
    let seconds = argument("--seconds").and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

/// What the command line says behind this word.
pub(crate) fn argument(word: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != word);
    arguments.nth(1)
}

/// Threads for the client, as many as cores.
pub(crate) fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.expect("threads can be started")
}

/// What its tokens are made with.
pub(crate) const KEY: &str = "a key for benchmarks alone";

/// The program, killed when dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) address: String,
}

impl Program {
    /// Starts the one that was built with the benchmark, or another that `--program` names.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let other = argument("--program");
        let mut child = Command::new(other.as_deref().unwrap_or(env!("CARGO_BIN_EXE_hookbot")))
            .args(["serve", "--bind", "127.0.0.1:0"])
            .args(arguments)
            .env("HOOKBOT_KEY", KEY)
            .env("RUST_LOG", "info,hookbot::request=off")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = child.stderr.take().expect("it was asked for");
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let address = lines
            .find_map(|line| Some(line.split_once("Listening on ")?.1.to_owned()))
            .expect("it says where it listens");
        // Nobody may block it by not reading.
        std::thread::spawn(move || lines.for_each(drop));
        let address = address.split(' ').next().unwrap_or_default().to_owned();
        Self { child, address }
    }

    /// The processor time that it has used, in seconds (proc(5), stat).
    #[allow(dead_code, reason = "not every benchmark asks")]
    pub(crate) fn used(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("it runs");
        let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
        let ticks = fields.split(' ').skip(11).take(2);
        let ticks: u32 = ticks.map(|ticks| ticks.parse::<u32>().unwrap_or(0)).sum();
        f64::from(ticks) / f64::from(TICKS)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many ticks of the kernel's clock are a second, on every Linux that matters.
#[allow(dead_code, reason = "not every benchmark asks")]
const TICKS: u32 = 100;

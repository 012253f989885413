//! An HTTP service that remembers what it was sent and answers as it is told, and the program that
//! forwards to it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::support::{PATIENCE, TestServer, token};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) line: String,
    /// Names as they were sent.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(own, _)| own == name)?;
        Some(str::from_utf8(value).unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }
}

/// What the service does with a request.
pub(crate) enum Act {
    /// Answers with this status.
    Answer(u16),
    /// Never answers.
    Hang,
    /// Closes the connection without an answer.
    HangUp,
}

type Manners = dyn Fn(&Seen) -> Act + Send + Sync;

/// An HTTP service.
#[derive(Clone)]
pub(crate) struct Service {
    seen: Arc<Mutex<Vec<Seen>>>,
    manners: Arc<Manners>,
}

impl Service {
    pub(crate) fn new(manners: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self {
            seen: Arc::default(),
            manners: Arc::new(manners),
        }
    }

    /// A service on a port of its own; its URL.
    pub(crate) async fn start(
        manners: impl Fn(&Seen) -> Act + Send + Sync + 'static,
    ) -> (Self, String) {
        let service = Self::new(manners);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(service.clone().listen(listener));
        (service, url)
    }

    pub(crate) async fn listen(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(self.clone().serve(stream));
        }
    }

    /// Serves one connection.
    pub(crate) async fn serve(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        while let Some(seen) = receive(&mut stream).await {
            let act = (self.manners)(&seen);
            self.seen().push(seen);
            match act {
                Act::Answer(status) => {
                    let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 3\r\n\r\nno\n");
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
                Act::Hang => std::future::pending().await,
                Act::HangUp => return,
            }
        }
    }

    /// What it was sent until now.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap()
    }

    /// Waits until it has been sent so many requests.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Seen> {
        until(
            || self.seen().len() >= count,
            || format!("{} came", self.seen().len()),
        )
        .await;
        self.seen().clone()
    }
}

/// Waits until something is so.
pub(crate) async fn until(is_so: impl Fn() -> bool, otherwise: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{}", otherwise());
        sleep(Duration::from_millis(5)).await;
    }
}

async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let mut body = bytes.split_off(end);
    let mut lines = bytes
        .split(|byte| *byte == b'\n')
        .map(|line| line.trim_ascii_end());
    let line = String::from_utf8(lines.next().unwrap().to_vec()).unwrap();
    let headers: Vec<_> = lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').unwrap();
            let name = String::from_utf8(line[..colon].to_vec()).unwrap();
            (name, line[colon + 1..].trim_ascii_start().to_vec())
        })
        .collect();
    let mut seen = Seen {
        line,
        headers,
        body: Vec::new(),
    };
    let length = seen
        .header("content-length")
        .map_or(0, |text| text.parse().unwrap());
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    assert_eq!(
        body.len(),
        length,
        "nothing is behind a body before it is answered"
    );
    seen.body = body;
    Some(seen)
}

/// Where a forwarder keeps its state, and the server it reads.
pub(crate) struct Stage {
    pub(crate) server: TestServer,
    pub(crate) folder: TempDir,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self {
            server: TestServer::start().await,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The URL of a subscription.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://{}@{}{path}", token("/"), self.server.address)
    }

    /// The program with these arguments, which begin with the command.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookbot"));
        command
            .args(arguments)
            .env("HOOKBOT_FORWARD_STATE", self.path("state"))
            .env("NO_COLOR", "1");
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            command
                .env_remove(name)
                .env_remove(name.to_ascii_lowercase());
        }
        command
    }

    /// Starts to forward, and waits until what is published is forwarded.
    pub(crate) async fn forward(&self, path: &str, arguments: &[&str]) -> Running {
        let url = self.url(path);
        let mut all = vec!["forward", &url];
        all.extend(arguments);
        self.start(self.command(&all)).await
    }

    pub(crate) async fn start(&self, mut command: Command) -> Running {
        let ready = self.path("ready");
        let child = command
            .arg("--ready-file")
            .arg(&ready)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut running = Running(Some(child));
        let deadline = Instant::now() + PATIENCE;
        while !is_written(&ready) {
            assert!(!running.has_ended(), "{:?}", running.end());
            assert!(Instant::now() < deadline, "it is not ready");
            sleep(Duration::from_millis(5)).await;
        }
        std::fs::remove_file(&ready).unwrap();
        running
    }

    /// Runs the program to its end, with the server at work meanwhile.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    pub(crate) async fn publish(&self, topic: &str, body: &str) {
        assert_eq!(self.server.publish(topic, body).await.status, 200);
    }
}

fn is_written(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|file| file.len() > 0)
}

/// A program at work, killed when dropped.
pub(crate) struct Running(Option<Child>);

impl Running {
    fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child().try_wait().unwrap().is_some()
    }

    /// Kills it, as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child().kill().unwrap();
        self.child().wait().unwrap();
    }

    /// Tells it to stop.
    pub(crate) fn terminate(&mut self) {
        let process = rustix::process::Pid::from_child(self.child());
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    }

    fn end(&mut self) -> (Option<i32>, String, String) {
        let mut child = self.0.take().unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut out)
            .unwrap();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut err)
            .unwrap();
        (child.wait().unwrap().code(), out, err)
    }

    /// Waits until it ends by itself: its exit code and what it has printed.
    pub(crate) async fn ended(mut self) -> (Option<i32>, String, String) {
        until_ended(&mut self).await;
        self.end()
    }
}

async fn until_ended(running: &mut Running) {
    let deadline = Instant::now() + PATIENCE;
    while !running.has_ended() {
        assert!(Instant::now() < deadline, "it does not end");
        sleep(Duration::from_millis(5)).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

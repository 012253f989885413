//! A command that is run for each message.
//!
//! It gets the body on its standard input and in a file, and what else is known in its
//! environment, which holds nothing else but what programs need: no secret of whoever started this
//! one. The names that begin with `GOSMEE_` are there for scripts written for gosmee.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::message::Message;
use crate::taker::{Answer, Taker, Verdict};

/// A command for the shell.
#[derive(Debug, Clone)]
pub struct Exec {
    command: String,
    name: String,
    settings: ExecSettings,
}

/// How a command is run.
#[derive(Debug, Clone, Default)]
pub struct ExecSettings {
    /// How long it may take before it is killed, with everything that it has started.
    pub timeout: Option<Duration>,
    /// Variables that it gets besides those that programs need.
    pub variables: Vec<String>,
    /// Whether what it prints goes to standard error, because standard output is for something
    /// else.
    pub prints_to_stderr: bool,
}

impl Exec {
    /// A command as `sh -c` has it.
    #[must_use]
    pub fn new(command: &str, settings: ExecSettings) -> Self {
        Self {
            command: command.to_owned(),
            name: format!("exec:{command}"),
            settings,
        }
    }

    async fn run(&self, message: &Message, attempt: u32) -> io::Result<Ended> {
        let payload = file(&message.payload)?;
        let headers = file(headers(message).as_bytes())?;
        let mut command = Command::new("sh");
        command.args(["-c", &self.command]).env_clear();
        command.envs(self.kept());
        command.envs(facts(message, attempt));
        for prefix in ["HOOKBOT", "GOSMEE"] {
            command.env(format!("{prefix}_PAYLOAD_FILE"), payload.path());
            command.env(format!("{prefix}_HEADERS_FILE"), headers.path());
        }
        if self.settings.prints_to_stderr {
            command.stdout(io::stderr());
        }
        command.stdin(Stdio::piped()).process_group(0);
        let mut group = Group(command.spawn()?);

        let stdin = group.0.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A command need not read what it is given.
                let _ = stdin.write_all(&message.payload).await;
            }
            std::future::pending().await
        };
        let end = async {
            tokio::select! {
                status = group.0.wait() => status,
                never = feed => never,
            }
        };
        Ok(match self.settings.timeout {
            None => Ended::Exit(end.await?),
            Some(limit) => match timeout(limit, end).await {
                Ok(status) => Ended::Exit(status?),
                Err(_) => Ended::TimedOut(limit),
            },
        })
    }

    /// What it gets of our own environment.
    fn kept(&self) -> impl Iterator<Item = (OsString, OsString)> {
        std::env::vars_os().filter(|(name, _)| {
            let is_needed = |name: &str| KEPT.contains(&name) || name.starts_with("LC_");
            let is_named = |name: &OsStr| self.settings.variables.iter().any(|own| name == &**own);
            name.to_str().is_some_and(is_needed) || is_named(name)
        })
    }
}

/// What programs need (besides `LC_*`).
const KEPT: [&str; 11] = [
    "PATH", "HOME", "TMPDIR", "TEMP", "TMP", "USER", "USERNAME", "LOGNAME", "SHELL", "LANG", "TZ",
];

enum Ended {
    Exit(ExitStatus),
    TimedOut(Duration),
}

impl Taker for Exec {
    fn name(&self) -> &str {
        &self.name
    }

    fn offer<'a>(&'a self, message: &'a Message, attempt: u32) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let begin = Instant::now();
            let (code, text) = match self.run(message, attempt).await {
                Ok(Ended::Exit(status)) => match (status.code(), status.signal()) {
                    (Some(code), _) => (u16::try_from(code).ok(), format!("exit {code}")),
                    (None, signal) => (None, format!("killed by signal {}", signal.unwrap_or(0))),
                },
                Ok(Ended::TimedOut(limit)) => {
                    (None, format!("not done within {} s", limit.as_secs_f32()))
                }
                Err(error) => (None, format!("cannot run it: {error}")),
            };
            Answer {
                verdict: match code {
                    Some(0) => Verdict::Taken,
                    // Whatever keeps a command from its work may be mended.
                    _ => Verdict::NotNow,
                },
                code,
                text,
                retry_after: None,
                duration: begin.elapsed(),
            }
        })
    }
}

/// A command and all that it has started, killed when dropped.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Once it has been waited for, its number may be somebody else's.
        let running = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = running.and_then(Pid::from_raw) {
            // There may be nobody left in it.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// A file that only we can read, removed when dropped.
fn file(content: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::with_prefix("hookbot-")?;
    file.write_all(content)?;
    Ok(file)
}

/// The headers as JSON, an object; repeats are joined as RFC 9110, section 5.2, allows.
fn headers(message: &Message) -> String {
    let mut all: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in &message.event.headers {
        let value = value.bytes().unwrap_or_default();
        let value = String::from_utf8_lossy(&value);
        all.entry(name)
            .and_modify(|joined| *joined = format!("{joined}, {value}"))
            .or_insert_with(|| value.into_owned());
    }
    serde_json::to_string(&all).unwrap_or_default()
}

/// What is known of a message, as variables.
fn facts(message: &Message, attempt: u32) -> Vec<(&'static str, String)> {
    let event = &message.event;
    let delivery = message.delivery_id().unwrap_or_default();
    let content_type = message.header("content-type").unwrap_or_default();
    let facts = vec![
        ("HOOKBOT_TOPIC", event.topic.clone()),
        ("HOOKBOT_CURSOR", event.cursor.clone()),
        ("HOOKBOT_TIME", event.time.clone()),
        ("HOOKBOT_METHOD", event.method.clone()),
        ("HOOKBOT_QUERY", event.query.clone()),
        ("HOOKBOT_ADDRESS", event.address.clone()),
        ("HOOKBOT_EVENT", message.event_type().unwrap_or_default()),
        ("HOOKBOT_DELIVERY", delivery.clone()),
        ("HOOKBOT_CONTENT_TYPE", content_type.clone()),
        ("HOOKBOT_ATTEMPT", attempt.to_string()),
        (
            "GOSMEE_EVENT_TYPE",
            message.plain_event().unwrap_or_default(),
        ),
        ("GOSMEE_EVENT_ID", delivery),
        ("GOSMEE_CONTENT_TYPE", content_type),
        ("GOSMEE_TIMESTAMP", event.time.clone()),
    ];
    // No variable holds a NUL.
    let clean = |(name, text): (&'static str, String)| (name, text.replace('\0', ""));
    facts.into_iter().map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::test_message;
    use std::fs;
    use std::path::Path;

    fn push() -> Message {
        let headers = [
            ("x-github-event", "push"),
            ("x-github-delivery", "d1"),
            ("x-a", "1"),
            ("x-a", "2"),
        ];
        let mut message = test_message(&headers, b"a\0b");
        message.event.query = "q\0=1".to_owned();
        message
    }

    fn exec(command: &str, timeout: Option<Duration>) -> Exec {
        let settings = ExecSettings {
            timeout,
            ..ExecSettings::default()
        };
        Exec::new(command, settings)
    }

    fn read(folder: &Path, name: &str) -> String {
        fs::read_to_string(folder.join(name)).unwrap()
    }

    #[tokio::test]
    async fn a_command_gets_the_body_and_the_facts_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let command = format!(
            "cd {}; cat > body; cmp body $HOOKBOT_PAYLOAD_FILE && env > env; \
             stat -c %a $GOSMEE_PAYLOAD_FILE > mode; cp $HOOKBOT_HEADERS_FILE headers",
            folder.path().display()
        );
        let answer = exec(&command, None).offer(&push(), 2).await;
        assert_eq!((answer.verdict, &*answer.text), (Verdict::Taken, "exit 0"));
        assert_eq!(read(folder.path(), "body"), "a\0b");
        assert_eq!(read(folder.path(), "mode"), "600\n");
        let headers = r#"{"x-a":"1, 2","x-github-delivery":"d1","x-github-event":"push"}"#;
        assert_eq!(read(folder.path(), "headers"), headers);
        let env = read(folder.path(), "env");
        for line in [
            "HOOKBOT_TOPIC=a/b",
            "HOOKBOT_EVENT=push",
            "HOOKBOT_DELIVERY=d1",
            "HOOKBOT_ATTEMPT=2",
            "HOOKBOT_QUERY=q=1",
            "GOSMEE_EVENT_TYPE=push",
            "GOSMEE_EVENT_ID=d1",
        ] {
            assert!(env.lines().any(|own| own == line), "{line} is not in {env}");
        }
        // Cargo sets it for every test.
        assert!(!env.contains("CARGO_MANIFEST_DIR"), "{env}");

        let mut exec = exec(&command, None);
        exec.settings.variables = vec!["CARGO_MANIFEST_DIR".to_owned()];
        exec.offer(&push(), 1).await;
        assert!(read(folder.path(), "env").contains("CARGO_MANIFEST_DIR="));
    }

    #[tokio::test]
    async fn a_command_that_fails_has_not_taken_it() {
        for (command, text) in [
            ("exit 3", "exit 3"),
            ("kill -9 $$", "killed by signal 9"),
            ("/nowhere/at/all 2>/dev/null", "exit 127"),
        ] {
            let answer = exec(command, None).offer(&push(), 1).await;
            assert_eq!((answer.verdict, &*answer.text), (Verdict::NotNow, text));
        }
    }

    #[tokio::test]
    async fn what_takes_too_long_is_killed_with_all_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        // The child writes its number before the parent goes on to wait for ever.
        let command = format!("sleep 1000 & echo $! > {}; wait", pid.display());
        let limit = Duration::from_secs(2);
        let answer = exec(&command, Some(limit)).offer(&push(), 1).await;
        assert_eq!(answer.text, "not done within 2 s");
        let child = read(folder.path(), "pid");
        let proc = Path::new("/proc").join(child.trim()).join("stat");
        let is_gone = || {
            // Until somebody waits for it, it is a zombie.
            let stat = fs::read_to_string(&proc).unwrap_or_default();
            !stat.contains("(sleep)") || stat.contains(") Z")
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_gone() {
            assert!(Instant::now() < deadline, "it still runs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_body_that_nobody_reads_holds_up_nobody() {
        let message = test_message(&[], &vec![b'x'; 1 << 20]);
        let answer = exec("exec <&-; exit 0", None).offer(&message, 1).await;
        assert_eq!(answer.verdict, Verdict::Taken);
    }
}

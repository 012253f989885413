//! Questions about the log, the sources and the deliveries, asked by whoever may open the log's folder.
//!
//! A running server answers them on a unix socket in the folder; of a stopped one those about the
//! log are answered by the program itself. One line of JSON asks, lines of JSON answer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hookbot_log::{Limit, Log, ReadError};
use hookbot_protocol::event::Event;
use hookbot_protocol::{Filter, Message, Offset};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{self, Sender};
use tokio::time::timeout;
use tracing::{info, warn};

use super::State;
use super::deliveries::{DeliveryReport, Retried};
use super::gate::Gate;
use super::token_uses::PreviousUse;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Question {
    /// How large the log is, and what committing has cost.
    Stats,
    /// Whether every message can be read.
    Verify,
    /// Messages, in order.
    Read {
        /// Of this topic, or below this prefix.
        filter: String,
        /// From this offset on.
        from: u64,
        /// At most so many.
        limit: u64,
    },
    /// Drop what is older than this offset, as far as whole segments allow.
    Trim {
        /// The oldest to keep.
        upto: u64,
    },
    /// What came by each source, which secrets matched, and who uses previous keys.
    Sources,
    /// How each delivery is doing.
    Deliveries,
    /// Go on with a delivery whose service wanted no more.
    Resume {
        /// Its name.
        delivery: String,
    },
    /// Offer messages again that a delivery has put aside.
    Retry {
        /// Its name.
        delivery: String,
        /// Their ids.
        letters: Vec<u64>,
    },
}

/// A line of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// Figures, by name.
    Stats(Vec<(String, u64)>),
    /// A message, as JSON.
    Message(String),
    /// Something that can't be read.
    Damage(String),
    /// How many messages were read.
    Verified(u64),
    /// The oldest offset there is now.
    Trimmed(u64),
    /// A source.
    Source(SourceReport),
    /// A delivery.
    Delivery(DeliveryReport),
    /// This delivery goes on.
    Resumed(String),
    /// What became of a message that was offered again.
    Retried(Retried),
    /// A token of a previous key that is still in use.
    PreviousKey(PreviousUse),
    /// The question could not be answered.
    Error(String),
}

/// What came by a source since the server started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceReport {
    /// Its name.
    pub name: String,
    /// The topic or prefix that it is for.
    pub topic: String,
    /// Whose signatures are verified, if any.
    pub provider: Option<String>,
    /// Messages whose signature was right.
    pub verified: u64,
    /// Messages that were refused for their signature.
    pub rejected: u64,
    /// Messages that were put into quarantine.
    pub quarantined: u64,
    /// Handshakes.
    pub answered: u64,
    /// Messages that had to prove nothing.
    pub unverified: u64,
    /// Its secrets, in the order in which they are tried.
    pub secrets: Vec<SecretReport>,
}

/// How often a secret matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretReport {
    /// Where it is from.
    pub label: String,
    /// Since when the server has known it, in seconds since 1970.
    pub since: u64,
    /// How often it matched since then.
    pub number: u64,
    /// When last, in seconds since 1970; 0 for never.
    pub last: u64,
}

impl SourceReport {
    fn new(gate: &Gate) -> Self {
        let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let Gate { source, tally, .. } = gate;
        let secrets = source.secrets.iter().zip(&gate.uses);
        Self {
            name: source.name.clone(),
            topic: source.filter.to_string(),
            provider: source.scheme.as_ref().map(ToString::to_string),
            verified: read(&tally.verified),
            rejected: read(&tally.rejected),
            quarantined: read(&tally.quarantined),
            answered: read(&tally.answered),
            unverified: read(&tally.unverified),
            secrets: secrets
                .map(|(secret, uses)| SecretReport {
                    label: secret.label.clone(),
                    since: uses.since,
                    number: read(&uses.number),
                    last: read(&uses.last),
                })
                .collect(),
        }
    }
}

/// Tells of each source, and of who uses previous keys.
async fn sources(state: &State, out: &Sender<Line>) -> Result<(), Gone> {
    let book = state.book.load_full();
    let mut reports: Vec<_> = book.gates().map(|gate| SourceReport::new(gate)).collect();
    reports.sort_by(|one, other| one.name.cmp(&other.name));
    for report in reports {
        send(out, Line::Source(report)).await?;
    }
    for uses in state.token_uses.previous() {
        send(out, Line::PreviousKey(uses)).await?;
    }
    Ok(())
}

/// Tells of each delivery.
async fn deliveries(state: &State, out: &Sender<Line>) -> Result<(), Gone> {
    for report in state.deliveries.reports() {
        send(out, Line::Delivery(report)).await?;
    }
    Ok(())
}

/// Goes on with a delivery.
async fn resume(state: &State, delivery: String, out: &Sender<Line>) -> Result<(), Gone> {
    let line = match state.deliveries.resume(&delivery) {
        Ok(()) => Line::Resumed(delivery),
        Err(error) => Line::Error(error),
    };
    send(out, line).await
}

/// Offers messages again, one after the other.
async fn retry(
    state: &State,
    delivery: &str,
    letters: Vec<u64>,
    out: &Sender<Line>,
) -> Result<(), Gone> {
    for letter in letters {
        let line = match state.deliveries.retry(delivery, letter).await {
            Ok(retried) => Line::Retried(retried),
            Err(error) => Line::Error(error),
        };
        send(out, line).await?;
    }
    Ok(())
}

/// Answers a question; stops when nobody listens.
pub async fn answer(log: &dyn Log, question: Question, out: &Sender<Line>) {
    let answered = match question {
        Question::Stats => send(out, Line::Stats(figures(log))).await,
        Question::Trim { upto } => {
            log.trim(Offset(upto));
            send(out, Line::Trimmed(log.bounds().first.0)).await
        }
        Question::Read {
            filter,
            from,
            limit,
        } => match Filter::parse(&filter) {
            Err(error) => send(out, Line::Error(format!("{filter:?}: {error}"))).await,
            Ok(filter) => read(log, filter, Offset(from), limit, out).await,
        },
        Question::Verify => verify(log, out).await,
        Question::Sources
        | Question::Deliveries
        | Question::Resume { .. }
        | Question::Retry { .. } => {
            let reason = "no server is running here";
            send(out, Line::Error(reason.to_owned())).await
        }
    };
    // Nobody is there to be told.
    let _ = answered;
}

async fn read(
    log: &dyn Log,
    filter: Filter,
    mut from: Offset,
    mut left: u64,
    out: &Sender<Line>,
) -> Result<(), Gone> {
    while left > 0 && from < log.bounds().next {
        for message in page(log, &filter, &mut from, out).await? {
            if left == 0 {
                break;
            }
            left -= 1;
            let event = Event::new(&message, log.epoch());
            send(out, Line::Message(event.to_json(&message.publication.body))).await?;
        }
    }
    Ok(())
}

async fn verify(log: &dyn Log, out: &Sender<Line>) -> Result<(), Gone> {
    let mut messages = 0;
    for filter in ["/", "/unsafe/"] {
        let Ok(filter) = Filter::parse(filter) else {
            continue;
        };
        let mut from = Offset(0);
        while from < log.bounds().next {
            messages += page(log, &filter, &mut from, out).await?.len() as u64;
        }
    }
    send(out, Line::Verified(messages)).await
}

/// Reads a page and moves `from` behind it. What is no longer kept is passed over, and so is what
/// can't be read, which is told.
async fn page(
    log: &dyn Log,
    filter: &Filter,
    from: &mut Offset,
    out: &Sender<Line>,
) -> Result<Vec<Arc<Message>>, Gone> {
    match log.read(filter.clone(), *from, PAGE).await {
        Ok(page) => {
            *from = page.next;
            return Ok(page.messages);
        }
        Err(ReadError::Trimmed { first }) => *from = first,
        Err(error @ ReadError::Broken { at, .. }) => {
            send(out, Line::Damage(error.to_string())).await?;
            *from = at.max(*from).next();
        }
    }
    Ok(Vec::new())
}

/// What the log tells of itself, in the order in which people want to read it.
fn figures(log: &dyn Log) -> Vec<(String, u64)> {
    let bounds = log.bounds();
    let mut figures = vec![
        ("first offset".to_owned(), bounds.first.0),
        ("next offset".to_owned(), bounds.next.0),
    ];
    if let Some(stats) = log.stats() {
        for (name, lane) in [("safe", stats.safe), ("unsafe", stats.r#unsafe)] {
            figures.push((format!("{name} messages"), lane.messages));
            figures.push((format!("{name} bytes"), lane.bytes));
            figures.push((format!("{name} segments"), lane.segments as u64));
        }
        figures.push(("commits".to_owned(), stats.commits.batches));
        figures.push(("committed messages".to_owned(), stats.commits.messages));
        figures.push(("failed commits".to_owned(), stats.commits.failed));
        figures.push(("failed reads".to_owned(), stats.failed_reads));
    }
    figures
}

/// Whoever asked is gone.
struct Gone;

async fn send(out: &Sender<Line>, line: Line) -> Result<(), Gone> {
    out.send(line).await.map_err(|_| Gone)
}

/// The socket of the server that uses a folder.
#[must_use]
pub fn socket(folder: &Path) -> PathBuf {
    folder.join("admin.sock")
}

/// Binds the socket in a folder, if it can be had: a server is of use without it, too.
pub(super) fn listen(folder: &Path) -> Option<UnixListener> {
    let path = socket(folder);
    let bound = bind(&path);
    let unanswered =
        |error: &io::Error| warn!(path = %path.display(), %error, "no questions are answered");
    bound.inspect_err(unanswered).ok()
}

/// Answers questions, until dropped.
pub(super) async fn serve(state: Arc<State>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = state.clone();
                tokio::spawn(async move {
                    // Whoever hung up does not want to know.
                    let _ = timeout(PATIENCE, converse(&state, stream)).await;
                });
            }
            Err(error) => {
                warn!(%error, "cannot take questions");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Binds the socket, in place of the one that another run left behind: the folder's lock says
/// that there is no other server.
fn bind(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn converse(state: &State, stream: UnixStream) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut question = String::new();
    BufReader::new(reader).read_line(&mut question).await?;
    let (out, mut lines) = mpsc::channel(QUEUE);
    let asked = serde_json::from_str(&question);
    let answering = async {
        match asked {
            Ok(question) => {
                info!(?question, "asked");
                // Nobody is there to be told.
                let _ = match question {
                    Question::Sources => sources(state, &out).await,
                    Question::Deliveries => deliveries(state, &out).await,
                    Question::Resume { delivery } => resume(state, delivery, &out).await,
                    Question::Retry { delivery, letters } => {
                        retry(state, &delivery, letters, &out).await
                    }
                    question => {
                        answer(&*state.broker.log(), question, &out).await;
                        Ok(())
                    }
                };
            }
            Err(error) => {
                let _ = send(&out, Line::Error(error.to_string())).await;
            }
        }
        drop(out);
    };
    let writing = async {
        while let Some(line) = lines.recv().await {
            let mut text = serde_json::to_vec(&line)?;
            text.push(b'\n');
            writer.write_all(&text).await?;
        }
        writer.shutdown().await
    };
    let ((), written) = tokio::join!(answering, writing);
    written
}

/// Asks the server that uses a folder; `None` when there is none.
///
/// # Errors
///
/// When it can't be understood.
pub async fn ask(folder: &Path, question: &Question, out: &Sender<Line>) -> io::Result<Option<()>> {
    let mut stream = match UnixStream::connect(socket(folder)).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut text = serde_json::to_vec(question)?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await? {
        if out.send(serde_json::from_str(&line)?).await.is_err() {
            break;
        }
    }
    Ok(Some(()))
}

/// How long one question may take to ask and to answer.
const PATIENCE: Duration = Duration::from_secs(3_600);

const PAUSE: Duration = Duration::from_millis(250);

/// How many lines wait for a slow reader.
const QUEUE: usize = 64;

/// What is read in one go.
const PAGE: Limit = Limit {
    messages: 256,
    bytes: 1 << 20,
};

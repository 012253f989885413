//! What a forwarder tells, as people or scripts read it.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anstyle::AnsiColor;
use bytesize::ByteSize;
use hookbot_forward::{Answer, Message, Summary, Tell, Told, Trouble};
use hookbot_protocol::event::rfc3339;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{info, warn};

/// How it is told.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::cli) struct Style {
    pub(in crate::cli) is_json: bool,
    pub(in crate::cli) is_quiet: bool,
    /// Whether it has to be said whom a line is about.
    pub(in crate::cli) names_target: bool,
    /// Whether what is not taken is still where it came from, and not put aside.
    pub(in crate::cli) is_replay: bool,
    /// Whether nothing is sent.
    pub(in crate::cli) is_dry_run: bool,
}

/// Everything that is known of the forwarders of one process.
#[derive(Clone)]
pub(in crate::cli) struct Report(Arc<Inner>);

struct Inner {
    style: Style,
    /// What to say once all sources are heard.
    beginning: OnceLock<String>,
    begin: Instant,
    /// When each forwarder's source was last heard.
    heard: Mutex<Vec<Heard>>,
    /// Whether all have been.
    ready: watch::Sender<bool>,
    /// What a source said that never let us in.
    refusal: watch::Sender<Option<String>>,
}

/// Whether a forwarder hears its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Never,
    At(Instant),
    Ended,
}

impl Report {
    pub(in crate::cli) fn new(style: Style, forwarders: usize) -> Self {
        Self(Arc::new(Inner {
            style,
            beginning: OnceLock::new(),
            begin: Instant::now(),
            heard: Mutex::new(vec![Heard::Never; forwarders]),
            ready: watch::Sender::new(false),
            refusal: watch::Sender::new(None),
        }))
    }

    /// What to call when something happens to the forwarder at this place.
    pub(in crate::cli) fn tell(&self, at: usize, target: &str) -> Tell {
        let (report, target) = (self.clone(), target.to_owned());
        Arc::new(move |told| report.take_note(at, &target, told))
    }

    /// How long the source has been silent that has been it longest; `None` before all are heard.
    pub(super) fn silence(&self) -> Option<Duration> {
        let heard = self.heard();
        let silences = heard.iter().map(|heard| match heard {
            Heard::Never => None,
            Heard::At(moment) => Some(moment.elapsed()),
            Heard::Ended => Some(Duration::ZERO),
        });
        silences.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// The forwarder at this place listens to nobody any more.
    pub(super) fn end(&self, at: usize) {
        self.heard()[at] = Heard::Ended;
    }

    /// Waits until all sources have been heard.
    pub(super) async fn ready(&self) {
        // The sender is ours.
        let _ = self.0.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Waits until a source says no that was never heard before.
    pub(super) async fn refusal(&self) -> String {
        let mut refusals = self.0.refusal.subscribe();
        let refusal = refusals.wait_for(Option::is_some).await;
        refusal
            .ok()
            .and_then(|text| text.clone())
            .unwrap_or_default()
    }

    /// Says this, once all sources are heard.
    pub(super) fn begin(&self, beginning: String) {
        if !self.0.style.is_json && !self.0.style.is_quiet {
            // It is begun once.
            let _ = self.0.beginning.set(beginning);
        }
    }

    /// Says what it comes to.
    pub(in crate::cli) fn finish(&self, sum: &Summary) {
        let Summary {
            delivered,
            retried,
            parked,
            skipped,
            ..
        } = sum;
        let duration = self.0.begin.elapsed();
        if self.0.style.is_json {
            let duration_ms = millis(duration);
            print(&json!({
                "what": "summary", self.delivered(): delivered, "retried": retried,
                "parked": parked, "skipped": skipped, "duration_ms": duration_ms,
            }));
            return;
        }
        let done = if self.0.style.is_dry_run {
            "would be sent"
        } else {
            "delivered"
        };
        let aside = if self.0.style.is_replay {
            "not taken"
        } else {
            "put aside"
        };
        anstream::eprintln!(
            "{delivered} {done}, {retried} retried, {parked} {aside}, {skipped} skipped in {}",
            humantime::format_duration(Duration::from_millis(duration_ms(duration)))
        );
    }

    /// What scripts read of a message that was taken.
    fn delivered(&self) -> &'static str {
        match self.0.style.is_dry_run {
            false => "delivered",
            true => "would_send",
        }
    }

    fn heard(&self) -> MutexGuard<'_, Vec<Heard>> {
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_note(&self, at: usize, target: &str, told: &Told<'_>) {
        match told {
            Told::Heard => {
                let mut heard = self.heard();
                heard[at] = Heard::At(Instant::now());
                if !*self.0.ready.borrow() && !heard.contains(&Heard::Never) {
                    self.0.ready.send_replace(true);
                    if let Some(beginning) = self.0.beginning.get() {
                        anstream::eprintln!("{beginning}");
                    }
                }
                return;
            }
            Told::Trouble(Trouble::Refused(text)) if self.heard()[at] == Heard::Never => {
                self.0.refusal.send_replace(Some(text.clone()));
                return;
            }
            _ => {}
        }
        if self.0.style.is_json {
            if let Some(line) = line_for_scripts(self.delivered(), target, told) {
                print(&line);
            }
        } else {
            self.say(target, told);
        }
    }

    fn say(&self, target: &str, told: &Told<'_>) {
        let to = if self.0.style.names_target {
            format!("{target} ")
        } else {
            String::new()
        };
        match told {
            Told::Delivered { .. } if self.0.style.is_quiet => {}
            Told::Delivered {
                message, answer, ..
            } => {
                self.line(message, &to, AnsiColor::Green, &answer.text, answer);
            }
            Told::Failed {
                message,
                answer,
                again,
                attempt,
            } => {
                let again = again.as_secs_f32();
                let text = format!("{}, attempt {attempt}, again in {again:.1} s", answer.text);
                self.line(message, &to, AnsiColor::Yellow, &text, answer);
            }
            Told::Parked {
                message,
                reason,
                letter,
                ..
            } => {
                let letter = match letter {
                    Some(id) => format!("put aside as dead letter {id}"),
                    None if self.0.style.is_replay => "not taken".to_owned(),
                    None => "lost, as nothing is kept".to_owned(),
                };
                let start = start_of_line(message);
                let red = AnsiColor::Red.on_default();
                show(&format!("{start} {to}{red}{reason}, {letter}{red:#}"));
            }
            Told::NotParked(error) => warn!(target, "{}", chain(error)),
            Told::Opened => warn!(
                target,
                "the target fails again and again, and is only probed"
            ),
            Told::Closed => info!(target, "the target works again"),
            Told::Gone(answer) => warn!(target, "the target wants no more: {}", answer.text),
            Told::Trouble(trouble) => warn!("{trouble}"),
            Told::NotKept(error) => {
                warn!(
                    target,
                    "the place is not kept, so a crash repeats messages: {error}"
                );
            }
            _ => {}
        }
    }

    fn line(&self, message: &Message, to: &str, color: AnsiColor, text: &str, answer: &Answer) {
        let mut line = start_of_line(message);
        let color = color.on_default();
        let took = humantime::format_duration(Duration::from_millis(duration_ms(answer.duration)));
        // Writing to a string does not fail.
        let _ = write!(line, " {to}{color}{text}{color:#} {took}");
        show(&line);
    }
}

/// Time, event, delivery, topic and size.
fn start_of_line(message: &Message) -> String {
    let now = jiff::Zoned::now();
    let kind = message.event_type();
    let delivery = message.delivery_id();
    let shown = |text: Option<String>| {
        let text = text.unwrap_or_else(|| "-".to_owned());
        text.replace(char::is_control, "")
    };
    let bold = anstyle::Style::new().bold();
    let (kind, delivery) = (shown(kind), shown(delivery));
    let topic = shown(Some(message.event.topic.clone()));
    let size = ByteSize::b(message.payload.len() as u64);
    format!(
        "{} {bold}{kind}{bold:#} {delivery} {topic} {size}",
        now.strftime("%H:%M:%S"),
    )
}

/// What scripts read, one object a line.
fn line_for_scripts(delivered: &str, target: &str, told: &Told<'_>) -> Option<Value> {
    let about = |what: &str, message: &Message, more: Value| {
        let mut line = json!({
            "what": what,
            "time": rfc3339(SystemTime::now()),
            "target": target,
            "topic": message.event.topic,
            "cursor": message.event.cursor,
            "published": message.event.time,
            "event": message.event_type(),
            "delivery": message.delivery_id(),
            "size": message.payload.len(),
        });
        if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        Some(line)
    };
    let plain = |what: &str, text: Option<String>| {
        Some(json!({
            "what": what, "time": rfc3339(SystemTime::now()), "target": target, "text": text,
        }))
    };
    match told {
        Told::Delivered {
            message,
            attempt,
            answer,
        } => about(
            delivered,
            message,
            json!({
                "attempt": attempt, "code": answer.code, "text": answer.text,
                "duration_ms": millis(answer.duration),
            }),
        ),
        Told::Failed {
            message,
            attempt,
            answer,
            again,
        } => about(
            "failed",
            message,
            json!({
                "attempt": attempt, "code": answer.code, "text": answer.text,
                "duration_ms": millis(answer.duration), "again_ms": millis(*again),
            }),
        ),
        Told::Parked {
            message,
            attempts,
            reason,
            letter,
        } => about(
            "parked",
            message,
            json!({ "attempt": attempts, "text": reason, "letter": letter }),
        ),
        Told::NotParked(error) => plain("not_parked", Some(chain(error))),
        Told::Opened => plain("opened", None),
        Told::Closed => plain("closed", None),
        Told::Gone(answer) => plain("gone", Some(answer.text.clone())),
        Told::Trouble(trouble) => plain("trouble", Some(trouble.to_string())),
        Told::NotKept(error) => plain("not_kept", Some(error.to_string())),
        _ => None,
    }
}

fn chain(error: &hookbot_forward::letters::LetterError) -> String {
    match std::error::Error::source(error) {
        None => error.to_string(),
        Some(cause) => format!("{error}: {cause}"),
    }
}

fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

fn duration_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn show(line: &str) {
    use std::io::Write as _;
    // Whoever has had enough of the lines still has messages to be forwarded.
    let _ = writeln!(anstream::stdout().lock(), "{line}");
}

fn print(line: &Value) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

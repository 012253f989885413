//! What a replay says: a line for each message, and what it comes to.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use hookbot_forward::{Answer, Message, Summary, Tell, Told, Trouble};
use serde_json::json;
use tracing::{error, info, warn};

use super::super::{Failure, output};

/// Who prints what happens.
pub(super) struct Report {
    is_json: bool,
    /// Messages that could not even be read.
    missing: AtomicU64,
    /// Why nothing can be printed.
    failure: Mutex<Option<Failure>>,
}

impl Report {
    pub(super) fn new(is_json: bool) -> Arc<Self> {
        Arc::new(Self {
            is_json,
            missing: AtomicU64::new(0),
            failure: Mutex::new(None),
        })
    }

    /// Whom a forwarder tells.
    pub(super) fn tell(self: &Arc<Self>) -> Tell {
        let report = self.clone();
        Arc::new(move |told| report.hear(told))
    }

    fn hear(&self, told: &Told<'_>) {
        match told {
            Told::Delivered {
                message,
                attempt,
                answer,
            } => self.message(message, *attempt, Ok(answer)),
            Told::Parked {
                message,
                attempts,
                reason,
                ..
            } => self.message(message, *attempts, Err(reason)),
            Told::Failed { answer, again, .. } => {
                let again = again.as_secs_f32();
                warn!("not taken: {}; once more in {again:.1} s", answer.text);
            }
            Told::Gone(answer) => error!("the target wants no more messages: {}", answer.text),
            Told::Trouble(Trouble::Lost(reason)) => warn!("{reason}; reconnecting"),
            Told::Trouble(trouble) => {
                error!("{trouble}");
                self.missing.fetch_add(1, Ordering::Relaxed);
            }
            Told::Opened => warn!("the target fails all the time; it is asked now and then"),
            Told::Closed => info!("the target works again"),
            _ => {}
        }
    }

    fn message(&self, message: &Message, attempts: u32, answer: Result<&Answer, &str>) {
        let event = message.event_type();
        let delivery = message.delivery_id();
        let size = message.payload.len();
        let text = match answer {
            Ok(answer) => &answer.text,
            Err(reason) => reason,
        };
        let line = if self.is_json {
            let line = json!({
                "taken": answer.is_ok(),
                "event": event,
                "delivery": delivery,
                "topic": message.event.topic,
                "time": message.event.time,
                "cursor": message.event.cursor,
                "size": size,
                "attempts": attempts,
                "status": answer.ok().and_then(|answer| answer.code),
                "answer": text,
            });
            line.to_string()
        } else {
            let or_dash = |text: &str| match text {
                "" => "-".to_owned(),
                text => text.replace(char::is_control, ""),
            };
            format!(
                "{} {} {} {size} bytes: {text}",
                or_dash(&message.event.time),
                or_dash(&event.unwrap_or_default()),
                or_dash(&delivery.unwrap_or_default()),
            )
        };
        if let Err(failure) = output::line(&line) {
            let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(failure);
        }
    }

    /// Says what it comes to, which is a failure where something was not taken.
    pub(super) fn finish(&self, summary: Summary, was_stopped: bool) -> Result<(), Failure> {
        let failure = &mut *self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = failure.take() {
            return Err(failure);
        }
        let Summary {
            delivered,
            parked,
            skipped,
            is_gone,
            ..
        } = summary;
        let missing = self.missing.load(Ordering::Relaxed);
        let text = format!("{delivered} taken, {parked} not taken, {skipped} passed over");
        if self.is_json {
            let summary = json!({
                "taken": delivered,
                "not_taken": parked,
                "passed_over": skipped,
                "missing": missing,
            });
            output::line(&json!({ "summary": summary }).to_string())?;
        } else if std::io::stderr().is_terminal() {
            anstream::eprintln!("{text}");
        } else {
            info!("{text}");
        }
        let failed = |reason: String| Err(anyhow!(reason).into());
        match (parked, missing) {
            _ if was_stopped => failed(format!("interrupted: {text}")),
            _ if is_gone => failed(format!("the target wants no more messages: {text}")),
            (0, 0) => Ok(()),
            (_, 0) => failed(format!(
                "{parked} of {} messages were not taken",
                delivered + parked
            )),
            _ => failed(format!("{text}; not everything could be had")),
        }
    }
}

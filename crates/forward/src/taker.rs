//! Whoever takes messages: a target, a command, a folder.

use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use http::StatusCode;

use crate::message::Message;
use crate::reply::{Reply, SendError};
use crate::target::Target;

/// Something that messages are offered to until it takes them.
pub trait Taker: Send + Sync {
    /// What it is called where it is remembered. No credential is in it.
    fn name(&self) -> &str;

    /// Offers a message, once. Dropping the future takes the offer back, as far as that goes.
    fn offer<'a>(&'a self, message: &'a Message, attempt: u32) -> BoxFuture<'a, Answer>;
}

/// What came of an offer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What it means for the message.
    pub verdict: Verdict,
    /// The HTTP status or the exit code, where there is one.
    pub code: Option<u16>,
    /// The same as people read it, with the reason where it is not good.
    pub text: String,
    /// How long the taker wants to be left alone.
    pub retry_after: Option<Duration>,
    /// How long it took.
    pub duration: Duration,
}

/// What an answer means for the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken.
    Taken,
    /// It was not taken, and may be another time.
    NotNow,
    /// It will never be taken.
    Never,
    /// Nothing will ever be taken: the taker wants no more messages.
    Gone,
}

impl Verdict {
    /// What a target means by a status.
    ///
    /// `408`, `425`, `429` and server errors pass; `410` says that the hook is gone. A redirection
    /// is not followed: where it leads is for whoever configured the target to say.
    #[must_use]
    pub fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            200..=299 => Self::Taken,
            408 | 425 | 429 | 500.. => Self::NotNow,
            410 => Self::Gone,
            _ => Self::Never,
        }
    }
}

impl Taker for Target {
    fn name(&self) -> &str {
        self.name()
    }

    fn offer<'a>(&'a self, message: &'a Message, attempt: u32) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let begin = std::time::Instant::now();
            match self.send(message, attempt).await {
                Ok(reply) => reply.into(),
                Err(error) => Answer {
                    duration: begin.elapsed(),
                    ..error.into()
                },
            }
        })
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        let verdict = Verdict::of(reply.status);
        let line = reply.first_line();
        let text = match line.as_str() {
            _ if verdict == Verdict::Taken => reply.status.to_string(),
            "" => reply.status.to_string(),
            line => format!("{}: {line}", reply.status),
        };
        Self {
            verdict,
            code: Some(reply.status.as_u16()),
            text,
            retry_after: reply.retry_after(SystemTime::now()),
            duration: reply.duration,
        }
    }
}

impl From<SendError> for Answer {
    fn from(error: SendError) -> Self {
        Self {
            verdict: if error.is_transient() {
                Verdict::NotNow
            } else {
                Verdict::Never
            },
            code: None,
            text: error.to_string(),
            retry_after: None,
            duration: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whether_to_try_again() {
        for (status, verdict) in [
            (200, Verdict::Taken),
            (299, Verdict::Taken),
            (301, Verdict::Never),
            (400, Verdict::Never),
            (408, Verdict::NotNow),
            (410, Verdict::Gone),
            (425, Verdict::NotNow),
            (429, Verdict::NotNow),
            (500, Verdict::NotNow),
            (599, Verdict::NotNow),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Verdict::of(status), verdict, "{status}");
        }
    }
}

//! One message on its way to a taker: offered until it is taken or put aside.

use std::time::{Duration, SystemTime};

use hookbot_protocol::event::rfc3339;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::breaker::{Breaker, pause};
use crate::forwarder::Settings;
use crate::letters::{Letter, Letters};
use crate::message::Message;
use crate::taker::{Answer, Taker, Verdict};
use crate::told::{Tell, Told};

/// Everything that carrying a message takes.
pub(crate) struct Offering<'a> {
    pub(crate) taker: &'a dyn Taker,
    pub(crate) settings: &'a Settings,
    pub(crate) letters: Option<&'a Letters>,
    pub(crate) tell: &'a Tell,
    pub(crate) breaker: Breaker,
    pub(crate) stop: CancellationToken,
}

/// What became of a message.
pub(crate) struct Done {
    pub(crate) number: u64,
    pub(crate) key: Option<String>,
    pub(crate) end: End,
    pub(crate) retries: u64,
}

/// How an offer ended.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Taken,
    Parked,
    Gone,
    Interrupted,
}

/// A message, or one of which no offer can be made and why.
pub(crate) type Job = Result<Box<Message>, (Box<Message>, String)>;

impl Offering<'_> {
    pub(crate) async fn carry(&self, number: u64, key: Option<String>, job: Job) -> Done {
        let mut attempt = 0;
        let end = match job {
            Ok(message) => self.insist(&message, &mut attempt).await,
            Err((message, reason)) => self.put_aside(&message, &reason).await,
        };
        Done {
            number,
            key,
            end,
            retries: u64::from(attempt.saturating_sub(1)),
        }
    }

    /// Offers a message until it is taken or put aside.
    async fn insist(&self, message: &Message, attempt: &mut u32) -> End {
        loop {
            let answer = {
                let turn = tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return End::Interrupted,
                    turn = self.breaker.admit() => turn,
                };
                *attempt += 1;
                let answer = tokio::select! {
                    biased;
                    answer = self.taker.offer(message, *attempt) => answer,
                    () = self.run_out_of_grace() => return End::Interrupted,
                };
                let has_answered = answer.verdict != Verdict::NotNow;
                if has_answered && self.breaker.succeed() {
                    (self.tell)(&Told::Closed);
                }
                drop(turn);
                answer
            };
            let has_enough = self.settings.retries.is_some_and(|most| *attempt > most);
            let end = match answer.verdict {
                Verdict::Taken => {
                    (self.tell)(&Told::Delivered {
                        message,
                        attempt: *attempt,
                        answer: &answer,
                    });
                    Some(End::Taken)
                }
                Verdict::Gone => {
                    (self.tell)(&Told::Gone(&answer));
                    Some(End::Gone)
                }
                Verdict::Never => self.park(message, *attempt, &answer).await,
                Verdict::NotNow if has_enough => {
                    self.breaker.fail(answer.retry_after, self.pause(*attempt));
                    self.park(message, *attempt, &answer).await
                }
                Verdict::NotNow => None,
            };
            if let Some(end) = end {
                return end;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return End::Interrupted,
                () = self.rest(message, *attempt, &answer) => {}
            }
        }
    }

    /// Waits before the next attempt, as far as the breaker does not do that.
    async fn rest(&self, message: &Message, attempt: u32, answer: &Answer) {
        let own = self.pause(attempt);
        let failure = self.breaker.fail(answer.retry_after, own);
        let again = failure.wait.unwrap_or(own);
        (self.tell)(&Told::Failed {
            message,
            attempt,
            answer,
            again,
        });
        if failure.has_opened {
            (self.tell)(&Told::Opened);
        }
        if failure.wait.is_none() {
            sleep(own).await;
        }
    }

    /// How long a message waits by itself behind this attempt.
    fn pause(&self, attempt: u32) -> Duration {
        pause(self.settings.first_pause, self.settings.last_pause, attempt)
    }

    /// Puts a message aside, if there is room for it.
    async fn park(&self, message: &Message, attempts: u32, answer: &Answer) -> Option<End> {
        let reason = &answer.text;
        let letter = match self.letters {
            None => None,
            Some(letters) => {
                let letter = Letter {
                    id: 0,
                    parked_at: rfc3339(SystemTime::now()),
                    target: self.taker.name().to_owned(),
                    reason: reason.clone(),
                    code: answer.code,
                    attempts,
                    size: message.payload.len() as u64,
                    event: message.event.clone(),
                };
                match letters.add(letter, message.payload.clone()).await {
                    Ok(id) => Some(id),
                    Err(error) => {
                        (self.tell)(&Told::NotParked(&error));
                        return None;
                    }
                }
            }
        };
        (self.tell)(&Told::Parked {
            message,
            attempts,
            reason,
            letter,
        });
        Some(End::Parked)
    }

    /// Puts a message aside that can't be offered, as soon as there is room for it.
    async fn put_aside(&self, message: &Message, reason: &str) -> End {
        let answer = Answer {
            verdict: Verdict::Never,
            code: None,
            text: reason.to_owned(),
            retry_after: None,
            duration: Duration::ZERO,
        };
        loop {
            if let Some(end) = self.park(message, 0, &answer).await {
                return end;
            }
            tokio::select! {
                () = self.stop.cancelled() => return End::Interrupted,
                () = sleep(self.settings.last_pause) => {}
            }
        }
    }

    async fn run_out_of_grace(&self) {
        self.stop.cancelled().await;
        sleep(self.settings.grace).await;
    }
}

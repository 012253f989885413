//! Telling the publishers of a batch what has become of their messages.
//!
//! To wake a task from outside of its runtime costs far more than from inside. So the writer tells
//! one publisher alone, and with it what the others are to be told. Whoever lets go of that, the
//! publisher or a channel that nobody reads any more, tells them.

use tokio::sync::oneshot;

use crate::{AppendError, Appended};

/// Who waits for an answer.
pub(crate) type Publisher = oneshot::Sender<Answer>;

pub(crate) type Outcome = Result<Appended, AppendError>;

/// What a publisher is told.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    others: Vec<(Publisher, Outcome)>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        for (publisher, outcome) in self.others.drain(..) {
            // One that has gone away does not want to know.
            let _ = publisher.send(Self {
                outcome,
                others: Vec::new(),
            });
        }
    }
}

/// Answers everybody.
pub(crate) fn tell(answers: impl IntoIterator<Item = (Publisher, Outcome)>) {
    let mut answers = answers.into_iter();
    let Some((publisher, outcome)) = answers.next() else {
        return;
    };
    let others = answers.collect();
    // If it has gone away, this comes back and is dropped here.
    let _ = publisher.send(Answer { outcome, others });
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Outcome = Err(AppendError::Full);
    const FAILED: Outcome = Err(AppendError::Failed);

    #[test]
    fn everybody_who_is_still_there_is_told_whoever_has_gone() {
        for gone in [None, Some(0), Some(1), Some(2)] {
            let (publishers, mut waiting): (Vec<_>, Vec<_>) = (0..3)
                .map(|_| {
                    let (publisher, waiting) = oneshot::channel();
                    (publisher, Some(waiting))
                })
                .unzip();
            if let Some(gone) = gone {
                waiting[gone] = None;
            }
            tell(publishers.into_iter().zip([FULL, FAILED, FULL]));
            let told = waiting.into_iter().map(|waiting| {
                let answer = waiting?.try_recv().expect("it was told");
                Some(answer.outcome)
            });
            let mut expected = [Some(FULL), Some(FAILED), Some(FULL)];
            if let Some(gone) = gone {
                expected[gone] = None;
            }
            assert!(told.eq(expected), "without {gone:?}");
        }
    }

    #[test]
    fn one_that_goes_away_with_its_answer_unread_still_tells_the_others() {
        let (first, unread) = oneshot::channel();
        let (second, mut waiting) = oneshot::channel();
        tell([(first, FULL), (second, FAILED)]);
        assert!(waiting.try_recv().is_err());
        drop(unread);
        assert_eq!(waiting.try_recv().map(|answer| answer.outcome), Ok(FAILED));
    }
}

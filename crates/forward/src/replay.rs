//! Messages once more: those of a span of time, at a pace.

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;

use crate::pace::{Metronome, Pace};
use crate::source::{Given, Source};

/// A source whose messages are sent again.
pub struct Replay<S> {
    source: S,
    options: ReplayOptions,
}

/// Which messages are sent again, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplayOptions {
    /// How fast.
    pub pace: Pace,
    /// Only messages that came then or later.
    pub since: Option<Timestamp>,
    /// Only messages that came then or before.
    pub until: Option<Timestamp>,
}

impl<S: Source> Replay<S> {
    /// Sends again what the source gives.
    pub fn new(source: S, options: ReplayOptions) -> Self {
        Self { source, options }
    }
}

impl<S: Source> Source for Replay<S> {
    fn name(&self) -> &str {
        self.source.name()
    }

    fn open(&self, after: Option<&str>) -> BoxStream<'static, Given> {
        let replaying = Replaying {
            given: self.source.open(after),
            metronome: Metronome::new(self.options.pace),
            options: self.options,
        };
        stream::unfold(replaying, async |mut replaying| {
            let given = replaying.next().await?;
            Some((given, replaying))
        })
        .boxed()
    }
}

struct Replaying {
    given: BoxStream<'static, Given>,
    metronome: Metronome,
    options: ReplayOptions,
}

impl Replaying {
    async fn next(&mut self) -> Option<Given> {
        loop {
            let (message, place) = match self.given.next().await? {
                Given::Message(message, place) => (message, place),
                other => return Some(other),
            };
            let time = message.event.time.parse().ok();
            if !self.options.includes(time) {
                continue;
            }
            self.metronome.wait(time).await;
            return Some(Given::Message(message, place));
        }
    }
}

impl ReplayOptions {
    /// Whether a message of this time is sent again. One without a time is in no span of it.
    fn includes(&self, time: Option<Timestamp>) -> bool {
        let is_after = |since| time.is_some_and(|time| time >= since);
        let is_before = |until| time.is_some_and(|time| time <= until);
        self.since.is_none_or(is_after) && self.until.is_none_or(is_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::test_message;
    use crate::source::Trouble;

    struct Fixed(Vec<Given>);

    impl Source for Fixed {
        fn name(&self) -> &str {
            "fixed"
        }

        fn open(&self, _: Option<&str>) -> BoxStream<'static, Given> {
            stream::iter(self.0.clone()).boxed()
        }
    }

    fn at(time: &str) -> Given {
        let mut message = test_message(&[], b"x");
        message.event.time = time.to_owned();
        Given::Message(Box::new(message), None)
    }

    async fn times(options: ReplayOptions) -> Vec<String> {
        let times = [
            "",
            "2026-01-31T12:00:00.000Z",
            "2026-01-31T12:00:01.000Z",
            "?",
        ];
        let source = Fixed(times.map(at).to_vec());
        let given = Replay::new(source, options).open(None);
        let times = given.map(|given| match given {
            Given::Message(message, _) => message.event.time,
            other => panic!("a message, not {other:?}"),
        });
        times.collect().await
    }

    #[tokio::test]
    async fn messages_outside_of_the_span_are_passed_over() {
        let time = |text: &str| Some(text.parse().unwrap());
        assert_eq!(times(ReplayOptions::default()).await.len(), 4);
        let since = ReplayOptions {
            since: time("2026-01-31T12:00:01Z"),
            ..ReplayOptions::default()
        };
        assert_eq!(times(since).await, ["2026-01-31T12:00:01.000Z"]);
        let until = ReplayOptions {
            until: time("2026-01-31T12:00:00.5Z"),
            ..ReplayOptions::default()
        };
        assert_eq!(times(until).await, ["2026-01-31T12:00:00.000Z"]);
    }

    #[tokio::test]
    async fn trouble_and_places_pass_as_they_are() {
        let trouble = Given::Trouble(Trouble::Lost("x".to_owned()));
        let given = vec![trouble, Given::Place("e.1".to_owned()), Given::Heard];
        let replay = Replay::new(Fixed(given.clone()), ReplayOptions::default());
        let passed: Vec<_> = replay.open(None).collect().await;
        assert_eq!(passed, given);
    }
}

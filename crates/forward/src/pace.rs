//! How fast messages are sent again.

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

/// How fast messages are sent again.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Pace {
    /// As fast as they are taken.
    #[default]
    Fast,
    /// With the pauses that were between them, so many times as fast: `original`, `10x`.
    Original(f64),
    /// At most one in this time: `5/s`, `30/m`.
    Every(Duration),
}

impl FromStr for Pace {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected fast, original, a speed such as 10x, or a rate such as \
                                5/s or 30/m";
        let number = |text: &str| {
            let number: Option<f64> = text.parse().ok();
            number
                .filter(|number| (1e-6..=1e6).contains(number))
                .ok_or(EXPECTED)
        };
        let every = |text: &str, seconds: f64| {
            Ok(Self::Every(Duration::from_secs_f64(
                seconds / number(text)?,
            )))
        };
        match text.split_once('/') {
            Some((count, "s")) => every(count, 1.0),
            Some((count, "m")) => every(count, 60.0),
            Some(_) => Err(EXPECTED),
            None if text == "fast" => Ok(Self::Fast),
            None if text == "original" => Ok(Self::Original(1.0)),
            None => {
                let speed = text.strip_suffix('x').ok_or(EXPECTED)?;
                Ok(Self::Original(number(speed)?))
            }
        }
    }
}

/// Waits for each message's moment.
#[derive(Debug)]
pub(crate) struct Metronome {
    pace: Pace,
    /// The first message's time, and when it was sent.
    first: Option<(Timestamp, Instant)>,
    /// The last message's moment.
    last: Option<Instant>,
}

impl Metronome {
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            pace,
            first: None,
            last: None,
        }
    }

    /// Waits until a message of this time may go. One without a time, or with one before that of
    /// the message before it, goes with that.
    pub(crate) async fn wait(&mut self, time: Option<Timestamp>) {
        let now = Instant::now();
        let moment = match (self.pace, time) {
            (Pace::Fast, _) => return,
            (Pace::Every(pause), _) => self.last.map(|last| last + pause),
            (Pace::Original(_), None) => self.last,
            (Pace::Original(speed), Some(time)) => {
                let (first, begin) = *self.first.get_or_insert((time, now));
                let passed = Duration::try_from(time.duration_since(first)).unwrap_or_default();
                Some(begin + passed.div_f64(speed))
            }
        };
        let moment = moment.max(self.last).unwrap_or(now);
        sleep_until(moment).await;
        self.last = Some(match self.pace {
            // Who was held up does not hurry afterwards.
            Pace::Every(_) => moment.max(now),
            _ => moment,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_a_word_a_speed_or_a_rate() {
        for (text, pace) in [
            ("fast", Pace::Fast),
            ("original", Pace::Original(1.0)),
            ("10x", Pace::Original(10.0)),
            ("0.5x", Pace::Original(0.5)),
            ("4/s", Pace::Every(Duration::from_millis(250))),
            ("30/m", Pace::Every(Duration::from_secs(2))),
        ] {
            assert_eq!(text.parse(), Ok(pace), "{text}");
        }
        for text in [
            "", "x", "0x", "-1x", "infx", "nanx", "5", "5/h", "0/s", "1e99/s", "/s",
        ] {
            assert!(text.parse::<Pace>().is_err(), "{text}");
        }
    }

    /// When messages of these times go, in milliseconds; each takes `work` after that.
    async fn moments(pace: Pace, times: &[Option<i64>], work: u64) -> Vec<u128> {
        let begin = Instant::now();
        let mut metronome = Metronome::new(pace);
        let mut moments = Vec::new();
        for time in times {
            let time = time.map(|time| Timestamp::from_millisecond(time).unwrap());
            metronome.wait(time).await;
            moments.push(begin.elapsed().as_millis());
            tokio::time::sleep(Duration::from_millis(work)).await;
        }
        moments
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_are_those_that_were_or_those_that_were_asked_for() {
        let times = [Some(5_000), Some(6_000), Some(4_000), None, Some(9_000)];
        assert_eq!(moments(Pace::Fast, &times, 0).await, [0; 5]);
        let original = moments(Pace::Original(1.0), &times, 0).await;
        assert_eq!(original, [0, 1_000, 1_000, 1_000, 4_000]);
        let twice = moments(Pace::Original(2.0), &times, 0).await;
        assert_eq!(twice, [0, 500, 500, 500, 2_000]);
        // Work is no reason to fall behind.
        let busy = moments(Pace::Original(1.0), &times, 300).await;
        assert_eq!(busy, [0, 1_000, 1_300, 1_600, 4_000]);

        let every = Pace::Every(Duration::from_millis(250));
        assert_eq!(moments(every, &times, 0).await, [0, 250, 500, 750, 1_000]);
        assert_eq!(
            moments(every, &times, 1_000).await,
            [0, 1_000, 2_000, 3_000, 4_000]
        );
    }
}

//! A target that fails again and again is asked now and then, not hammered.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Whether a target may be tried now, for everything that is on its way to it.
///
/// While it is open, one message at a time is a probe, the one first that has waited longest.
#[derive(Debug)]
pub(crate) struct Breaker {
    /// So many failures in a row open it,
    limit: u32,
    /// if there was no success for so long: of many messages at once, a few fail in a row at a
    /// target that takes every other one.
    span: Duration,
    /// The longest time between two probes.
    probe: Duration,
    state: Mutex<State>,
    /// Whose turn it is; first come, first served.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// When the first of them was.
    since: Option<Instant>,
    is_open: bool,
    not_before: Option<Instant>,
}

/// What a failure led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Whether it has opened the breaker.
    pub(crate) has_opened: bool,
    /// How long everybody has to wait.
    pub(crate) wait: Option<Duration>,
}

impl Breaker {
    pub(crate) fn new(limit: u32, span: Duration, probe: Duration) -> Self {
        Self {
            limit,
            span,
            probe,
            state: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Waits until the target may be tried. What it returns is held during the attempt.
    pub(crate) async fn admit(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        if self.wait_until().is_none() && !self.state().is_open {
            return None;
        }
        let turn = self.turn.lock().await;
        // A success ends the wait of everybody behind it, a failure prolongs it.
        while let Some(moment) = self.wait_until() {
            sleep_until(moment).await;
        }
        self.state().is_open.then_some(turn)
    }

    /// The target answered; whether that has closed the breaker.
    pub(crate) fn succeed(&self) -> bool {
        std::mem::take(&mut *self.state()).is_open
    }

    /// The target failed, and may have asked to be left alone for a while. `pause` is how long the
    /// message would wait by itself.
    pub(crate) fn fail(&self, asked: Option<Duration>, pause: Duration) -> Failure {
        let asked = asked.map(|asked| asked.min(MAX_ASKED));
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        let since = *state.since.get_or_insert_with(Instant::now);
        let was_open = state.is_open;
        state.is_open |= state.failures >= self.limit && since.elapsed() >= self.span;
        let probe = self.probe.mul_f64(0.8 + fastrand::f64() / 5.0);
        let probe = state.is_open.then(|| pause.min(probe));
        let wait = asked.max(probe);
        if let Some(wait) = wait {
            state.not_before = state.not_before.max(Some(Instant::now() + wait));
        }
        Failure {
            has_opened: state.is_open && !was_open,
            wait,
        }
    }

    fn wait_until(&self) -> Option<Instant> {
        let state = self.state();
        state.not_before.filter(|moment| *moment > Instant::now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pause before another attempt: of a limit that doubles with each, at least one half.
pub(crate) fn pause(first: Duration, last: Duration, attempt: u32) -> Duration {
    let doubled = 1_u32.checked_shl(attempt.saturating_sub(1));
    let limit = doubled.map_or(last, |doubled| first.saturating_mul(doubled));
    // At random, so that those who failed together do not come back together.
    limit.min(last).mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// A target may ask for a longer pause than ours, though not for ever.
const MAX_ASKED: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const PROBE: Duration = Duration::from_secs(5);
    /// The clock's steps are milliseconds.
    const SLACK: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn pauses_double_up_to_the_longest() {
        let (first, last) = (Duration::from_millis(500), Duration::from_secs(30));
        for (attempt, limit) in [(1, 0.5), (2, 1.0), (6, 16.0), (7, 30.0), (500, 30.0)] {
            let pause = pause(first, last, attempt).as_secs_f64();
            assert!(pause <= limit && pause >= limit / 2.0, "{attempt}: {pause}");
        }
    }

    fn breaker(limit: u32, span: Duration) -> Breaker {
        Breaker::new(limit, span, PROBE)
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_breaker_lets_one_probe_through_every_few_seconds() {
        let breaker = Arc::new(breaker(2, Duration::ZERO));
        assert!(!breaker.fail(None, LONG).has_opened);
        assert!(
            breaker.admit().await.is_none(),
            "one failure holds up nobody"
        );
        assert!(breaker.fail(None, LONG).has_opened);
        let begin = Instant::now();
        let (sender, mut tried) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..3 {
            let (breaker, sender) = (breaker.clone(), sender.clone());
            tokio::spawn(async move {
                let turn = breaker.admit().await;
                sender.send(turn.is_some()).unwrap();
                breaker.fail(None, LONG);
            });
        }
        for probes in 1..=3 {
            assert_eq!(tried.recv().await, Some(true));
            let passed = begin.elapsed();
            assert!(passed <= PROBE * probes + SLACK && passed >= PROBE.mul_f64(0.8) * probes);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_failures_among_many_at_once_do_not_open_it() {
        let breaker = breaker(5, Duration::from_secs(2));
        for _ in 0..100 {
            assert!(!breaker.fail(None, LONG).has_opened);
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!breaker.succeed());
        assert!(!breaker.fail(None, LONG).has_opened, "the row begins anew");
        tokio::time::advance(Duration::from_secs(2)).await;
        for failures in 2..=5 {
            assert_eq!(breaker.fail(None, LONG).has_opened, failures == 5);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_frees_everybody() {
        let breaker = breaker(1, Duration::ZERO);
        assert!(breaker.fail(Some(Duration::from_secs(60)), LONG).has_opened);
        let begin = Instant::now();
        let probe = breaker.admit().await;
        assert_eq!(begin.elapsed().as_secs(), 60);
        let (_, freed) = tokio::join!(
            async {
                assert!(breaker.succeed());
                drop(probe);
            },
            breaker.admit()
        );
        assert!(freed.is_none());
        assert!(!breaker.succeed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_was_asked_for_is_everybodys() {
        let breaker = breaker(9, Duration::ZERO);
        let asked = Some(Duration::from_secs(7));
        let failure = breaker.fail(asked, LONG);
        assert_eq!((failure.has_opened, failure.wait), (false, asked));
        let begin = Instant::now();
        assert!(breaker.admit().await.is_none());
        assert_eq!(begin.elapsed().as_secs(), 7);
    }
}

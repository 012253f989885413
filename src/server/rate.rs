//! How often something may happen: a bucket for one, or for each of many in bounded memory.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::DashMapStateStore;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// So many in a second, a minute or an hour: `100/s`, `600/m`. After a pause, so many may come at
/// once; later ones come one at a time, evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub number: NonZeroU32,
    /// In which time.
    pub per: Period,
}

/// What a rate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
}

impl Rate {
    fn quota(self) -> Quota {
        match self.per {
            Period::Second => Quota::per_second(self.number),
            Period::Minute => Quota::per_minute(self.number),
            Period::Hour => Quota::per_hour(self.number),
        }
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (number, per) = text.split_once('/').ok_or(RateError)?;
        let number = number.trim().parse().map_err(|_| RateError)?;
        let per = match per.trim() {
            "s" => Period::Second,
            "m" => Period::Minute,
            "h" => Period::Hour,
            _ => return Err(RateError),
        };
        Ok(Self { number, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.per {
            Period::Second => "s",
            Period::Minute => "m",
            Period::Hour => "h",
        };
        write!(f, "{}/{per}", self.number)
    }
}

/// The text is no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a number for a second, a minute or an hour, such as 100/s, 600/m or 1000/h")]
pub struct RateError;

/// One bucket, for everybody together.
pub(super) struct Bucket(DefaultDirectRateLimiter);

impl Bucket {
    pub(super) fn new(rate: Rate) -> Self {
        Self(RateLimiter::direct(rate.quota()))
    }

    /// So many a second, and twice as many at once.
    pub(super) fn per_second(number: NonZeroU32) -> Self {
        let burst = number.saturating_add(number.get());
        Self(RateLimiter::direct(
            Quota::per_second(number).allow_burst(burst),
        ))
    }

    /// Takes one; when there is none left, says how long to wait.
    pub(super) fn take(&self) -> Result<(), Duration> {
        let taken = self.0.check();
        taken.map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }
}

/// A bucket for each of many, whoever they are, in bounded memory.
///
/// Those whose bucket is full again are forgotten. While there are still too many to tell apart,
/// they share some buckets.
pub(super) struct Buckets {
    limiter: RateLimiter<u64, DashMapStateStore<u64>, DefaultClock>,
    hasher: RandomState,
    began: Instant,
    /// When it was last cleared up, in seconds.
    swept: AtomicU64,
}

impl Buckets {
    pub(super) fn new(rate: Rate) -> Self {
        Self::with_quota(rate.quota())
    }

    /// So many a second, and twice as many at once.
    pub(super) fn per_second(number: NonZeroU32) -> Self {
        let burst = number.saturating_add(number.get());
        Self::with_quota(Quota::per_second(number).allow_burst(burst))
    }

    fn with_quota(quota: Quota) -> Self {
        Self {
            limiter: RateLimiter::new(
                quota,
                DashMapStateStore::with_hasher(RandomState::new()),
                DefaultClock::default(),
            ),
            hasher: RandomState::new(),
            began: Instant::now(),
            swept: AtomicU64::new(0),
        }
    }

    /// Takes one of somebody's; when there is none left, says how long to wait.
    pub(super) fn take(&self, whose: impl Hash) -> Result<(), Duration> {
        let hash = self.hasher.hash_one(whose);
        let key = if self.limiter.len() >= MAX_BUCKETS {
            self.sweep();
            let is_full = self.limiter.len() >= MAX_BUCKETS;
            if is_full { hash % SHARED } else { hash }
        } else {
            hash
        };
        let taken = self.limiter.check_key(&key);
        taken.map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }

    /// Forgets whose bucket is full again. Looking at all of them takes time, so not at each call.
    fn sweep(&self) {
        let now = self.began.elapsed().as_secs() + 1;
        if self.swept.fetch_max(now, Ordering::Relaxed) < now {
            self.limiter.retain_recent();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.limiter.len()
    }
}

/// How many are told apart; a bucket takes some 50 bytes.
pub(super) const MAX_BUCKETS: usize = 1 << 16;

/// How many buckets are shared while there are too many.
const SHARED: u64 = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_written_as_it_was_read() {
        for text in ["100/s", "1/m", "4294967295/h"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in ["", "1", "0/s", "1/", "1/d", "-1/s", "1.5/s", "4294967296/s"] {
            assert_eq!(text.parse::<Rate>(), Err(RateError), "{text:?}");
        }
    }

    #[test]
    fn a_bucket_gives_what_it_holds_and_says_how_long_to_wait() {
        let bucket = Bucket::new("3/h".parse().unwrap());
        for _ in 0..3 {
            assert_eq!(bucket.take(), Ok(()));
        }
        let wait = bucket.take().unwrap_err();
        assert!((1_100..=1_200).contains(&wait.as_secs()), "{wait:?}");
    }

    #[test]
    fn everybody_has_a_bucket_of_their_own() {
        let buckets = Buckets::new("1/h".parse().unwrap());
        assert_eq!(buckets.take("a"), Ok(()));
        assert!(buckets.take("a").is_err());
        assert_eq!(buckets.take("b"), Ok(()));
    }

    #[test]
    fn ever_new_names_take_bounded_memory() {
        let buckets = Buckets::new("2/h".parse().unwrap());
        for number in 0..2 * MAX_BUCKETS {
            let _ = buckets.take(number);
        }
        let most = MAX_BUCKETS + usize::try_from(SHARED).unwrap();
        assert!(buckets.len() <= most, "{}", buckets.len());
        assert!(
            buckets.take("newcomer").is_err(),
            "the shared ones are empty"
        );
    }
}

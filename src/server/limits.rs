//! What strangers, and everybody together, may ask of the server at once.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::rate::{Bucket, Buckets, Period, Rate};
use super::transport::Peer;

/// Counts wrong tokens and signatures by network.
pub(super) struct Failures(Buckets);

impl Failures {
    pub(super) fn new() -> Self {
        Self(Buckets::new(Rate {
            number: NonZeroU32::MIN.saturating_add(FAILURES - 2),
            per: Period::Minute,
        }))
    }

    /// Counts one failure; when there have been too many, says how long to wait.
    pub(super) fn count(&self, peer: Peer) -> Result<(), Duration> {
        // What comes through a unix socket is counted where it came from, not here.
        peer.network()
            .map_or(Ok(()), |network| self.0.take(network))
    }
}

/// How often strangers may publish: all of them together, and the share that one network has.
pub(super) struct Strangers {
    all: Bucket,
    each: Buckets,
}

impl Strangers {
    /// Allows so many messages a second, of which one network may send `share`, and twice as many
    /// in a burst.
    pub(super) fn new(rate: NonZeroU32, share: NonZeroU32) -> Self {
        Self {
            all: Bucket::per_second(rate),
            each: Buckets::per_second(share),
        }
    }

    /// Counts one message against its sender's share; when there have been too many, says how
    /// long to wait.
    pub(super) fn count_share(&self, peer: Peer) -> Result<(), Duration> {
        peer.network()
            .map_or(Ok(()), |network| self.each.take(network))
    }

    /// Counts one message against what all have together.
    pub(super) fn count(&self) -> Result<(), Duration> {
        self.all.take()
    }
}

/// The bytes of bodies that are held while they are read and stored.
#[derive(Clone)]
pub(super) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        let pieces = (bytes / PIECE).clamp(1, Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(pieces)))
    }

    /// Something of this budget, nothing to begin with. It is given back when dropped.
    pub(super) fn open(&self) -> Charge {
        Charge {
            budget: self.0.clone(),
            held: None,
            bytes: 0,
        }
    }
}

/// What one body takes of the budget.
pub(super) struct Charge {
    budget: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Charge {
    /// Takes room for more bytes, if there is any.
    pub(super) fn add(&mut self, bytes: usize) -> Result<(), OverBudget> {
        let had = self.bytes.div_ceil(PIECE);
        self.bytes += bytes;
        let more = u32::try_from(self.bytes.div_ceil(PIECE) - had).map_err(|_| OverBudget)?;
        if more == 0 {
            return Ok(());
        }
        let permit = self.budget.clone().try_acquire_many_owned(more);
        let permit = permit.map_err(|_| OverBudget)?;
        match &mut self.held {
            Some(held) => held.merge(permit),
            held => *held = Some(permit),
        }
        Ok(())
    }
}

/// The budget has no room for more.
#[derive(Debug)]
pub(super) struct OverBudget;

/// From this failure a minute on, an address is told to wait.
const FAILURES: u32 = 100;

/// What a budget is counted in, in bytes.
const PIECE: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::rate::MAX_BUCKETS;
    use super::*;

    #[test]
    fn the_hundredth_failure_of_a_network_is_one_too_many() {
        let failures = Failures::new();
        let peer = |address: &str| Peer::Ip(address.parse().unwrap());
        for port in 1..100 {
            assert_eq!(
                failures.count(peer(&format!("[2001:db8::{port}]:{port}"))),
                Ok(())
            );
        }
        assert!(failures.count(peer("[2001:db8::abcd]:1")).is_err());
        assert_eq!(failures.count(peer("10.0.0.1:1")), Ok(()));
    }

    #[test]
    fn failures_from_ever_new_addresses_take_bounded_memory() {
        let failures = Failures::new();
        for number in 0..MAX_BUCKETS as u32 + 1_000 {
            let _ = failures.count(Peer::Ip((Ipv4Addr::from_bits(number + 1), 1).into()));
        }
        let most = MAX_BUCKETS + MAX_BUCKETS / 8;
        assert!(failures.0.len() <= most, "{}", failures.0.len());
    }

    #[test]
    fn no_stranger_can_use_up_what_all_have_together() {
        let number = |number| NonZeroU32::new(number).unwrap();
        let strangers = Strangers::new(number(100), number(10));
        let peer = |address: &str| Peer::Ip(address.parse().unwrap());
        let mut allowed = 0;
        while strangers.count_share(peer("10.0.0.1:1")).is_ok() {
            strangers.count().unwrap();
            allowed += 1;
        }
        assert!((20..25).contains(&allowed), "{allowed}");
        assert_eq!(strangers.count_share(peer("10.0.0.2:1")), Ok(()));
        assert_eq!(strangers.count(), Ok(()));
    }

    #[test]
    fn a_charge_takes_what_it_says_and_gives_it_back() {
        let budget = Budget::new(4 * PIECE);
        let mut charge = budget.open();
        for _ in 0..4 * PIECE / 100 {
            charge.add(100).unwrap();
        }
        assert!(budget.open().add(1).is_err());
        assert!(charge.add(PIECE).is_err());
        drop(charge);
        assert!(budget.open().add(4 * PIECE).is_ok());
        assert!(budget.open().add(4 * PIECE + 1).is_err());
    }
}

//! What strangers, and everybody together, may ask of the server at once.

use std::collections::hash_map::RandomState;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::DashMapStateStore;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::transport::Peer;

/// Counts wrong tokens by network, in bounded memory.
pub(super) struct Failures(RateLimiter<IpAddr, DashMapStateStore<IpAddr>, DefaultClock>);

impl Failures {
    pub(super) fn new() -> Self {
        let quota = Quota::per_minute(NonZeroU32::MIN.saturating_add(FAILURES - 2));
        Self(RateLimiter::new(
            quota,
            DashMapStateStore::<IpAddr>::with_hasher(RandomState::new()),
            DefaultClock::default(),
        ))
    }

    /// Counts one failure; when there have been too many, says how long to wait.
    pub(super) fn count(&self, peer: Peer) -> Result<(), Duration> {
        // What comes through a unix socket is counted where it came from, not here.
        let Some(network) = peer.network() else {
            return Ok(());
        };
        if self.0.len() >= NETWORKS {
            self.0.retain_recent();
        }
        // So many at once that there is no room to tell them apart: they share one count.
        let full = self.0.len() >= NETWORKS;
        let network = if full {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            network
        };
        let counted = self.0.check_key(&network);
        counted.map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }
}

/// How often strangers may publish, all of them together.
pub(super) struct Rate(DefaultDirectRateLimiter);

impl Rate {
    /// Allows so many messages a second, and twice as many in a burst.
    pub(super) fn new(rate: NonZeroU32) -> Self {
        let burst = rate.saturating_add(rate.get());
        Self(RateLimiter::direct(
            Quota::per_second(rate).allow_burst(burst),
        ))
    }

    /// Counts one message; when there have been too many, says how long to wait.
    pub(super) fn count(&self) -> Result<(), Duration> {
        let counted = self.0.check();
        counted.map_err(|until| until.wait_time_from(DefaultClock::default().now()))
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

/// How many networks are told apart.
const NETWORKS: usize = 1 << 16;

/// What a budget is counted in, in bytes.
const PIECE: usize = 1 << 10;

#[cfg(test)]
mod tests {
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
        for number in 0..NETWORKS as u32 + 1_000 {
            let _ = failures.count(Peer::Ip((Ipv4Addr::from_bits(number + 1), 1).into()));
        }
        assert!(failures.0.len() <= NETWORKS + 1, "{}", failures.0.len());
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

//! Who is subscribed, by which token: so that a token that is revoked ends what it has opened.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use hookbot_protocol::{Fingerprint, Path, Token};

/// Everybody who is subscribed.
#[derive(Default)]
pub(super) struct Roster(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    next: u64,
    seats: HashMap<u64, Arc<Occupant>>,
    by_token: HashMap<Fingerprint, usize>,
}

/// A subscriber, as far as it matters whether it may stay.
pub(super) struct Occupant {
    /// What it opened the connection with.
    pub(super) token: Token,
    pub(super) path: Path,
    /// Where it is, if it is on the network.
    pub(super) address: Option<IpAddr>,
    is_dismissed: AtomicBool,
    waker: AtomicWaker,
}

/// How many subscribers there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Capacity {
    pub(super) all: Option<usize>,
    pub(super) by_token: Option<usize>,
}

/// There is no seat left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    All,
    Token,
}

impl Roster {
    /// Takes a seat, which is given back when dropped.
    pub(super) fn join(
        self: &Arc<Self>,
        token: &Token,
        path: &Path,
        address: Option<IpAddr>,
        capacity: Capacity,
    ) -> Result<Seat, Full> {
        let fingerprint = token.fingerprint();
        let occupant = Arc::new(Occupant {
            token: token.clone(),
            path: path.clone(),
            address,
            is_dismissed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        let mut inner = self.inner();
        if capacity.all.is_some_and(|most| inner.seats.len() >= most) {
            return Err(Full::All);
        }
        let taken = inner.by_token.get(&fingerprint).copied();
        let taken = taken.unwrap_or_default();
        if capacity.by_token.is_some_and(|most| taken >= most) {
            return Err(Full::Token);
        }
        inner.by_token.insert(fingerprint, taken + 1);
        let number = inner.next;
        inner.next += 1;
        inner.seats.insert(number, occupant.clone());
        Ok(Seat {
            roster: self.clone(),
            number,
            occupant,
        })
    }

    /// Has those leave of whom `may_stay` says no; how many they are.
    ///
    /// It is asked without holding up those who come and go, for it may take a while.
    pub(super) fn review(&self, may_stay: impl Fn(&Occupant) -> bool) -> usize {
        let all: Vec<_> = self.inner().seats.values().cloned().collect();
        let leaving = all.iter().filter(|occupant| !may_stay(occupant));
        leaving.map(|occupant| occupant.dismiss()).count()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Occupant {
    fn dismiss(&self) {
        self.is_dismissed.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// A subscriber's place on the roster.
pub(super) struct Seat {
    roster: Arc<Roster>,
    number: u64,
    occupant: Arc<Occupant>,
}

impl Seat {
    /// The path that was subscribed to.
    pub(super) fn path(&self) -> &str {
        self.occupant.path.as_str()
    }

    /// Ready once it has to be left. Only the last one to poll is woken.
    pub(super) fn poll_dismissed(&self, context: &mut Context<'_>) -> Poll<()> {
        self.occupant.waker.register(context.waker());
        if self.occupant.is_dismissed.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Not kept: there are many seats, and each is left once.
        let fingerprint = self.occupant.token.fingerprint();
        let mut inner = self.roster.inner();
        inner.seats.remove(&self.number);
        if let Some(by_token) = inner.by_token.get_mut(&fingerprint) {
            *by_token -= 1;
            if *by_token == 0 {
                inner.by_token.remove(&fingerprint);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::poll_fn;
    use hookbot_protocol::{Key, Scope};

    fn token(path: &str) -> Token {
        let key = Key::new(b"k").unwrap();
        key.mint(&Scope::parse(path).unwrap())
    }

    fn join(roster: &Arc<Roster>, path: &str, capacity: Capacity) -> Result<Seat, Full> {
        roster.join(&token(path), &Path::parse(path).unwrap(), None, capacity)
    }

    #[tokio::test]
    async fn only_those_who_may_not_stay_are_dismissed() {
        let roster = Arc::new(Roster::default());
        let [a, b] = ["/sub/a", "/sub/b"].map(|path| join(&roster, path, Capacity::default()));
        let (a, b) = (a.ok().unwrap(), b.ok().unwrap());
        let waiting =
            tokio::spawn(async move { poll_fn(|context| a.poll_dismissed(context)).await });
        tokio::task::yield_now().await;
        assert_eq!(
            roster.review(|occupant| occupant.path.as_str() != "/sub/a"),
            1
        );
        waiting.await.unwrap();
        let still = poll_fn(|context| Poll::Ready(b.poll_dismissed(context))).await;
        assert!(still.is_pending());
        assert_eq!(roster.review(|_| false), 1, "the first one has left");
    }

    #[test]
    fn a_seat_is_free_again_once_it_is_left() {
        let roster = Arc::new(Roster::default());
        let capacity = Capacity {
            all: Some(3),
            by_token: Some(2),
        };
        let first = join(&roster, "/sub/a", capacity).ok().unwrap();
        let _second = join(&roster, "/sub/a", capacity).ok().unwrap();
        assert_eq!(join(&roster, "/sub/a", capacity).err(), Some(Full::Token));
        let other = join(&roster, "/sub/b", capacity).ok().unwrap();
        assert_eq!(join(&roster, "/sub/c", capacity).err(), Some(Full::All));
        drop((first, other));
        let _again = join(&roster, "/sub/a", capacity).ok().unwrap();
        assert_eq!(roster.inner().by_token.len(), 1, "none is kept for nobody");
    }
}

//! Who is connected for longer, by which token or channel: so that one that is good no longer
//! ends what it has opened.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use hookbot_protocol::{Fingerprint, Path, Token};

use super::channels::ChannelId;

/// Everybody who is subscribed.
#[derive(Default)]
pub(super) struct Roster(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    next: u64,
    seats: HashMap<u64, Arc<Occupant>>,
    /// How many there are by each pass.
    by_pass: HashMap<Fingerprint, usize>,
    /// How many of these passes are channels.
    channels: usize,
}

/// What a connection was opened with.
#[derive(Debug, Clone)]
pub(super) enum Pass {
    Token(Token),
    Channel(ChannelId),
}

impl Pass {
    fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Token(token) => token.fingerprint(),
            Self::Channel(id) => id.fingerprint(),
        }
    }
}

/// A subscriber, as far as it matters whether it may stay.
pub(super) struct Occupant {
    pub(super) pass: Pass,
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
    /// By each token, and by each channel.
    pub(super) by_pass: Option<usize>,
    /// How many channels may have somebody.
    pub(super) channels: usize,
}

/// There is no seat left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    All,
    Pass,
    Channels,
}

impl Roster {
    /// Takes a seat, which is given back when dropped.
    pub(super) fn join(
        self: &Arc<Self>,
        pass: Pass,
        path: &Path,
        address: Option<IpAddr>,
        capacity: Capacity,
    ) -> Result<Seat, Full> {
        let fingerprint = pass.fingerprint();
        let is_channel = matches!(pass, Pass::Channel(_));
        let occupant = Arc::new(Occupant {
            pass,
            path: path.clone(),
            address,
            is_dismissed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        let mut inner = self.inner();
        if capacity.all.is_some_and(|most| inner.seats.len() >= most) {
            return Err(Full::All);
        }
        let taken = inner.by_pass.get(&fingerprint).copied();
        let taken = taken.unwrap_or_default();
        if capacity.by_pass.is_some_and(|most| taken >= most) {
            return Err(Full::Pass);
        }
        if is_channel && taken == 0 {
            if inner.channels >= capacity.channels {
                return Err(Full::Channels);
            }
            inner.channels += 1;
        }
        inner.by_pass.insert(fingerprint, taken + 1);
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
        let fingerprint = self.occupant.pass.fingerprint();
        let mut inner = self.roster.inner();
        inner.seats.remove(&self.number);
        if let Some(by_pass) = inner.by_pass.get_mut(&fingerprint) {
            *by_pass -= 1;
            if *by_pass == 0 {
                inner.by_pass.remove(&fingerprint);
                inner.channels -= usize::from(matches!(self.occupant.pass, Pass::Channel(_)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::poll_fn;
    use hookbot_protocol::{Key, Keys, Scope};

    use super::super::channels::Kind;

    fn token(path: &str) -> Token {
        let key = Key::new(b"k").unwrap();
        key.mint(&Scope::parse(path).unwrap())
    }

    fn join(roster: &Arc<Roster>, path: &str, capacity: Capacity) -> Result<Seat, Full> {
        let pass = Pass::Token(token(path));
        roster.join(pass, &Path::parse(path).unwrap(), None, capacity)
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
            by_pass: Some(2),
            channels: 0,
        };
        let first = join(&roster, "/sub/a", capacity).ok().unwrap();
        let _second = join(&roster, "/sub/a", capacity).ok().unwrap();
        assert_eq!(join(&roster, "/sub/a", capacity).err(), Some(Full::Pass));
        let other = join(&roster, "/sub/b", capacity).ok().unwrap();
        assert_eq!(join(&roster, "/sub/c", capacity).err(), Some(Full::All));
        drop((first, other));
        let _again = join(&roster, "/sub/a", capacity).ok().unwrap();
        assert_eq!(roster.inner().by_pass.len(), 1, "none is kept for nobody");
    }

    #[test]
    fn so_many_channels_have_somebody_and_each_as_many_as_a_token() {
        let roster = Arc::new(Roster::default());
        let keys = Keys::new(Key::new(b"k").unwrap());
        let capacity = Capacity {
            all: None,
            by_pass: Some(2),
            channels: 2,
        };
        let path = Path::parse("/smee/x").unwrap();
        let join = |pass: &Pass| roster.join(pass.clone(), &path, None, capacity);
        let [a, b, c] =
            [(); 3].map(|()| Pass::Channel(ChannelId::mint(&keys, Kind::Smee).unwrap()));
        let first = join(&a).ok().unwrap();
        let second = join(&a).ok().unwrap();
        assert_eq!(join(&a).err(), Some(Full::Pass));
        let _other = join(&b).ok().unwrap();
        assert_eq!(join(&c).err(), Some(Full::Channels));
        drop(first);
        assert_eq!(join(&c).err(), Some(Full::Channels));
        drop(second);
        let _third = join(&c).ok().unwrap();
        let _token = join(&Pass::Token(token("/sub/a"))).ok().unwrap();
    }
}

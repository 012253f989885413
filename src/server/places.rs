//! The places for connections: how many there may be, and how many of them may be one address's.
//!
//! A connection beyond these is accepted all the same and told so, by a few at a time at the door;
//! while there are that many, newcomers wait in the system's queue.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::HttpError;

/// Every place that there is.
pub(super) struct Places {
    all: usize,
    each: usize,
    spares_loopback: bool,
    door: Arc<Semaphore>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    /// No network is in here that has none.
    by_network: HashMap<IpAddr, usize>,
}

impl Places {
    /// So many for everybody, of which one network may have `each`; by default half, or as many as
    /// it likes if it is this machine, where proxies are that nobody has named.
    pub(super) fn new(all: usize, each: Option<usize>) -> Self {
        Self {
            all,
            each: each.unwrap_or_else(|| all.div_ceil(2)),
            spares_loopback: each.is_none(),
            door: Arc::new(Semaphore::new(DOOR)),
            taken: Mutex::default(),
        }
    }

    /// Waits until somebody more may come to the door.
    pub(super) async fn door(&self) -> Option<Door> {
        self.door.clone().acquire_owned().await.ok()
    }

    /// Lets somebody more come to the door, if that is possible now.
    pub(super) fn try_door(&self) -> Option<Door> {
        self.door.clone().try_acquire_owned().ok()
    }

    /// Takes a place, and counts it for this network. It is given back when dropped.
    pub(super) fn take(self: &Arc<Self>, network: Option<IpAddr>) -> Result<Place, HttpError> {
        let mut taken = self.taken();
        if taken.all >= self.all {
            return Err(HttpError::Connections);
        }
        taken.all += 1;
        // From here on, dropping it gives it back, which needs the lock.
        drop(taken);
        let mut place = Place {
            places: self.clone(),
            network: None,
        };
        if let Some(network) = network {
            place.count(network)?;
        }
        Ok(place)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to be accepted, whatever becomes of it.
pub(super) type Door = OwnedSemaphorePermit;

/// One connection's place.
pub(super) struct Place {
    places: Arc<Places>,
    network: Option<IpAddr>,
}

impl Place {
    /// Counts this place for a network, unless it is counted already.
    pub(super) fn count(&mut self, network: IpAddr) -> Result<(), HttpError> {
        let is_spared = network.is_loopback() && self.places.spares_loopback;
        if self.network.is_some() || is_spared {
            return Ok(());
        }
        let mut taken = self.places.taken();
        let own = taken.by_network.get(&network).copied().unwrap_or_default();
        if own >= self.places.each {
            return Err(HttpError::ConnectionsOfAddress);
        }
        taken.by_network.insert(network, own + 1);
        self.network = Some(network);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        let Some(network) = self.network else { return };
        if let Some(own) = taken.by_network.get_mut(&network) {
            *own -= 1;
            if *own == 0 {
                taken.by_network.remove(&network);
            }
        }
    }
}

/// How many may be at the door: accepted, and not let in or told yet that there is no place.
pub(crate) const DOOR: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_once_it_is_left() {
        let places = Arc::new(Places::new(3, Some(2)));
        let [one, other] = [1, 2].map(|last| Some(IpAddr::from([192, 0, 2, last])));
        let first = places.take(one).ok().unwrap();
        let _second = places.take(one).ok().unwrap();
        let of_address =
            |place: Result<_, _>| matches!(place, Err(HttpError::ConnectionsOfAddress));
        let of_all = |place: Result<_, _>| matches!(place, Err(HttpError::Connections));
        assert!(of_address(places.take(one)));
        let third = places.take(other).ok().unwrap();
        assert!(of_all(places.take(other)) && of_all(places.take(None)));
        drop((first, third));
        let _again = places.take(one).ok().unwrap();
        assert_eq!(
            places.taken().by_network.len(),
            1,
            "none is kept for nobody"
        );
        assert_eq!(places.taken().all, 2, "who was refused takes none");
    }

    #[test]
    fn half_of_them_are_there_for_one_address_and_all_for_this_machine() {
        for (all, each) in [(1, 1), (2, 1), (5, 3), (100, 50)] {
            let places = Arc::new(Places::new(all, None));
            let [one, loopback] = [[192, 0, 2, 1], [127, 0, 0, 1]].map(IpAddr::from);
            let mut taken = Vec::new();
            while let Ok(place) = places.take(Some(one)) {
                taken.push(place);
            }
            assert_eq!(taken.len(), each);
            while let Ok(place) = places.take(Some(loopback)) {
                taken.push(place);
            }
            assert_eq!(taken.len(), all, "this machine's are not counted");
        }
    }
}

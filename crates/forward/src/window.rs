//! Which messages are on their way, and how far everything before is dealt with.

use std::collections::{HashMap, VecDeque};

/// The messages between the oldest that is not dealt with and the newest.
#[derive(Debug)]
pub(crate) struct Window {
    /// How large the messages are together before no more are read. The last one may exceed it.
    most: usize,
    /// The number of the first entry.
    first: u64,
    entries: VecDeque<Entry>,
    open: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    place: Option<String>,
    bytes: usize,
    is_done: bool,
    /// Whether it was done before something in front of it.
    was_ahead: bool,
}

/// What a message's end means for the place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Everything up to this place is dealt with, these places that were ahead of it included.
    Through(String, Vec<String>),
    /// This one is, and something before it is not.
    Ahead(String),
    /// Nothing: the source has no places.
    Unknown,
}

impl Window {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            first: 0,
            entries: VecDeque::new(),
            open: 0,
            bytes: 0,
        }
    }

    /// Adds a message behind the others; its number.
    pub(crate) fn push(&mut self, place: Option<String>, bytes: usize) -> u64 {
        self.entries.push_back(Entry {
            place,
            bytes,
            is_done: false,
            was_ahead: false,
        });
        self.open += 1;
        self.bytes += bytes;
        self.first + self.entries.len() as u64 - 1
    }

    /// A message is dealt with.
    pub(crate) fn finish(&mut self, number: u64) -> Progress {
        let at = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        let Some(entry) = self.entries.get_mut(at) else {
            return Progress::Unknown;
        };
        entry.is_done = true;
        self.open -= 1;
        self.bytes -= entry.bytes;
        if at > 0 {
            entry.was_ahead = true;
            return entry
                .place
                .clone()
                .map_or(Progress::Unknown, Progress::Ahead);
        }
        let (mut through, mut passed) = (None, Vec::new());
        while self.entries.front().is_some_and(|entry| entry.is_done) {
            self.first += 1;
            let Some(entry) = self.entries.pop_front() else {
                break;
            };
            if entry.was_ahead {
                passed.extend(entry.place.clone());
            }
            through = entry.place.or(through);
        }
        through.map_or(Progress::Unknown, |place| Progress::Through(place, passed))
    }

    pub(crate) fn has_room(&self) -> bool {
        self.open < MAX_OPEN && self.bytes < self.most && self.entries.len() < MAX_SPAN
    }
}

/// How many messages wait for one target.
const MAX_OPEN: usize = 1_024;

/// How far one may be ahead of the oldest: each that is has to be remembered.
const MAX_SPAN: usize = 65_536;

/// Messages that wait for a turn: those with one key one after the other, all others as they come.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    ready: VecDeque<(Option<String>, T)>,
    /// What waits behind a message of the same key.
    busy: HashMap<String, VecDeque<T>>,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            busy: HashMap::new(),
        }
    }
}

impl<T> Lanes<T> {
    pub(crate) fn push(&mut self, key: Option<String>, job: T) {
        if let Some(key) = &key {
            if let Some(lane) = self.busy.get_mut(key) {
                lane.push_back(job);
                return;
            }
            self.busy.insert(key.clone(), VecDeque::new());
        }
        self.ready.push_back((key, job));
    }

    /// The next one whose turn it is. Its key is busy until [`Self::release`].
    pub(crate) fn next(&mut self) -> Option<(Option<String>, T)> {
        self.ready.pop_front()
    }

    /// The one with this key is done.
    pub(crate) fn release(&mut self, key: Option<String>) {
        let Some(key) = key else {
            return;
        };
        match self.busy.get_mut(&key).and_then(VecDeque::pop_front) {
            Some(job) => self.ready.push_back((Some(key), job)),
            None => {
                self.busy.remove(&key);
            }
        }
    }

    /// Forgets all that waits.
    pub(crate) fn clear(&mut self) {
        self.ready.clear();
        self.busy.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(number: u64) -> Option<String> {
        Some(number.to_string())
    }

    #[test]
    fn the_place_moves_over_what_is_done_without_a_hole() {
        let mut window = Window::new(10);
        let numbers: Vec<_> = (0..4).map(|n| window.push(place(n), 1)).collect();
        assert_eq!(window.finish(numbers[1]), Progress::Ahead("1".to_owned()));
        let through = |place: &str| Progress::Through(place.to_owned(), vec![place.to_owned()]);
        assert_eq!(window.finish(numbers[0]), through("1"));
        assert_eq!(window.finish(numbers[3]), Progress::Ahead("3".to_owned()));
        assert_eq!(window.finish(numbers[2]), through("3"));
        let number = window.push(None, 1);
        assert_eq!(window.finish(number), Progress::Unknown);
        assert_eq!((window.open, window.bytes), (0, 0));
    }

    #[test]
    fn there_is_room_until_too_much_is_open() {
        let mut window = Window::new(10);
        let large = window.push(None, 10);
        assert!(!window.has_room());
        window.finish(large);
        assert!(window.has_room());
        for _ in 0..MAX_OPEN {
            assert!(window.has_room());
            window.push(None, 0);
        }
        assert!(!window.has_room());
    }

    proptest! {
        #[test]
        fn whatever_ends_first_the_place_is_that_of_a_model(order in Just((0..20).collect::<Vec<u64>>()).prop_shuffle()) {
            let mut window = Window::new(10);
            for number in 0..20 {
                window.push(place(number), 0);
            }
            let mut done = [false; 20];
            for number in order {
                done[number as usize] = true;
                let prefix = done.iter().take_while(|done| **done).count() as u64;
                let expected = if number < prefix {
                    let passed = (number + 1..prefix).map(|number| number.to_string());
                    Progress::Through((prefix - 1).to_string(), passed.collect())
                } else {
                    Progress::Ahead(number.to_string())
                };
                prop_assert_eq!(window.finish(number), expected);
            }
        }
    }

    #[test]
    fn one_key_is_one_after_the_other_and_no_key_is_free() {
        let mut lanes = Lanes::default();
        for (key, job) in [
            (Some("a"), 1),
            (Some("a"), 2),
            (None, 3),
            (Some("b"), 4),
            (None, 5),
        ] {
            lanes.push(key.map(str::to_owned), job);
        }
        let a = Some("a".to_owned());
        let mut all = Vec::new();
        while let Some((_, job)) = lanes.next() {
            all.push(job);
        }
        assert_eq!(all, [1, 3, 4, 5]);
        lanes.release(a.clone());
        assert_eq!(lanes.next(), Some((a.clone(), 2)));
        lanes.release(a.clone());
        assert!(lanes.next().is_none());
        lanes.push(a.clone(), 6);
        assert_eq!(lanes.next(), Some((a, 6)));
    }
}

//! What one subscriber got, held against what was sent: lost, repeated, out of order, exactly.

use std::ops::Range;

use crate::stamp::Stamp;

/// One subscriber's account of one topic.
#[derive(Debug)]
pub(crate) struct Ledger {
    run: u16,
    topic: u32,
    size: u64,
    tracks: Vec<Track>,
    tally: Tally,
}

/// Counts of deliveries, of one subscriber or of many.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Messages received, each counted once.
    pub(crate) received: u64,
    /// Acknowledged messages that never came.
    pub(crate) lost: u64,
    /// Deliveries of what had come before.
    pub(crate) duplicates: u64,
    /// Messages that came behind one that the same publisher sent later.
    pub(crate) reordered: u64,
    /// Payloads of another size, topic or run, or that nobody here sent.
    pub(crate) damaged: u64,
}

impl Tally {
    /// Whether every message came once, whole and in order.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost + self.duplicates + self.reordered + self.damaged == 0
    }

    /// Adds another's counts.
    pub(crate) fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.damaged += other.damaged;
    }
}

/// What one publisher sent on one topic.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sent {
    /// How many, so the next one's sequence number.
    pub(crate) count: u32,
    /// Those that were not acknowledged: whether they come or not is nobody's fault.
    pub(crate) unacknowledged: Vec<u32>,
}

impl Sent {
    /// How many were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        u64::from(self.count) - self.unacknowledged.len() as u64
    }
}

/// One publisher's messages as they came: all below `next`, but for the holes.
#[derive(Debug, Default)]
struct Track {
    next: u32,
    holes: Vec<Range<u32>>,
}

enum Arrival {
    InOrder,
    Late,
    Again,
}

impl Track {
    fn note(&mut self, sequence: u32) -> Arrival {
        if sequence >= self.next {
            if sequence > self.next {
                self.holes.push(self.next..sequence);
            }
            self.next = sequence + 1;
            return Arrival::InOrder;
        }
        let at = self.holes.partition_point(|hole| hole.end <= sequence);
        let Some(hole) = self.holes.get(at).filter(|hole| hole.contains(&sequence)) else {
            return Arrival::Again;
        };
        let parts = [hole.start..sequence, sequence + 1..hole.end];
        let left = parts.into_iter().filter(|part| !part.is_empty());
        self.holes.splice(at..=at, left);
        Arrival::Late
    }

    fn has(&self, sequence: u32) -> bool {
        sequence < self.next && !self.holes.iter().any(|hole| hole.contains(&sequence))
    }

    fn lost(&self, sent: &Sent) -> u64 {
        let holes = self.holes.iter().map(|hole| hole.len() as u64).sum::<u64>();
        let missing = holes + u64::from(sent.count.saturating_sub(self.next));
        let unacknowledged = sent.unacknowledged.iter();
        let excused = unacknowledged.filter(|sequence| !self.has(**sequence));
        missing - excused.count() as u64
    }
}

impl Ledger {
    /// For a subscriber of this topic, while so many publishers send payloads of this size.
    pub(crate) fn new(run: u16, topic: u32, size: usize, publishers: usize) -> Self {
        Self {
            run,
            topic,
            size: size as u64,
            tracks: (0..publishers).map(|_| Track::default()).collect(),
            tally: Tally::default(),
        }
    }

    /// Enters one delivery, by the beginning of its payload and its whole length. Gives the send
    /// time of a message that had not come before.
    pub(crate) fn enter(&mut self, start: &[u8], length: u64) -> Option<u64> {
        let ours =
            |stamp: &Stamp| (stamp.run, stamp.topic, length) == (self.run, self.topic, self.size);
        let Some(stamp) = Stamp::read(start).filter(ours) else {
            self.tally.damaged += 1;
            return None;
        };
        let Some(track) = self.tracks.get_mut(usize::from(stamp.publisher)) else {
            self.tally.damaged += 1;
            return None;
        };
        match track.note(stamp.sequence) {
            Arrival::InOrder => {}
            Arrival::Late => self.tally.reordered += 1,
            Arrival::Again => {
                self.tally.duplicates += 1;
                return None;
            }
        }
        self.tally.received += 1;
        Some(stamp.sent)
    }

    /// The number of this subscriber's topic.
    pub(crate) fn topic(&self) -> u32 {
        self.topic
    }

    /// The counts, held against what each publisher sent on this topic.
    pub(crate) fn settle<'a>(&self, sent: impl IntoIterator<Item = &'a Sent>) -> Tally {
        let tracks = self.tracks.iter().zip(sent);
        Tally {
            lost: tracks.map(|(track, sent)| track.lost(sent)).sum(),
            ..self.tally
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 64;

    fn payload(publisher: u16, sequence: u32) -> Vec<u8> {
        let mut payload = Stamp::blank(SIZE);
        let stamp = Stamp {
            run: 1,
            publisher,
            topic: 2,
            sequence,
            sent: 9,
        };
        stamp.write(&mut payload);
        payload
    }

    /// The counts after these sequence numbers of one publisher, who sent four.
    fn tally(sequences: &[u32], unacknowledged: &[u32]) -> Tally {
        let mut ledger = Ledger::new(1, 2, SIZE, 1);
        for sequence in sequences {
            ledger.enter(&payload(0, *sequence), SIZE as u64);
        }
        let sent = Sent {
            count: 4,
            unacknowledged: unacknowledged.to_vec(),
        };
        ledger.settle([&sent])
    }

    #[test]
    fn every_loss_repeat_and_disorder_is_counted_once() {
        // What came, what was not acknowledged; received, lost, duplicates, reordered.
        let table: [(&[u32], &[u32], [u64; 4]); 12] = [
            (&[0, 1, 2, 3], &[], [4, 0, 0, 0]),
            (&[], &[], [0, 4, 0, 0]),
            (&[0, 1, 3], &[], [3, 1, 0, 0]),
            (&[1, 2, 3], &[], [3, 1, 0, 0]),
            (&[0, 1, 2], &[], [3, 1, 0, 0]),
            (&[0, 1, 1, 2, 3], &[], [4, 0, 1, 0]),
            (&[0, 1, 2, 3, 0], &[], [4, 0, 1, 0]),
            (&[0, 2, 1, 3], &[], [4, 0, 0, 1]),
            (&[3, 2, 1, 0], &[], [4, 0, 0, 3]),
            (&[3, 1, 1], &[], [2, 2, 1, 1]),
            (&[0, 1, 3], &[2], [3, 0, 0, 0]),
            (&[0, 1, 2], &[2], [3, 1, 0, 0]),
        ];
        for (came, unacknowledged, [received, lost, duplicates, reordered]) in table {
            let expected = Tally {
                received,
                lost,
                duplicates,
                reordered,
                damaged: 0,
            };
            assert_eq!(tally(came, unacknowledged), expected, "{came:?}");
        }
    }

    #[test]
    fn each_publisher_has_an_order_of_its_own() {
        let mut ledger = Ledger::new(1, 2, SIZE, 2);
        for (publisher, sequence) in [(1, 0), (0, 0), (1, 1), (0, 1)] {
            assert_eq!(
                ledger.enter(&payload(publisher, sequence), SIZE as u64),
                Some(9)
            );
        }
        let sent = Sent {
            count: 2,
            ..Sent::default()
        };
        assert!(ledger.settle([&sent, &sent]).is_clean());
    }

    #[test]
    fn what_was_not_sent_here_is_damage() {
        let mut ledger = Ledger::new(1, 2, SIZE, 1);
        ledger.enter(b"something else", SIZE as u64);
        ledger.enter(&payload(0, 0), SIZE as u64 - 1);
        ledger.enter(&payload(1, 0), SIZE as u64);
        Ledger::enter(&mut ledger, &payload(0, 0), SIZE as u64);
        let tally = ledger.settle([&Sent::default()]);
        assert_eq!((tally.damaged, tally.received), (3, 1));
        assert!(!tally.is_clean());
    }
}

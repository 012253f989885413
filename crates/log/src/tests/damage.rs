//! Bits rot and files are cut, anywhere.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;

use hookbot_protocol::{Filter, Offset};

use super::{ALL, contents, effort, filter, open, publication, read, runtime, tiny};
use crate::disk::{self, Disk};
use crate::disk_log::load;
use crate::fault::FaultDisk;
use crate::segment::INDEX;
use crate::store::Store;
use crate::{Log, OpenError, Options, ReadError};

type Files = BTreeMap<String, Vec<u8>>;
type Bodies = BTreeMap<u64, Vec<u8>>;

/// A log of a few segments in each lane, its last batch in the safe one.
async fn small_log() -> (Files, Bodies) {
    let disk = FaultDisk::new(0);
    let log = open(&disk, options()).unwrap();
    let mut bodies = Bodies::new();
    for number in 0..LAST {
        // The end is in one lane, so that nothing in the other one proves that it was there.
        let topic = match number {
            1..=6 => "/unsafe/a",
            _ => "a/b",
        };
        let body =
            format!("{number} {}", "x".repeat((number * 2 * effort()) as usize)).into_bytes();
        let appended = log
            .append(publication(topic, body.clone()), None)
            .await
            .unwrap();
        bodies.insert(appended.cursor.offset.0, body);
    }
    drop(log);
    (disk.files(), bodies)
}

fn options() -> Options {
    Options {
        segment_bytes: Some(550),
        ..tiny()
    }
}

/// What opening and reading a log gives that has these files.
enum Outcome {
    Refused,
    Read { bodies: Bodies, broken: Vec<Offset> },
}

fn read_all(files: Files) -> Outcome {
    let disk = FaultDisk::with_files(0, files);
    match load(Arc::new(disk), options()) {
        Err(OpenError::Damaged(_) | OpenError::Newer { .. }) => Outcome::Refused,
        Err(error) => panic!("another error: {error}"),
        Ok((store, _)) => {
            let (mut bodies, mut broken) = (Bodies::new(), Vec::new());
            for root in ["/", "/unsafe/"] {
                read_over_damage(&store, &filter(root), &mut bodies, &mut broken);
            }
            Outcome::Read { bodies, broken }
        }
    }
}

fn read_over_damage(store: &Store, root: &Filter, bodies: &mut Bodies, broken: &mut Vec<Offset>) {
    let next = store.bounds().next;
    let mut from = Offset(1);
    while from < next {
        match store.read_page(root, from, next, ALL) {
            Ok(page) => {
                from = page.next;
                for message in page.messages {
                    bodies.insert(message.offset.0, message.payload().to_vec());
                }
            }
            Err(ReadError::Broken { at, .. }) => {
                broken.push(at);
                from = at.next();
            }
            Err(ReadError::Trimmed { first }) => panic!("nothing before {first} was trimmed"),
        }
    }
}

/// Whatever was done to the files, what can be read is right, and what can't is told. Only the
/// very last batch may be missing: nothing in the log proves that it was there.
fn check(outcome: &Outcome, all: &Bodies, lossy: u64, what: &str) {
    let Outcome::Read { bodies, broken } = outcome else {
        return;
    };
    for (offset, body) in bodies {
        assert_eq!(all.get(offset), Some(body), "{what}: offset {offset}");
    }
    for offset in all.keys().filter(|offset| !bodies.contains_key(offset)) {
        let is_told = broken.contains(&Offset(*offset));
        assert!(
            is_told || *offset > LAST - lossy,
            "{what}: offset {offset} of {broken:?}"
        );
    }
}

#[test]
fn no_flipped_bit_gives_a_wrong_message_or_hides_one() {
    runtime().block_on(async {
        let (files, all) = small_log().await;
        let (mut tried, mut refused) = (0, 0);
        for (name, bytes) in &files {
            for bit in 0..bytes.len() * 8 {
                let mut files = files.clone();
                files.get_mut(name).unwrap()[bit / 8] ^= 1 << (bit % 8);
                let outcome = read_all(files);
                check(&outcome, &all, 1, &format!("{name}, bit {bit}"));
                if name.ends_with(".idx") {
                    let Outcome::Read { bodies, .. } = &outcome else {
                        panic!("{name}, bit {bit}: a sidecar can be made again");
                    };
                    assert_eq!(bodies, &all, "{name}, bit {bit}");
                }
                tried += 1;
                refused += u32::from(matches!(outcome, Outcome::Refused));
            }
        }
        println!("{tried} bits, {refused} refused");
        assert!(tried > 10_000 && refused > 1_000);
    });
}

#[test]
fn a_file_cut_anywhere_gives_a_prefix_or_is_refused() {
    runtime().block_on(async {
        let (files, all) = small_log().await;
        let mut tried = 0;
        for (name, bytes) in &files {
            // Sidecars that are cut are made again; the meta file alone is never half there.
            let is_tip =
                name.ends_with(".log") && !files.contains_key(&name.replace(".log", ".idx"));
            for length in 0..bytes.len() {
                let mut cut = files.clone();
                cut.get_mut(name).unwrap().truncate(length);
                if name == "meta" {
                    assert!(open(&FaultDisk::with_files(0, cut), options()).is_err());
                    continue;
                }
                let outcome = read_all(cut);
                // Of the last segments, what is cut at a record's end was perhaps never there.
                let lossy = if is_tip { LAST } else { 1 };
                check(&outcome, &all, lossy, &format!("{name}, {length} bytes"));
                if let (true, Outcome::Read { bodies, broken }) = (is_tip, outcome) {
                    assert!(broken.is_empty());
                    assert!(all.iter().zip(&bodies).all(|(own, read)| own == read));
                }
                tried += 1;
            }
        }
        println!("{tried} lengths");
    });
}

#[test]
fn repair_keeps_everything_that_is_whole() {
    runtime().block_on(async {
        let (files, all) = small_log().await;
        let mut tried = 0;
        for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".log")) {
            for at in 0..bytes.len() {
                let mut files = files.clone();
                files.get_mut(name).unwrap()[at] ^= 0x10;
                let disk = FaultDisk::with_files(0, files);
                let what = format!("{name}, byte {at}");
                let before = open(&disk, options()).map(|log| log.epoch()).ok();
                let repaired = Options {
                    repair: true,
                    ..options()
                };
                let log = open(&disk, repaired).unwrap_or_else(|error| panic!("{what}: {error}"));
                let (bodies, _) = contents(&log).await.unwrap();
                let lost = all
                    .iter()
                    .filter(|(offset, _)| !bodies.contains_key(offset));
                assert!(lost.count() <= 1, "{what}");
                assert!(
                    bodies
                        .iter()
                        .all(|(offset, body)| all.get(offset) == Some(body))
                );
                let is_new = before != Some(log.epoch());
                let is_tip_cut = bodies.len() == all.len() || bodies.keys().all(|o| *o < LAST);
                assert!(is_new || is_tip_cut, "{what}: {is_new}");
                let next = log.append(publication("a", "next"), None).await.unwrap();
                assert!(next.cursor.offset.0 > LAST || !is_new, "{what}");
                drop(log);
                let again = open(&disk, options());
                let again = again.unwrap_or_else(|error| panic!("{what}, again: {error}"));
                assert_eq!(again.epoch(), next.cursor.epoch);
                let (bodies_again, _) = contents(&again).await.unwrap();
                assert_eq!(bodies_again.len(), bodies.len() + 1, "{what}");
                tried += 1;
            }
        }
        println!("{tried} bytes");
    });
}

#[test]
fn a_missing_segment_is_refused_and_can_be_given_up() {
    runtime().block_on(async {
        let (files, all) = small_log().await;
        let is_log = |name: &&String| name.ends_with(".log");
        let names: Vec<_> = files.keys().filter(is_log).collect();
        for name in names {
            let mut left = files.clone();
            left.remove(name);
            let is_first = name.ends_with("-00000001.log");
            let is_last = !files.contains_key(&name.replace(".log", ".idx"));
            let disk = FaultDisk::with_files(0, left);
            // Without its first segment a lane looks as if it had been trimmed; of the last one
            // only the other lane may know.
            assert!(
                is_first || is_last || open(&disk, options()).is_err(),
                "{name}"
            );
            let repaired = Options {
                repair: true,
                ..options()
            };
            let log = open(&disk, repaired).unwrap();
            let (bodies, _) = contents(&log).await.unwrap();
            assert!(
                bodies
                    .iter()
                    .all(|(offset, body)| all.get(offset) == Some(body))
            );
            assert!(
                bodies.len() + 6 >= all.len(),
                "{name}: {} of {}",
                bodies.len(),
                all.len()
            );
        }
    });
}

const LAST: u64 = 14;

#[test]
fn a_segment_that_is_damaged_and_has_lost_its_index_hides_nothing() {
    runtime().block_on(async {
        let (files, bodies) = small_log().await;
        let disk = FaultDisk::with_files(0, files);
        let log = open(&disk, options()).unwrap();
        disk.remove_ending(INDEX);
        let (all, _) = contents(&log).await.unwrap();
        assert_eq!(all, bodies, "the index is made again");

        disk.remove_ending(INDEX);
        let first = disk.open("safe-00000001.log").unwrap();
        let end = first.length().unwrap();
        disk::write_all(&*first, &mut [IoSlice::new(b"?")], end - 1).unwrap();
        for text in ["/", "a/b"] {
            let read = read(&log, &filter(text)).await;
            assert!(matches!(read, Err(ReadError::Broken { .. })), "{read:?}");
        }
    });
}

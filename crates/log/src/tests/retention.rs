//! What is kept, and for how long.

use std::sync::Arc;
use std::time::Duration;

use hookbot_protocol::Offset;

use super::{ALL, append, filter, open, read, runtime, tiny};
use crate::disk_log::load;
use crate::fault::{Fault, FaultDisk};
use crate::queue::Queue;
use crate::retention::Keeper;
use crate::{Log, Options, ReadError, Retention};

/// Waits until the keeper has caught up, or gives up.
async fn eventually(holds: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it never holds");
}

#[test]
fn disk_use_is_bounded_and_strangers_push_out_nobody_else() {
    runtime().block_on(async {
        let budget = 40_000;
        let options = Options {
            retain: Retention {
                bytes: budget,
                ..Retention::default()
            },
            ..tiny()
        };
        let disk = FaultDisk::new(1);
        let log = open(&disk, options).unwrap();
        let first = append(&log, "a", "precious").await;
        for number in 0..400 {
            append(&log, "/unsafe/a", format!("{number:0500}")).await;
        }
        let share = budget / 4;
        eventually(|| log.stats().r#unsafe.bytes <= share + 2_500).await;
        let (messages, _) = read(&log, &filter("/")).await.unwrap();
        assert_eq!(messages[0].offset.0, first);
        let (messages, oldest) = read(&log, &filter("/unsafe/")).await.unwrap();
        assert!(oldest > Offset(300) && messages.len() > 5);
        assert_eq!(messages.last().unwrap().payload(), &format!("{:0500}", 399));
        eventually(|| {
            let files = disk.files();
            files.values().map(|bytes| bytes.len() as u64).sum::<u64>() < budget
        })
        .await;
    });
}

#[test]
fn so_many_messages_are_kept_and_no_more() {
    runtime().block_on(async {
        let options = Options {
            retain: Retention {
                messages: 20,
                ..Retention::default()
            },
            unsafe_share: 0.5,
            ..tiny()
        };
        let log = open(&FaultDisk::new(1), options).unwrap();
        for _ in 0..100 {
            append(&log, "a", "x").await;
        }
        // A segment holds about a dozen.
        eventually(|| (10..40).contains(&log.stats().safe.messages)).await;
    });
}

#[test]
fn a_clock_that_jumps_ahead_does_not_wipe_the_log() {
    runtime().block_on(async {
        let disk = FaultDisk::new(1);
        let log = open(&disk, tiny()).unwrap();
        for _ in 0..60 {
            append(&log, "a", "x").await;
        }
        drop(log);
        let (store, _) = load(Arc::new(disk), tiny()).unwrap();
        let before = store.lanes[0].segments().len();
        let keeper = Keeper {
            queue: Arc::new(Queue::new(0, 0)),
            dropped: Arc::default(),
            store: store.clone(),
        };
        keeper.drop_aged(0);
        assert_eq!(store.lanes[0].segments().len(), before);
        keeper.drop_aged(u64::MAX);
        assert_eq!(store.lanes[0].segments().len(), before - 1);
        for _ in 0..100 {
            keeper.drop_aged(u64::MAX);
        }
        assert_eq!(
            store.lanes[0].segments().len(),
            1,
            "the one that grows stays"
        );
    });
}

#[test]
fn who_reads_while_messages_are_trimmed_gets_them_or_is_told() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let log = Arc::new(open(&FaultDisk::new(1), tiny()).unwrap());
        let reader = tokio::spawn({
            let log = log.clone();
            async move {
                let (mut from, mut told) = (Offset(1), 0);
                while from <= Offset(1_500) {
                    match log.read(filter("a"), from, ALL).await {
                        Ok(page) => {
                            let offsets = page.messages.iter().map(|message| message.offset);
                            assert!(offsets.eq((from.0..page.next.0).map(Offset)));
                            from = page.next;
                        }
                        Err(ReadError::Trimmed { first }) => {
                            assert!(first > from);
                            told += 1;
                            from = first;
                        }
                        Err(error) => panic!("{error}"),
                    }
                    tokio::task::yield_now().await;
                }
                told
            }
        });
        for number in 1..=1_500u64 {
            append(&log, "a", "x").await;
            if number % 10 == 0 {
                log.trim(Offset(number.saturating_sub(15)));
            }
        }
        reader.await.unwrap();
        assert!(log.bounds().first > Offset(1_000));
    });
}

#[test]
fn a_fault_while_segments_are_removed_leaves_no_hole() {
    runtime().block_on(async {
        for seed in 0..200 {
            let disk = FaultDisk::new(seed);
            let log = open(&disk, tiny()).unwrap();
            for _ in 0..100 {
                append(&log, "a", "x".repeat(100)).await;
            }
            let fault = if seed % 2 == 0 {
                Fault::Crash
            } else {
                Fault::Io
            };
            disk.plan(1 + seed / 2 % 20, fault);
            log.trim(Offset(90));
            drop(log);
            disk.restart();
            let log = open(&disk, tiny()).unwrap_or_else(|error| panic!("{seed}: {error}"));
            let (messages, first) = read(&log, &filter("a")).await.unwrap();
            assert!(first <= Offset(91) && messages.last().unwrap().offset == Offset(100));
        }
    });
}

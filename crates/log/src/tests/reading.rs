//! Finding things: by offset, by topic, by time, by delivery.

use std::sync::Arc;
use std::time::Duration;

use hookbot_protocol::{Offset, Publication};
use tokio::task::JoinSet;

use super::{ALL, append, filter, open, publication, read, runtime, tiny};
use crate::fault::FaultDisk;
use crate::{Log, Options};

#[test]
fn the_tail_has_both_lanes_in_order_however_far_it_is_behind() {
    runtime().block_on(async {
        for tail_bytes in [0, 5_000, 1 << 20] {
            let options = Options {
                tail_bytes,
                ..tiny()
            };
            let log = open(&FaultDisk::new(1), options).unwrap();
            append(&log, "a", "before").await;
            let mut tail = log.tail();
            for number in 0..600 {
                let topic = if number % 3 == 0 { "/unsafe/a" } else { "a" };
                append(&log, topic, number.to_string()).await;
            }
            // What it has yet to hand out is not trimmed.
            log.trim(Offset(500));
            let mut bodies = Vec::new();
            while bodies.len() < 600 {
                let messages = tail.next().await;
                bodies.extend(messages.iter().map(|message| message.payload().clone()));
            }
            assert!(
                bodies.iter().eq((0..600)
                    .map(|n: u32| n.to_string())
                    .collect::<Vec<_>>()
                    .iter())
            );
        }
    });
}

#[test]
fn a_delivery_is_known_in_its_own_batch_in_closed_segments_and_after_a_restart() {
    runtime().block_on(async {
        let disk = FaultDisk::new(1);
        let mut log = Arc::new(open(&disk, tiny()).unwrap());
        let delivery = |id: &str, body: &str| Publication {
            delivery_id: Some(id.into()),
            ..publication("a", body)
        };
        let hour = Some(Duration::from_secs(3_600));
        let mut appends = JoinSet::new();
        for _ in 0..20 {
            let (log, delivery) = (log.clone(), delivery("1", "x"));
            appends.spawn(async move { log.append(delivery, hour).await.unwrap() });
        }
        let appended = appends.join_all().await;
        assert!(
            appended
                .iter()
                .all(|appended| appended.cursor.offset == Offset(1))
        );
        assert_eq!(
            appended
                .iter()
                .filter(|appended| !appended.is_duplicate)
                .count(),
            1
        );
        for _ in 0..100 {
            append(&log, "a", "other").await;
        }
        for _ in 0..2 {
            let again = log.append(delivery("1", "x"), hour).await.unwrap();
            assert_eq!((again.cursor.offset, again.is_duplicate), (Offset(1), true));
            drop(Arc::into_inner(log));
            log = Arc::new(open(&disk, tiny()).unwrap());
        }
        for (delivery, window) in [
            (delivery("2", "x"), hour),
            (delivery("1", "y"), hour),
            (delivery("1", "x"), None),
            (publication("a", "x"), hour),
        ] {
            assert!(!log.append(delivery, window).await.unwrap().is_duplicate);
        }
        let nothing = Some(Duration::ZERO);
        assert!(
            !log.append(delivery("2", "x"), nothing)
                .await
                .unwrap()
                .is_duplicate
        );
    });
}

#[test]
fn a_sparse_topic_is_found_without_reading_what_is_in_between() {
    runtime().block_on(async {
        let disk = FaultDisk::new(1);
        let log = open(&disk, tiny()).unwrap();
        append(&log, "rare", "1").await;
        for number in 0..2_000 {
            append(&log, &format!("common/{}", number % 7), "x").await;
        }
        append(&log, "rare", "2").await;
        let page = log.read(filter("rare"), Offset(1), ALL).await.unwrap();
        assert_eq!(page.messages.len(), 2);
        let page = log.read(filter("nobody/"), Offset(1), ALL).await.unwrap();
        assert_eq!((page.messages.len(), page.next), (0, log.bounds().next));
    });
}

#[test]
fn a_time_leads_to_the_first_message_that_is_not_older() {
    runtime().block_on(async {
        let log = open(&FaultDisk::new(1), tiny()).unwrap();
        for number in 0..40 {
            append(
                &log,
                if number % 2 == 0 { "a" } else { "/unsafe/a" },
                vec![b'x'; 200],
            )
            .await;
        }
        let (messages, _) = read(&log, &filter("/")).await.unwrap();
        let one = &messages[7];
        let found = log.seek(one.time).await.unwrap();
        assert!(found <= one.offset && found.0 + 1 >= messages[6].offset.0);
        let later = one.time + Duration::from_secs(60);
        assert_eq!(log.seek(later).await, Ok(log.bounds().next));
        assert_eq!(log.seek(std::time::UNIX_EPOCH).await, Ok(Offset(1)));
    });
}

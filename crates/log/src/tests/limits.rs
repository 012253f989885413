//! Sizes at both ends.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{append, contents, filter, open, publication, read, runtime, tiny};
use crate::fault::FaultDisk;
use crate::{AppendError, Log, Options, Retention};

#[test]
fn any_size_is_kept_and_a_record_may_fill_segments_of_its_own() {
    runtime().block_on(async {
        for segment_bytes in [1, 1_000, 1 << 20] {
            let options = Options {
                segment_bytes: Some(segment_bytes),
                ..tiny()
            };
            let disk = FaultDisk::new(1);
            let log = open(&disk, options.clone()).unwrap();
            let sizes = [0, 1, 25 << 20, 0, 70_000];
            for size in sizes {
                append(&log, "a", vec![b'x'; size]).await;
            }
            drop(log);
            let log = open(&disk, options).unwrap();
            let (messages, _) = read(&log, &filter("a")).await.unwrap();
            assert!(
                messages
                    .iter()
                    .map(|message| message.payload().len())
                    .eq(sizes)
            );
            if segment_bytes == 1 {
                assert_eq!(log.stats().safe.segments, sizes.len());
            }
        }
    });
}

#[test]
fn a_message_larger_than_its_lane_is_refused() {
    runtime().block_on(async {
        let options = Options {
            retain: Retention {
                bytes: 10_000,
                ..Retention::default()
            },
            ..tiny()
        };
        let log = open(&FaultDisk::new(1), options).unwrap();
        let body = vec![0; 5_000];
        append(&log, "a", body.clone()).await;
        let error = log.append(publication("/unsafe/a", body), None).await;
        assert_eq!(error, Err(AppendError::TooLarge { capacity: 2_500 }));
    });
}

#[test]
fn what_does_not_fit_the_queue_is_refused_at_once() {
    runtime().block_on(async {
        let options = Options {
            queue_bytes: 1_000,
            ..tiny()
        };
        let log = Arc::new(open(&FaultDisk::new(1), options).unwrap());
        let mut appends = JoinSet::new();
        for _ in 0..2_000 {
            let log = log.clone();
            appends.spawn(async move { log.append(publication("a", vec![0; 400]), None).await });
        }
        let answers = appends.join_all().await;
        let kept = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!(
            answers
                .iter()
                .all(|answer| matches!(answer, Ok(_) | Err(AppendError::Full)))
        );
        assert!(kept > 0 && kept < answers.len());
        assert_eq!(contents(&log).await.unwrap().0.len(), kept);
    });
}

//! The disk fails, fills up or writes less than it was asked to, at each call in turn.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::{contents, open, publication, runtime, tiny};
use crate::fault::{Fault, FaultDisk};
use crate::{AppendError, Log};

/// Appends until there is nothing left to fail. Says whether the fault was reached.
async fn live_through(fault: Fault, call: u64) -> bool {
    let disk = FaultDisk::new(call);
    disk.plan(call, fault);
    let Ok(log) = open(&disk, tiny()) else {
        // Nothing was acknowledged; the next start works.
        disk.restart();
        open(&disk, tiny()).expect("nothing stands in the way");
        return true;
    };
    let log = Arc::new(log);
    let mut acknowledged = BTreeMap::new();
    let mut refused = Vec::new();
    for round in 0..8u8 {
        // Batches of both lanes, mostly.
        let mut appends = JoinSet::new();
        for topic in ["a", "/unsafe/a", "a"] {
            let body = format!("{round} {} {}", appends.len(), "x".repeat(250)).into_bytes();
            let log = log.clone();
            appends.spawn(async move {
                let appended = log.append(publication(topic, body.clone()), None).await;
                (body, appended)
            });
        }
        for (body, appended) in appends.join_all().await {
            match appended {
                Ok(appended) => {
                    let offset = appended.cursor.offset.0;
                    assert_eq!(acknowledged.insert(offset, body), None);
                }
                Err(error) => refused.push((error, body)),
            }
        }
        // What was refused must not come back, even if it was the last thing that happened.
        if fault == Fault::Full && !refused.is_empty() && call.is_multiple_of(2) {
            break;
        }
        disk.free();
    }
    let is_failed = |(error, _): &&(AppendError, Vec<u8>)| *error == AppendError::Failed;
    let failed = refused.iter().filter(is_failed).count();
    match fault {
        Fault::Short | Fault::Interrupted => assert_eq!(refused.len(), 0, "{fault:?} at {call}"),
        Fault::Full | Fault::StaysFull | Fault::Descriptors => {
            assert!(failed == 0 && refused.len() <= 3, "{fault:?} at {call}");
        }
        // Once failed, for ever failed.
        _ => {
            assert_eq!(failed, refused.len(), "{fault:?} at {call}");
            assert_eq!(log.is_writable(), failed == 0, "{fault:?} at {call}");
            assert_eq!(acknowledged.len() + failed, 24);
        }
    }
    let reached = !disk.has_plan();
    let (all, _) = contents(&log).await.unwrap();
    assert_eq!(all, acknowledged, "{fault:?} at {call}: reads go on");
    drop(Arc::into_inner(log));

    disk.restart();
    let log = open(&disk, tiny()).unwrap_or_else(|error| panic!("{fault:?} at {call}: {error}"));
    let (all, _) = contents(&log).await.unwrap();
    for (offset, body) in acknowledged {
        assert_eq!(all.get(&offset), Some(&body), "{fault:?} at {call}");
    }
    for (error, body) in refused {
        // Of a sync that failed nobody knows what it did.
        if error == AppendError::Full {
            assert!(!all.values().any(|own| *own == body), "{fault:?} at {call}");
        }
    }
    log.append(publication("a", "after"), None)
        .await
        .expect("a restart cures it");
    reached
}

#[test]
fn a_fault_at_any_call_loses_nothing_and_is_told() {
    let faults = [
        Fault::Io,
        Fault::Full,
        Fault::StaysFull,
        Fault::Descriptors,
        Fault::Short,
        Fault::Interrupted,
    ];
    for fault in faults {
        let calls = (1..).take_while(|call| runtime().block_on(live_through(fault, *call)));
        let calls = calls.count();
        println!("{fault:?}: {calls} calls");
        assert!(calls > 20);
    }
}

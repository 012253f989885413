//! Power goes off at any moment, also while the log recovers from the last time.

use std::collections::BTreeMap;
use std::sync::Arc;

use hookbot_protocol::Offset;
use tokio::task::JoinSet;

use super::{contents, effort, open, publication, runtime, tiny};
use crate::fault::{Fault, FaultDisk};
use crate::{Log, Options, Retention};

/// Runs a log through several crashes. Fails with what was lost.
async fn survive(seed: u64, options: &Options) -> Result<Tried, String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let disk = FaultDisk::new(seed);
    let mut known: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut tried = Tried::default();
    let mut count = 0;
    for round in 0..ROUNDS {
        let is_last = round == ROUNDS - 1;
        if !is_last {
            let calls = if random.u8(..3) == 0 { 10 } else { 120 };
            disk.plan(random.u64(1..calls), Fault::Crash);
        }
        let log = match open(&disk, options.clone()) {
            Ok(log) => Arc::new(log),
            Err(_) if disk.is_down() => {
                tried.crashes_while_opening += 1;
                disk.restart();
                continue;
            }
            Err(error) => return Err(format!("not opened: {error}")),
        };
        let read = contents(&log).await;
        if let Err(error) = &read
            && !disk.is_down()
        {
            return Err(error.to_string());
        }
        if let Ok((all, firsts)) = read {
            for (offset, body) in &known {
                let first = firsts[usize::from(body[0] == b'u')];
                if *offset >= first.0 && all.get(offset) != Some(body) {
                    return Err(format!("offset {offset} of {}", log.bounds().next));
                }
            }
            let is_whole = all.keys().copied().eq(1..log.bounds().next.0);
            if firsts == [Offset(1); 2] && !is_whole {
                return Err("there is a hole".to_owned());
            }
            // What is served must stay.
            known.extend(all);
        }
        let mut tail = log.tail();
        for _ in 0..random.usize(..12) {
            let mut appends = JoinSet::new();
            for _ in 0..random.usize(1..8) {
                count += 1;
                let is_unsafe = random.u8(..3) == 0;
                let (topic, kind) = if is_unsafe {
                    ("/unsafe/a", "u")
                } else {
                    ("a/b", "s")
                };
                let mut body = format!("{kind}{count}.").into_bytes();
                body.resize(body.len() + [0, 20, 600, 3_000][random.usize(..4)], b'x');
                let log = log.clone();
                appends.spawn(async move {
                    let appended = log.append(publication(topic, body.clone()), None).await;
                    appended.map(|appended| (appended.cursor.offset.0, body))
                });
            }
            for appended in appends.join_all().await {
                let Ok((offset, body)) = appended else {
                    continue;
                };
                tried.acknowledged += 1;
                if known.insert(offset, body).is_some() {
                    return Err(format!("offset {offset} was used twice"));
                }
            }
        }
        // Whoever follows the tail has acted upon these.
        while let Some(messages) = now(tail.next()).await {
            for message in messages {
                let body = message.payload().to_vec();
                let known = known.insert(message.offset.0, body.clone());
                if known.is_some_and(|known| known != body) {
                    return Err(format!("offset {} was used twice", message.offset));
                }
            }
        }
        drop(tail);
        drop(Arc::into_inner(log));
        tried.crashes += 1;
        disk.restart();
    }
    Ok(tried)
}

/// What a future has now, if anything.
async fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(std::time::Duration::from_millis(1), future)
        .await
        .ok()
}

#[derive(Debug, Default)]
struct Tried {
    crashes: u64,
    crashes_while_opening: u64,
    acknowledged: u64,
}

const ROUNDS: usize = 6;

fn survive_all(seeds: std::ops::Range<u64>, options: &Options) {
    let mut total = Tried::default();
    for seed in seeds {
        let tried = runtime().block_on(survive(seed, options));
        let tried = tried.unwrap_or_else(|lost| panic!("seed {seed}: {lost}"));
        total.crashes += tried.crashes;
        total.crashes_while_opening += tried.crashes_while_opening;
        total.acknowledged += tried.acknowledged;
    }
    println!("{total:?}");
    assert!(total.acknowledged > 0 && total.crashes_while_opening > 0);
}

#[test]
fn what_was_acknowledged_survives_every_crash() {
    survive_all(0..150 * effort(), &tiny());
}

#[test]
fn what_was_acknowledged_survives_while_old_messages_are_dropped() {
    let options = Options {
        retain: Retention {
            bytes: 30_000,
            ..Retention::default()
        },
        ..tiny()
    };
    survive_all(0..100 * effort(), &options);
}

#[test]
fn without_syncing_the_same_test_notices_a_loss() {
    let options = Options {
        sync: false,
        ..tiny()
    };
    let lost = (0..50).filter(|seed| runtime().block_on(survive(*seed, &options)).is_err());
    assert!(lost.count() > 0);
}

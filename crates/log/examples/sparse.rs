//! How long it takes to resume a topic that has ten messages among millions of others:
//! `cargo run --release -p hookbot-log --example sparse [FOLDER [MESSAGES]]`.
//!
//! The second half, read from a cold cache, needs root, to drop what the system has cached.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hookbot_log::{DiskLog, Limit, Log, Options};
use hookbot_protocol::{Filter, Offset, Publication, Topic};
use tokio::task::JoinSet;

const TOPICS: u64 = 100_000;
const RARE: u64 = 10;
const PUBLISHERS: u64 = 1_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("hookbot-sparse-{}", std::process::id()));
    let messages = arguments
        .next()
        .and_then(|text| text.to_str()?.parse().ok());
    let messages = messages.unwrap_or(10_000_000_u64);
    let log = Arc::new(DiskLog::open(&folder, Options::default())?);
    fill(&log, messages).await?;
    println!(
        "{messages} messages on {TOPICS} topics, {} MiB",
        log.stats().safe.bytes >> 20
    );
    for _ in 0..3 {
        println!("warm: {:?}", resume(&log).await?);
    }
    drop(log);
    let log = DiskLog::open(&folder, Options::default())?;
    match std::fs::write("/proc/sys/vm/drop_caches", "3") {
        Ok(()) => println!("cold: {:?}", resume(&log).await?),
        Err(error) => println!("not measured cold: {error}"),
    }
    drop(log);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

/// Spreads the rare topic's messages evenly among the others.
async fn fill(log: &Arc<DiskLog>, messages: u64) -> Result<(), Box<dyn Error>> {
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let log = log.clone();
        publishers.spawn(async move {
            for number in (publisher..messages).step_by(PUBLISHERS as usize) {
                let name = match number % (messages / RARE) {
                    0 => "rare".to_owned(),
                    _ => format!(
                        "topic/{}",
                        number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % TOPICS
                    ),
                };
                let topic = Topic::parse(&name).expect("a topic");
                let kept = log
                    .append(Publication::new(topic, vec![b'x'; 100]), None)
                    .await;
                kept.expect("there is room");
            }
        });
    }
    publishers.join_all().await;
    Ok(())
}

async fn resume(log: &DiskLog) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    let limit = Limit {
        messages: 64,
        bytes: 1 << 20,
    };
    let (mut count, mut from) = (0, Offset(1));
    while from < log.bounds().next {
        let page = log.read(Filter::parse("rare")?, from, limit).await?;
        count += page.messages.len() as u64;
        from = page.next;
    }
    assert_eq!(count, RARE, "each of them, and no other");
    Ok(start.elapsed())
}

//! How many messages a second become durable here, and how long a start takes:
//! `cargo run --release -p hookbot-log --example appends [FOLDER]`.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hookbot_log::{DiskLog, Limit, Log, Options};
use hookbot_protocol::{Filter, Offset, Publication, Topic};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("hookbot-appends-{}", std::process::id()));
    for publishers in [1, 16, 100] {
        let log = Arc::new(DiskLog::open(&folder, Options::default())?);
        measure(&log, publishers).await?;
    }

    let start = Instant::now();
    let log = DiskLog::open(&folder, Options::default())?;
    let stats = log.stats();
    println!(
        "opened {} messages, {} MiB, in {:?}",
        stats.safe.messages,
        stats.safe.bytes >> 20,
        start.elapsed()
    );
    replay(&log, "/").await?;
    replay(&log, "topic/7").await?;
    drop(log);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

async fn measure(log: &Arc<DiskLog>, publishers: u64) -> Result<(), Box<dyn Error>> {
    let end = Instant::now() + Duration::from_secs(5);
    let mut all = JoinSet::new();
    for publisher in 0..publishers {
        let log = log.clone();
        let topic = Topic::parse(&format!("topic/{publisher}"))?;
        let publication = Publication::new(topic, vec![b'x'; 1_024]);
        all.spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < end {
                let start = Instant::now();
                log.append(publication.clone(), None)
                    .await
                    .expect("it is kept");
                times.push(start.elapsed());
            }
            times
        });
    }
    let mut times: Vec<Duration> = all.join_all().await.into_iter().flatten().collect();
    times.sort_unstable();
    let commits = log.stats().commits;
    println!(
        "{publishers} publishers: {} durable messages/s, batches of {:.1}, median {:?}, p99 {:?}",
        times.len() / 5,
        commits.messages as f64 / commits.batches as f64,
        times[times.len() / 2],
        times[times.len() * 99 / 100],
    );
    Ok(())
}

async fn replay(log: &DiskLog, filter: &str) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let limit = Limit {
        messages: 1_000,
        bytes: 4 << 20,
    };
    let (mut count, mut from) = (0, Offset(1));
    while from < log.bounds().next {
        let page = log.read(Filter::parse(filter)?, from, limit).await?;
        count += page.messages.len();
        from = page.next;
    }
    println!("read {count} messages of {filter} in {:?}", start.elapsed());
    Ok(())
}

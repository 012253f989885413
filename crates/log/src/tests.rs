//! Behaviours of the whole log, on a disk that tests can break.

mod crash;
mod damage;
mod faults;
mod limits;
mod model;
mod reading;
mod retention;

use std::collections::BTreeMap;
use std::sync::Arc;

use hookbot_protocol::{Filter, Message, Offset, Publication, Topic};

use crate::fault::FaultDisk;
use crate::{DiskLog, Limit, Log, OpenError, Options, ReadError, Retention};

const ALL: Limit = Limit {
    messages: usize::MAX,
    bytes: usize::MAX,
};

/// Segments of a few records, and nothing in memory.
fn tiny() -> Options {
    Options {
        retain: Retention {
            bytes: 1 << 30,
            ..Retention::default()
        },
        segment_bytes: Some(1_500),
        tail_bytes: 0,
        ..Options::default()
    }
}

fn open(disk: &FaultDisk, options: Options) -> Result<DiskLog, OpenError> {
    DiskLog::open_on(Arc::new(disk.clone()), options, None)
}

fn publication(topic: &str, body: impl Into<Vec<u8>>) -> Publication {
    Publication::new(Topic::parse(topic).expect("a topic"), body.into())
}

async fn append(log: &DiskLog, topic: &str, body: impl Into<Vec<u8>>) -> u64 {
    let appended = log.append(publication(topic, body), None).await;
    appended.expect("it is kept").cursor.offset.0
}

fn filter(text: &str) -> Filter {
    Filter::parse(text).expect("a filter")
}

/// What a log has for a filter, from the first message that it still keeps on, and where that
/// is if something was trimmed. Fails at the first damage.
async fn read(log: &DiskLog, filter: &Filter) -> Result<(Vec<Arc<Message>>, Offset), ReadError> {
    let (mut messages, mut from, mut first) = (Vec::new(), Offset(1), Offset(1));
    while from < log.bounds().next {
        match log.read(filter.clone(), from, ALL).await {
            Ok(page) => {
                assert!(page.next > from, "a read moves on");
                from = page.next;
                messages.extend(page.messages);
            }
            Err(ReadError::Trimmed { first: oldest }) => {
                assert!(messages.is_empty() && oldest > from);
                (from, first) = (oldest, oldest);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((messages, first))
}

/// Everything in a log, by offset, and where each lane begins.
async fn contents(log: &DiskLog) -> Result<(BTreeMap<u64, Vec<u8>>, [Offset; 2]), ReadError> {
    let mut all = BTreeMap::new();
    let mut firsts = [Offset(1); 2];
    for (root, first) in ["/", "/unsafe/"].into_iter().zip(&mut firsts) {
        let messages;
        (messages, *first) = read(log, &filter(root)).await?;
        assert!(messages.is_sorted_by(|one, other| one.offset < other.offset));
        for message in messages {
            all.insert(message.offset.0, message.payload().to_vec());
        }
    }
    Ok((all, firsts))
}

/// How much more than usual is tried, from the environment.
fn effort() -> u64 {
    let effort = std::env::var("HOOKBOT_TEST_EFFORT");
    effort.map_or(1, |effort| {
        effort.parse().expect("HOOKBOT_TEST_EFFORT is a number")
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}

//! The process is killed while it appends, over and over.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hookbot_log::{DiskLog, Limit, Log, Options};
use hookbot_protocol::{Filter, Offset, Publication, Topic};
use tokio::task::JoinSet;

fn open(folder: &Path) -> DiskLog {
    let options = Options {
        segment_bytes: Some(20_000),
        ..Options::default()
    };
    DiskLog::open(folder, options).expect("nothing is damaged")
}

/// What the child does: appends from four tasks, and says on its output what was acknowledged.
async fn append_for_ever(folder: &Path) {
    let log = Arc::new(open(folder));
    let mut publishers = JoinSet::new();
    for publisher in 0..4 {
        let log = log.clone();
        let topic = ["a", "a/b", "/unsafe/a", "/unsafe/b"][publisher];
        let topic = Topic::parse(topic).expect("a topic");
        publishers.spawn(async move {
            for number in 0.. {
                let body = format!("{publisher}.{number}.{}", "x".repeat(number % 700));
                let publication = Publication::new(topic.clone(), body.clone());
                let appended = log.append(publication, None).await.expect("it is kept");
                println!("acknowledged {} {body}", appended.cursor.offset);
                std::io::stdout().flush().expect("the parent listens");
            }
        });
    }
    publishers.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_the_process_was_killed() {
    if let Some(folder) = std::env::var_os(CHILD) {
        return append_for_ever(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = std::collections::BTreeMap::new();
    for round in 0.. {
        if round >= ROUNDS && acknowledged.len() > 100 {
            break;
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--nocapture", "--test-threads=1"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listening = std::thread::spawn(move || {
            let lines = lines.map_while(Result::ok);
            let parsed = lines.filter_map(|line| {
                let (offset, body) = line.split_once("acknowledged ")?.1.split_once(' ')?;
                Some((offset.parse::<u64>().ok()?, body.to_owned()))
            });
            parsed.collect::<Vec<_>>()
        });
        // Some are killed before they have begun, and where these are too many they live longer.
        let life = 20 + round * 17 % 150 + round / ROUNDS * 200;
        std::thread::sleep(Duration::from_millis(life));
        child.kill().unwrap();
        child.wait().unwrap();
        for (offset, body) in listening.join().unwrap() {
            assert_eq!(acknowledged.insert(offset, body), None, "offset {offset}");
        }
    }
    let log = open(folder.path());
    let mut found = std::collections::BTreeMap::new();
    for root in ["/", "/unsafe/"] {
        let mut from = Offset(1);
        while from < log.bounds().next {
            let limit = Limit {
                messages: 1_000,
                bytes: 1 << 20,
            };
            let page = log
                .read(Filter::parse(root).unwrap(), from, limit)
                .await
                .unwrap();
            from = page.next;
            for message in page.messages {
                let body = String::from_utf8(message.payload().to_vec()).unwrap();
                found.insert(message.offset.0, body);
            }
        }
    }
    println!("{} acknowledged", acknowledged.len());
    assert!(found.keys().copied().eq(1..log.bounds().next.0), "no hole");
    for (offset, body) in acknowledged {
        // The last line of a life may be cut short.
        assert!(found[&offset].starts_with(&body), "offset {offset}");
    }
}

const CHILD: &str = "HOOKBOT_TEST_KILL";
const ROUNDS: u64 = 20;

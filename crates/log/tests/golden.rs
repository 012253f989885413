//! A log that an earlier version wrote. It must open for ever.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hookbot_log::{DiskLog, Limit, Log, Options};
use hookbot_protocol::{Filter, Format, Offset, Publication, Topic};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/1")
}

/// What is in it.
fn publications() -> Vec<Publication> {
    (0..24u8)
        .map(|number| {
            let topic = match number % 3 {
                0 => "deploys/site",
                1 => "/unsafe/github.com/org/acme",
                _ => "ü/日本",
            };
            let topic = Topic::parse(topic).expect("a topic");
            let body = vec![number; usize::from(number) * 5];
            let headers: [(&str, &[u8]); 3] = [("x-a", b"1"), ("x-a", b"\xff\0"), ("x-b", b"")];
            Publication {
                method: "POST".into(),
                query: "a=1&b=%2F".into(),
                address: "192.0.2.1:443".into(),
                headers: headers.into_iter().collect(),
                format: if number % 4 == 0 {
                    Format::Github
                } else {
                    Format::Raw
                },
                delivery_id: (number % 2 == 0).then(|| number.to_string().into()),
                attributes: [("verified_by", &b"github"[..])].into_iter().collect(),
                ..Publication::new(topic, body)
            }
        })
        .collect()
}

fn options() -> Options {
    Options {
        segment_bytes: Some(1_500),
        tail_bytes: 0,
        retain: hookbot_log::Retention {
            age: Duration::MAX,
            ..hookbot_log::Retention::default()
        },
        ..Options::default()
    }
}

#[tokio::test]
async fn version_1_opens_and_has_every_byte() {
    // Set by hand, for a new version of the format.
    if std::env::var_os("HOOKBOT_WRITE_GOLDEN").is_some() {
        write().await;
    }
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(golden()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let log = DiskLog::open(folder.path(), options()).unwrap();
    assert_eq!(
        log.epoch().0.to_string(),
        fs::read_to_string(golden().join("epoch")).unwrap()
    );
    let mut found = Vec::new();
    for root in ["/", "/unsafe/"] {
        let mut from = Offset(1);
        while from < log.bounds().next {
            let limit = Limit {
                messages: 5,
                bytes: usize::MAX,
            };
            let page = log
                .read(Filter::parse(root).unwrap(), from, limit)
                .await
                .unwrap();
            found.extend(page.messages);
            from = page.next;
        }
    }
    found.sort_by_key(|message| message.offset);
    assert!(
        found
            .iter()
            .all(|message| message.time > SystemTime::UNIX_EPOCH)
    );
    assert!(found.iter().map(|message| message.offset.0).eq(1..=24));
    assert!(
        found
            .iter()
            .map(|message| &message.publication)
            .eq(&publications())
    );

    let again = publications().swap_remove(0);
    let ever = Some(Duration::MAX);
    let again = log.append(again, ever).await.unwrap();
    assert_eq!((again.cursor.offset, again.is_duplicate), (Offset(1), true));
}

/// Writes it, once for each version of the format.
async fn write() {
    let folder = golden();
    assert!(!folder.exists(), "golden files are never changed");
    let log = DiskLog::open(&folder, options()).expect("it can be written");
    for publication in publications() {
        log.append(publication, None)
            .await
            .expect("it can be written");
    }
    fs::write(folder.join("epoch"), log.epoch().0.to_string()).expect("it can be written");
    drop(log);
    fs::remove_file(folder.join("lock")).expect("it can be written");
}

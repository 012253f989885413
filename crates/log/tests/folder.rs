//! What is in the folder, and who may open it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use hookbot_log::{AppendError, DiskLog, Limit, Log, OpenError, Options, verify};
use hookbot_protocol::{Filter, Offset, Publication, Topic};

const ALL: Limit = Limit {
    messages: usize::MAX,
    bytes: usize::MAX,
};

fn open(folder: &Path) -> Result<DiskLog, OpenError> {
    let options = Options {
        segment_bytes: Some(1_000),
        tail_bytes: 0,
        ..Options::default()
    };
    DiskLog::open(folder, options)
}

async fn append(log: &DiskLog, topic: &str, body: &str) {
    let publication = Publication::new(Topic::parse(topic).expect("a topic"), body.to_owned());
    log.append(publication, None).await.expect("it is kept");
}

async fn bodies(log: &DiskLog, filter: &str) -> Vec<String> {
    let filter = Filter::parse(filter).expect("a filter");
    let (mut bodies, mut from) = (Vec::new(), Offset(1));
    while from < log.bounds().next {
        let page = log.read(filter.clone(), from, ALL).await;
        let page = page.expect("nothing is damaged");
        let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
        bodies.extend(page.messages.iter().map(|message| text(message.payload())));
        from = page.next;
    }
    bodies
}

#[tokio::test]
async fn a_log_is_there_after_a_restart_and_only_its_owner_can_read_it() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("a/b");
    let mut expected = Vec::new();
    for round in 0..3 {
        let log = open(&folder).unwrap();
        for number in 0..30 {
            let body = format!("{round} {number} {}", "x".repeat(100));
            append(&log, "a/b", &body).await;
            append(&log, "/unsafe/a", "unsafe").await;
            expected.push(body);
        }
        assert_eq!(bodies(&log, "/").await, expected);
        assert_eq!(bodies(&log, "/unsafe/").await.len(), expected.len());
    }
    assert_eq!(
        fs::metadata(&folder).unwrap().permissions().mode() & 0o777,
        0o700
    );
    for entry in fs::read_dir(&folder).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(verify(&folder).unwrap(), []);
}

#[tokio::test]
async fn a_second_process_is_refused_by_name_until_the_first_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).unwrap();
    let error = open(folder.path()).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }));
    assert!(error.to_string().contains(folder.path().to_str().unwrap()));
    assert!(verify(folder.path()).is_err());
    // A read that is still on its way does not keep it.
    let read = first.read(Filter::parse("/").unwrap(), Offset(1), ALL);
    let tail = first.tail();
    drop(first);
    let second = open(folder.path()).unwrap();
    drop((read, tail));
    append(&second, "a", "x").await;
}

#[test]
fn a_newer_format_is_refused_with_words() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let meta = folder.path().join("meta");
    let mut bytes = fs::read(&meta).unwrap();
    bytes[8] = 2;
    fs::write(&meta, bytes).unwrap();
    let error = open(folder.path()).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Newer { version: 2 }), "{error}");
    assert!(error.to_string().contains("version 2"));
}

#[tokio::test]
async fn files_that_are_not_ours_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let strangers = [
        "notes.txt",
        "safe-1.log",
        "safe-00000009.idx.bak",
        "other.tmp",
    ];
    for name in strangers {
        fs::write(folder.path().join(name), name).unwrap();
    }
    let leftovers = ["safe-00000007.idx", "unsafe-00000001.idx.tmp", "meta.tmp"];
    for name in leftovers {
        fs::write(folder.path().join(name), name).unwrap();
    }
    append(&open(folder.path()).unwrap(), "a", "x").await;
    let is_there = |name: &&str| folder.path().join(name).exists();
    assert!(strangers.iter().all(is_there));
    assert!(!leftovers.iter().any(is_there));
}

#[tokio::test]
async fn damage_is_found_told_and_given_up_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    let epoch = log.epoch();
    for number in 0..3 {
        append(&log, "a", &format!("{number} {}", "x".repeat(100))).await;
    }
    drop(log);
    let path = folder.path().join("safe-00000001.log");
    let mut bytes = fs::read(&path).unwrap();
    bytes[64 + 180] ^= 1;
    fs::write(&path, bytes).unwrap();

    let error = open(folder.path()).map(drop).unwrap_err();
    let OpenError::Damaged(located) = &error else {
        panic!("{error}");
    };
    assert_eq!(located.file, "safe-00000001.log");
    assert_eq!(
        verify(folder.path()).unwrap(),
        std::slice::from_ref(located)
    );

    let options = Options {
        repair: true,
        ..Options::default()
    };
    let log = DiskLog::open(folder.path(), options).unwrap();
    assert_ne!(log.epoch(), epoch);
    let left = bodies(&log, "a").await;
    assert!(
        left.iter().map(|body| &body[..1]).eq(["0", "2"]),
        "{left:?}"
    );
    drop(log);
    assert_eq!(verify(folder.path()).unwrap(), []);
}

#[tokio::test]
async fn what_is_appended_together_is_there_in_order_up_to_what_the_log_does_not_take() {
    let parent = tempfile::tempdir().unwrap();
    let mut options = Options {
        segment_bytes: Some(1_000),
        tail_bytes: 0,
        ..Options::default()
    };
    options.retain.bytes = 1 << 20;
    let log = DiskLog::open(parent.path(), options).unwrap();
    let topic = Topic::parse("a").unwrap();
    let delivery = |body: String| Publication {
        delivery_id: Some(body.as_str().into()),
        ..Publication::new(topic.clone(), body)
    };
    let week = Some(Duration::from_secs(604_800));
    let few: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    // Segments end in between, so earlier deliveries are looked for on disk, too.
    for is_duplicate in [false, true] {
        let publications = few.iter().cloned().map(delivery).collect();
        let answers = log.append_all(publications, week).await;
        assert_eq!(answers.len(), few.len());
        for (number, answer) in (1..).zip(answers) {
            let appended = answer.unwrap();
            assert_eq!(appended.is_duplicate, is_duplicate);
            assert_eq!(appended.cursor.offset, Offset(number));
        }
    }
    assert_eq!(bodies(&log, "a").await, few);

    let too_large = "x".repeat(1 << 20);
    let three = ["fits", &too_large, "comes too late"];
    let publications = three.map(|body| delivery(body.to_owned())).to_vec();
    let answers = log.append_all(publications, week).await;
    assert!(matches!(
        &answers[..],
        [Ok(_), Err(AppendError::TooLarge { .. })]
    ));
    assert_eq!(bodies(&log, "a").await.last().unwrap(), "fits");
}

//! The log against a plain list.

use std::collections::BTreeSet;
use std::time::Duration;

use hookbot_protocol::{Offset, Publication};
use proptest::prelude::*;

use super::{ALL, effort, filter, open, publication, read, runtime, tiny};
use crate::fault::FaultDisk;
use crate::{Limit, Log, Options};

#[derive(Debug, Clone)]
enum Step {
    Append {
        topic: usize,
        size: usize,
    },
    /// Hands in a delivery, perhaps again.
    Deliver {
        topic: usize,
        id: u8,
    },
    /// A part of what there is, in 16ths.
    Trim(u64),
    Reopen,
    Crash,
    /// The sidecars are lost, or are another segment's.
    LoseSidecars,
    SwapSidecars,
    Read {
        filter: usize,
        from: u64,
        messages: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..TOPICS.len(), 0usize..900).prop_map(|(topic, size)| Step::Append { topic, size }),
        4 => (0..TOPICS.len(), 0u8..6).prop_map(|(topic, id)| Step::Deliver { topic, id }),
        1 => (0u64..16).prop_map(Step::Trim),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        1 => Just(Step::LoseSidecars),
        1 => Just(Step::SwapSidecars),
        6 => (0..FILTERS.len(), 0u64..17, 1usize..9)
            .prop_map(|(filter, from, messages)| Step::Read { filter, from, messages }),
    ]
}

const TOPICS: [&str; 7] = ["a", "a/b", "a/c", "ab", "z/y/x", "/unsafe/a", "/unsafe/a/b"];
const FILTERS: [&str; 9] = [
    "/",
    "a",
    "a/",
    "z/",
    "z/y/x",
    "nobody",
    "/unsafe/",
    "/unsafe/a",
    "/unsafe/a/",
];

async fn run(steps: Vec<Step>, tail_bytes: usize) {
    let options = Options {
        tail_bytes,
        ..tiny()
    };
    let disk = FaultDisk::new(7);
    let mut log = open(&disk, options.clone()).unwrap();
    let epoch = log.epoch();
    let mut model: Vec<Publication> = Vec::new();
    let mut delivered = std::collections::HashMap::new();
    let mut trimmed = 1;
    for step in steps {
        match step {
            Step::Append { topic, size } => {
                let mut body = format!("{} ", model.len()).into_bytes();
                body.resize(body.len() + size, b'x');
                let publication = publication(TOPICS[topic], body);
                let appended = log.append(publication.clone(), None).await.unwrap();
                model.push(publication);
                assert_eq!(appended.cursor.offset.0, model.len() as u64);
                assert!(!appended.is_duplicate);
            }
            Step::Deliver { topic, id } => {
                let publication = Publication {
                    delivery_id: Some(id.to_string().into()),
                    ..publication(TOPICS[topic], "delivered")
                };
                let hour = Some(Duration::from_secs(3_600));
                let appended = log.append(publication.clone(), hour).await.unwrap();
                let offset = appended.cursor.offset.0;
                if appended.is_duplicate {
                    assert_eq!(delivered.get(&(topic, id)), Some(&offset));
                } else {
                    let before = delivered.insert((topic, id), offset);
                    // What has been trimmed is forgotten.
                    assert!(before.is_none_or(|before| before < trimmed));
                    model.push(publication);
                    assert_eq!(offset, model.len() as u64);
                }
            }
            Step::Trim(part) => {
                let upto = 1 + model.len() as u64 * part / 16;
                log.trim(Offset(upto));
                trimmed = trimmed.max(upto);
            }
            Step::Reopen | Step::Crash | Step::LoseSidecars | Step::SwapSidecars => {
                drop(log);
                match step {
                    Step::Crash => disk.restart(),
                    Step::LoseSidecars => disk.remove_ending(".idx"),
                    Step::SwapSidecars => disk.rotate_ending(".idx"),
                    _ => {}
                }
                log = open(&disk, options.clone()).unwrap();
                assert_eq!(log.epoch(), epoch);
            }
            Step::Read {
                filter: wanted,
                from,
                messages,
            } => {
                let wanted = filter(FILTERS[wanted]);
                let from = Offset(1 + model.len() as u64 * from / 16);
                let limit = Limit { messages, ..ALL };
                let Ok(page) = log.read(wanted.clone(), from, limit).await else {
                    assert!(from.0 < trimmed);
                    continue;
                };
                assert!(page.messages.len() <= messages);
                let expected = (from.0..page.next.0)
                    .filter(|at| wanted.matches(&model[*at as usize - 1].topic));
                let found = page.messages.iter().map(|message| message.offset.0);
                assert!(found.eq(expected));
                for message in &page.messages {
                    assert_eq!(message.publication, model[message.offset.0 as usize - 1]);
                }
            }
        }
        assert_eq!(log.bounds().next.0, model.len() as u64 + 1);
    }
    for text in FILTERS {
        let wanted = filter(text);
        let (found, first) = read(&log, &wanted).await.unwrap();
        let found: BTreeSet<u64> = found.iter().map(|message| message.offset.0).collect();
        let numbered = model.iter().zip(1..);
        let expected: BTreeSet<u64> = numbered
            .filter(|(publication, _)| wanted.matches(&publication.topic))
            // Nothing was trimmed that was not asked for, and all of what is kept is there.
            .filter(|(_, offset)| *offset >= first.0.min(trimmed))
            .map(|(_, offset)| offset)
            .collect();
        assert_eq!(found, expected, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200 * effort() as u32))]

    #[test]
    fn whatever_the_steps_the_log_is_as_a_list_would_be(
        steps in prop::collection::vec(step(), 1..80),
        tail_bytes in prop::sample::select(vec![0, 3_000, 1 << 20]),
    ) {
        runtime().block_on(run(steps, tail_bytes));
    }
}

//! Whatever a server does wrong shows in the counts, each as what it is and as often as it was.

use crate::forgetful::{ForgetfulServer, Memory};
use crate::wrong::{Misdeed, STALL, WrongServer};
use crate::{figure, load, only};

/// A hundred messages to three subscribers.
const LINE: &str = "fanout --subscribers 3 --publishers 1 --rate 2000 --duration 50ms --size 300 \
                    --patience 1s";

const COUNTS: [&str; 7] = [
    "deliveries",
    "lost",
    "duplicates",
    "reordered",
    "damaged",
    "refused",
    "unanswered",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_misdeed_is_counted_as_what_it_is() {
    let table = [
        (Misdeed::None, [300, 0, 0, 0, 0, 0, 0], true),
        (Misdeed::Lose, [270, 30, 0, 0, 0, 0, 0], false),
        (Misdeed::Repeat, [300, 0, 30, 0, 0, 0, 0], false),
        (Misdeed::Swap, [300, 0, 0, 30, 0, 0, 0], false),
        (Misdeed::Cut, [270, 30, 0, 0, 30, 0, 0], false),
        // What was not acknowledged need not come.
        (Misdeed::Refuse, [270, 0, 0, 0, 0, 10, 0], true),
        (Misdeed::HangUp, [270, 0, 0, 0, 0, 0, 10], true),
    ];
    for (events, shape) in [(false, "nchan"), (true, "gosmee")] {
        for (misdeed, counts, clean) in table {
            let url = WrongServer::start(misdeed, events).await;
            let report = load(&format!("{LINE} --url {url} --shape {shape}")).await;
            let row = only(&report);
            let counted = COUNTS.map(|name| figure(&row, name) as u64);
            assert_eq!(counted, counts, "{misdeed:?}, {COUNTS:?}");
            assert_eq!(report.is_clean(), clean, "{misdeed:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_is_cut_off_loses_what_comes_then() {
    let url = WrongServer::start(Misdeed::CutOff, false).await;
    let report = load(&format!("{LINE} --url {url} --shape nchan")).await;
    let row = only(&report);
    assert_eq!(figure(&row, "cut_off"), 3.0);
    assert_eq!(figure(&row, "deliveries"), 9.0);
    assert_eq!(figure(&row, "lost"), 3.0 * 97.0);
    assert!(!report.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_is_charged_to_every_message_that_was_due_in_it() {
    let url = WrongServer::start(Misdeed::Stall, false).await;
    let line = "--subscribers 1 --publishers 1 --rate 100 --duration 200ms --shape nchan";
    let report = load(&format!("fanout {line} --url {url}")).await;
    let row = only(&report);
    assert_eq!(figure(&row, "acknowledged"), 20.0);
    // The last one was due after 190 ms and could not be sent before the stall was over. Measured
    // from when they were sent, all but the first would have taken no time at all.
    let least = STALL.as_micros() as f64 - 200_000.0;
    for name in ["publish_p50_us", "e2e_p50_us"] {
        assert!(figure(&row, name) > least, "{name}: {row:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_where_subscribers_resume_is_counted() {
    for memory in [
        Memory::Good,
        Memory::Skips,
        Memory::Repeats,
        Memory::Despairs,
    ] {
        let url = ForgetfulServer::start(memory).await;
        let line = "resume --subscribers 3 --publishers 1 --times 4 --rate 500 --duration 400ms";
        let report = load(&format!("{line} --patience 3s --url {url}")).await;
        let row = only(&report);
        let [lost, duplicates, reordered, damaged, gaps, resumed] = [
            "lost",
            "duplicates",
            "reordered",
            "damaged",
            "gaps",
            "resumed",
        ]
        .map(|name| figure(&row, name));
        assert_eq!(figure(&row, "deliveries") + lost, 600.0, "{memory:?}");
        assert_eq!(reordered + damaged, 0.0, "{memory:?}");
        // One that has come back when all is over has nothing to miss; one that hangs up before
        // anything has come begins anew.
        let some = 1.0..=resumed;
        assert_eq!(
            some.contains(&lost),
            memory == Memory::Skips,
            "{memory:?}: {lost} lost"
        );
        assert_eq!(
            some.contains(&duplicates),
            memory == Memory::Repeats,
            "{duplicates} twice"
        );
        assert_eq!(
            some.contains(&gaps),
            memory == Memory::Despairs,
            "{gaps} gaps"
        );
        assert_eq!(
            report.is_clean(),
            matches!(memory, Memory::Good | Memory::Despairs)
        );
    }
}

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookbot_forward::letters::Limits;
use hookbot_forward::{Answer, Letters, Place, Settings, Summary, Verdict};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::stage::{Numbers, Stooge, answer, forwarder};

const THREE: Numbers = Numbers {
    count: 3,
    ends: true,
};

#[tokio::test(start_paused = true)]
async fn a_target_that_is_down_is_probed_and_gets_everything_when_it_is_back() {
    let begin = Instant::now();
    let tries = Arc::new(Mutex::new(Vec::new()));
    let own = tries.clone();
    let taker = Stooge(move |number, _| {
        own.lock().unwrap().push((number, begin.elapsed()));
        let is_up = begin.elapsed() > Duration::from_secs(60);
        async move {
            answer(if is_up {
                Verdict::Taken
            } else {
                Verdict::NotNow
            })
        }
    });
    let (forwarder, words) = forwarder(taker, Settings::default());
    let summary = forwarder.run(&THREE, CancellationToken::new()).await;
    assert_eq!((summary.delivered, summary.parked), (3, 0));

    let tries = tries.lock().unwrap();
    let gaps: Vec<_> = tries.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
    assert!(
        gaps[0] <= Duration::from_millis(501),
        "the first pause is {:?}",
        gaps[0]
    );
    assert!(
        gaps.iter().all(|gap| *gap <= Duration::from_millis(5_001)),
        "{gaps:?}"
    );
    assert!(tries.len() < 25, "it is not hammered: {}", tries.len());
    assert!(
        begin.elapsed() < Duration::from_secs(66),
        "it is back at once"
    );
    let words = words.lock().unwrap();
    let told: Vec<_> = words
        .iter()
        .filter(|word| !word.contains("failed"))
        .collect();
    let attempts = tries.len() - 2;
    assert_eq!(
        told,
        [
            "opened",
            "closed",
            &format!("1 taken at {attempts}"),
            "2 taken at 1",
            "3 taken at 1"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_the_target_asks_for_is_kept_and_a_success_forgets_the_failures() {
    let begin = Instant::now();
    let taker = Stooge(move |_, attempt| async move {
        match attempt {
            1 => Answer {
                retry_after: Some(Duration::from_secs(90)),
                ..answer(Verdict::NotNow)
            },
            _ => answer(Verdict::Taken),
        }
    });
    let (forwarder, words) = forwarder(taker, Settings::default());
    let summary = forwarder.run(&THREE, CancellationToken::new()).await;
    assert_eq!(begin.elapsed().as_secs(), 270);
    assert_eq!((summary.delivered, summary.retried), (3, 3));
    assert!(!words.lock().unwrap().contains(&"opened".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_or_fails_too_often_is_parked_and_the_next_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let taker = Stooge(|number, _| async move {
        answer(match number {
            1 => Verdict::Never,
            2 => Verdict::NotNow,
            _ => Verdict::Taken,
        })
    });
    let settings = Settings {
        retries: Some(2),
        ..Settings::default()
    };
    let (mut forwarder, words) = forwarder(taker, settings);
    let letters = Letters::new(folder.path(), Limits::default());
    forwarder.letters = Some(letters.clone());
    let summary = forwarder.run(&THREE, CancellationToken::new()).await;
    let expected = Summary {
        delivered: 1,
        retried: 2,
        parked: 2,
        ..Summary::default()
    };
    assert_eq!(summary, expected);
    let words = words.lock().unwrap();
    assert_eq!(
        *words,
        [
            "1 parked Some(1)",
            "2 failed",
            "2 failed",
            "2 parked Some(2)",
            "3 taken at 1"
        ]
    );
    let letters = letters.list().unwrap();
    let facts: Vec<_> = letters
        .iter()
        .map(|one| (one.attempts, &*one.reason))
        .collect();
    assert_eq!(facts, [(1, "Never"), (3, "NotNow")]);
}

#[tokio::test(start_paused = true)]
async fn what_finds_no_room_among_the_dead_letters_stays_on_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        count: 1,
        ..Limits::default()
    };
    let letters = Letters::new(folder.path(), limits);
    let own = letters.clone();
    let taker = Stooge(move |number, attempt| {
        if number == 2 && attempt == 3 {
            own.remove(1).unwrap();
        }
        async move { answer(Verdict::Never) }
    });
    let (mut forwarder, words) = forwarder(taker, Settings::default());
    forwarder.letters = Some(letters);
    let two = Numbers {
        count: 2,
        ends: true,
    };
    assert_eq!(
        forwarder.run(&two, CancellationToken::new()).await.parked,
        2
    );
    let words = words.lock().unwrap();
    let full = "the list of dead letters is full; retry or drop some";
    assert_eq!(
        *words,
        [
            "1 parked Some(1)",
            full,
            "2 failed",
            full,
            "2 failed",
            "2 parked Some(1)"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_gone_ends_it_before_the_message() {
    let folder = tempfile::tempdir().unwrap();
    let taker = Stooge(|number, _| async move {
        answer(if number == 2 {
            Verdict::Gone
        } else {
            Verdict::Taken
        })
    });
    let (mut forwarder, _) = forwarder(taker, Settings::default());
    forwarder.place = Place::open(folder.path()).unwrap();
    let endless = Numbers {
        count: 3,
        ends: false,
    };
    let summary = forwarder.run(&endless, CancellationToken::new()).await;
    assert!(summary.is_gone && summary.delivered == 1);
    assert_eq!(Place::peek(folder.path()).unwrap().as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_what_is_on_offer_and_for_nothing_else() {
    for (takes, delivered) in [(5, 1), (500, 0)] {
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let own = stop.clone();
        let taker = Stooge(move |_, _| {
            own.cancel();
            async move {
                tokio::time::sleep(Duration::from_secs(takes)).await;
                answer(Verdict::Taken)
            }
        });
        let (mut forwarder, _) = forwarder(taker, Settings::default());
        forwarder.place = Place::open(folder.path()).unwrap();
        let begin = Instant::now();
        let endless = Numbers {
            count: 3,
            ends: false,
        };
        let summary = forwarder.run(&endless, stop).await;
        assert_eq!(summary.delivered, delivered);
        let place = Place::peek(folder.path()).unwrap();
        assert_eq!(
            place,
            Some(delivered.to_string()),
            "what was not taken is not passed"
        );
        assert_eq!(begin.elapsed().as_secs(), takes.min(10));
    }
}

#[tokio::test(start_paused = true)]
async fn many_at_once_are_many_at_once_and_no_more() {
    let open = Arc::new(Mutex::new((0, 0)));
    let own = open.clone();
    let taker = Stooge(move |_, _| {
        let open = own.clone();
        async move {
            {
                let mut open = open.lock().unwrap();
                open.0 += 1;
                open.1 = open.1.max(open.0);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            open.lock().unwrap().0 -= 1;
            answer(Verdict::Taken)
        }
    });
    let settings = Settings {
        concurrency: 16,
        ..Settings::default()
    };
    let (forwarder, _) = forwarder(taker, settings);
    let begin = Instant::now();
    let many = Numbers {
        count: 320,
        ends: true,
    };
    forwarder.run(&many, CancellationToken::new()).await;
    assert_eq!(open.lock().unwrap().1, 16);
    assert!(
        begin.elapsed() < Duration::from_millis(200),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn it_ends_after_as_many_as_were_asked_for() {
    let taker = Stooge(|_, _| async { answer(Verdict::Taken) });
    let settings = Settings {
        count: Some(2),
        ..Settings::default()
    };
    let (forwarder, _) = forwarder(taker, settings);
    let endless = Numbers {
        count: 3,
        ends: false,
    };
    let summary = forwarder.run(&endless, CancellationToken::new()).await;
    assert_eq!(summary.delivered, 2);
}

#[tokio::test(start_paused = true)]
async fn where_it_begins_is_kept_before_anything_comes() {
    let folder = tempfile::tempdir().unwrap();
    let taker = Stooge(|_, _| async { answer(Verdict::Taken) });
    let (mut forwarder, _) = forwarder(taker, Settings::default());
    forwarder.place = Place::open(folder.path()).unwrap();
    let nothing = Numbers {
        count: 0,
        ends: false,
    };
    let stop = CancellationToken::new();
    let running = forwarder.run(&nothing, stop);
    // Killed, and not stopped.
    let _ = tokio::time::timeout(Duration::from_millis(1), running).await;
    assert_eq!(Place::peek(folder.path()).unwrap().as_deref(), Some("0"));
}

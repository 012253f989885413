use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookbot_forward::letters::Limits;
use hookbot_forward::{Letters, Place, Selection, Settings, Verdict};
use proptest::prelude::*;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::stage::{Numbers, Stooge, answer, forwarder};

/// What the taker has seen.
#[derive(Default)]
struct Seen {
    /// Numbers in the order in which they came.
    arrivals: Vec<u64>,
    /// How often one may come again: its answer was lost, or it was on offer when it was killed.
    lost: HashMap<u64, u32>,
    /// On offer, seen, and not answered yet.
    unanswered: BTreeSet<u64>,
    refused: BTreeSet<u64>,
}

impl Seen {
    fn lose(&mut self, number: u64) {
        *self.lost.entry(number).or_default() += 1;
    }
}

/// A taker that takes its time and fails as it likes, sometimes after it has seen the message.
async fn fail_at_will(
    seen: Arc<Mutex<Seen>>,
    number: u64,
    random: Arc<Mutex<fastrand::Rng>>,
) -> Verdict {
    let draw = |end: u32| random.lock().unwrap().u32(0..end);
    let (before, after, fate) = (draw(20), draw(20), draw(100));
    sleep(Duration::from_millis(before.into())).await;
    if fate < 30 {
        return Verdict::NotNow;
    }
    {
        let mut seen = seen.lock().unwrap();
        seen.arrivals.push(number);
        seen.unanswered.insert(number);
    }
    sleep(Duration::from_millis(after.into())).await;
    let mut seen = seen.lock().unwrap();
    seen.unanswered.remove(&number);
    if fate < 45 {
        seen.lose(number);
        return Verdict::NotNow;
    }
    // What it refuses it always refuses.
    if number.is_multiple_of(11) {
        seen.refused.insert(number);
        return Verdict::Never;
    }
    Verdict::Taken
}

/// Runs forwarders and kills them, until everything is delivered.
async fn run(folder: &Path, seed: u64, concurrency: usize, key: Option<&str>, kills: u32) -> Seen {
    const COUNT: u64 = 60;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
    for life in 0..=kills {
        let (own_seen, own_random) = (seen.clone(), random.clone());
        let taker = Stooge(move |number, _| {
            let (seen, random) = (own_seen.clone(), own_random.clone());
            async move { answer(fail_at_will(seen, number, random).await) }
        });
        let settings = Settings {
            concurrency,
            first_pause: Duration::from_millis(10),
            last_pause: Duration::from_millis(40),
            patience_span: Duration::ZERO,
            probe: Duration::from_millis(100),
            ..Settings::default()
        };
        let (mut forwarder, _) = forwarder(taker, settings);
        forwarder.place = Place::open(&folder.join("place")).unwrap();
        forwarder.letters = Some(Letters::new(&folder.join("dead"), Limits::default()));
        if let Some(key) = key {
            forwarder.selection = Selection::default().key(key).unwrap();
        }
        let source = Numbers {
            count: COUNT,
            ends: true,
        };
        let running = forwarder.run(&source, CancellationToken::new());
        if life == kills {
            running.await;
            break;
        }
        let span = random.lock().unwrap().u64(0..1_500);
        let _ = timeout(Duration::from_millis(span), running).await;
        let mut seen = seen.lock().unwrap();
        for number in std::mem::take(&mut seen.unanswered) {
            seen.lose(number);
        }
    }
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let place = Place::peek(&folder.join("place")).unwrap();
    assert_eq!(
        place,
        Some(COUNT.to_string()),
        "the place is behind everything"
    );
    let all: BTreeSet<_> = seen.arrivals.iter().copied().collect();
    assert_eq!(all, (1..=COUNT).collect(), "everything has arrived");
    let letters = Letters::new(&folder.join("dead"), Limits::default())
        .list()
        .unwrap();
    let parked: BTreeSet<u64> = letters
        .iter()
        .map(|one| one.event.cursor.parse().unwrap())
        .collect();
    assert_eq!(parked, seen.refused, "what was refused is kept");
    seen
}

/// Those of the arrivals that came for the first time.
fn firsts(arrivals: &[u64]) -> Vec<u64> {
    let mut known = BTreeSet::new();
    arrivals
        .iter()
        .copied()
        .filter(|number| known.insert(*number))
        .collect()
}

fn check(seed: u64, concurrency: usize, key: Option<&str>, kills: u32) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let seen = runtime.block_on(run(folder.path(), seed, concurrency, key, kills));

    for number in firsts(&seen.arrivals) {
        let times = seen.arrivals.iter().filter(|one| **one == number).count();
        // A refusal is answered again and again until its letter is on disk.
        let refused = u32::from(seen.refused.contains(&number)) * kills;
        let allowed = 1 + seen.lost.get(&number).copied().unwrap_or_default() + refused;
        assert!(
            times as u32 <= allowed,
            "{number} came {times} times for {allowed}"
        );
    }
    let lanes: &[u64] = match (concurrency, key) {
        (1, _) => &[0],
        (_, Some(_)) => &[0, 1, 2, 3, 4],
        (_, None) => &[],
    };
    for lane in lanes {
        let is_in = |number: &u64| lanes.len() == 1 || number % 5 == *lane;
        let own: Vec<_> = firsts(&seen.arrivals).into_iter().filter(is_in).collect();
        assert!(own.is_sorted(), "lane {lane} is out of order: {own:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn one_at_a_time_everything_arrives_in_order_whatever_fails(seed: u64, kills in 0..6_u32) {
        check(seed, 1, None, kills);
    }

    #[test]
    fn with_keys_everything_arrives_in_their_order(seed: u64, kills in 0..6_u32) {
        check(seed, 4, Some("body.key"), kills);
    }

    #[test]
    fn without_keys_everything_arrives(seed: u64, kills in 0..6_u32) {
        check(seed, 8, None, kills);
    }
}

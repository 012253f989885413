//! Whether the time of a refusal tells how close a guess was: Welch's t over two kinds of wrong
//! tokens, in random order, as dudect does it (Reparaz, Balasch and Verbauwhede, 2017).
//!
//! ```sh
//! cargo run --release -p hookbot-protocol --example timing -- 1000000
//! ```
//!
//! One kind has all but the last byte right, the other none. A |t| below 4.5 means that no
//! difference was found. The second line is a control: the same, with a comparison that stops at
//! the first wrong byte.

use std::hint::black_box;
use std::time::Instant;

use hookbot_protocol::{Key, Keys, Path, Scope, Token};

fn main() {
    let number = std::env::args()
        .nth(1)
        .and_then(|number| number.parse().ok());
    let number: usize = number.unwrap_or(1_000_000);
    let key = Key::new(b"a key for timing alone").expect("it is not empty");
    let path = Path::parse("/sub/a/b").expect("a path");
    let right = key
        .mint(&Scope::parse("/sub/a/b").expect("a scope"))
        .expose();
    let keys = Keys::new(key);

    let close = changed(&right, right.len() - 1);
    let far: String = right.chars().map(other).collect();
    let tokens: [Token; 2] =
        [close.clone(), far.clone()].map(|text| text.parse().expect("a token"));
    let t = welch(number, |class| {
        assert!(keys.grants(&path, black_box(&tokens[class]), 0).is_none());
    });
    println!("{number} verifications: |t| = {:.2}", t.abs());

    let guesses = [close.as_bytes(), far.as_bytes()];
    let t = welch(number, |class| {
        // So often that one comparison is not lost beside the clock.
        for _ in 0..20 {
            black_box(stops_early(
                black_box(right.as_bytes()),
                black_box(guesses[class]),
            ));
        }
    });
    println!(
        "control, a comparison that stops early: |t| = {:.2}",
        t.abs()
    );
}

/// How far apart the times of two classes are, by Welch's t. The slowest are left out, for those
/// were interrupted.
fn welch(number: usize, mut measure: impl FnMut(usize)) -> f64 {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..number / 100 {
        measure(0);
        measure(1);
    }
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..number {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let class = usize::from(random >> 40 & 1 == 1);
        let began = Instant::now();
        measure(class);
        times[class].push(began.elapsed().as_secs_f64());
    }
    let mut all = times.concat();
    all.sort_by(f64::total_cmp);
    let most = all[all.len() * 9 / 10];
    let [one, other] = times.map(|times| {
        let kept: Vec<_> = times.into_iter().filter(|time| *time <= most).collect();
        let count = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / count;
        let variance = kept.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    });
    (one.0 - other.0) / (one.1 + other.1).sqrt()
}

/// The text with another digit in one place.
fn changed(text: &str, at: usize) -> String {
    let digits = text.chars().enumerate();
    digits
        .map(|(own, digit)| if own == at { other(digit) } else { digit })
        .collect()
}

/// Another hexadecimal digit.
fn other(digit: char) -> char {
    let value = digit.to_digit(16).unwrap_or_default();
    char::from_digit(value ^ 1, 16).unwrap_or('0')
}

/// What a token must never be compared with.
fn stops_early(one: &[u8], other: &[u8]) -> bool {
    one.iter().zip(other).all(|(one, other)| one == other)
}

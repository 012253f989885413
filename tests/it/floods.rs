//! Strangers who knock and knock, beside publishers who have a token.
//!
//! Sized for every run; `HOOKBOT_TEST_LONG=1` makes it 100,000 wrong tokens and 10,000 half-open
//! requests, and prints what was measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::program::Program;
use crate::support::token;

fn sized(short: usize, long: usize) -> usize {
    let is_long = std::env::var_os("HOOKBOT_TEST_LONG").is_some();
    if is_long { long } else { short }
}

/// Publishes on one connection, so many times, and tells how long each took.
async fn publish(address: &str, times: usize) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST /pub/t HTTP/1.1\r\nHost: h\r\nHookbot-Token: {}\r\nContent-Length: 2\r\n\r\nok",
        token("/pub/t")
    );
    let mut took = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        took.push(began.elapsed());
        sleep(Duration::from_millis(1)).await;
    }
    took
}

/// One response, whose body is known to be the few bytes that come with its head.
async fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 1_024];
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        bytes.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&bytes);
        if read == 0 || text.contains("\r\n\r\n") && text.ends_with('\n') {
            return text.into_owned();
        }
    }
}

fn p99(took: &mut [Duration]) -> Duration {
    took.sort_unstable();
    took[took.len() * 99 / 100 - 1]
}

/// Has as many descriptors as there may be, which root may raise; how many those are.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    for most in [Some(1 << 16), limit.maximum] {
        let raised = Rlimit {
            current: most,
            maximum: most.max(limit.maximum),
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            break;
        }
    }
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(1 << 16, |limit| usize::try_from(limit).unwrap())
}

/// One flood at a time, or they would measure each other.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_tokens_by_the_thousand_are_refused_and_cost_the_others_nothing_that_lasts() {
    let _alone = ALONE.lock().await;
    let (wrong, good) = (sized(4_000, 100_000), sized(300, 5_000));
    let program = Program::start(&["--memory"]);
    let mut quiet = publish(&program.address, good).await;
    let before = program.memory();

    let guessing = Arc::new(AtomicBool::new(true));
    let mut guessers = JoinSet::new();
    for guesser in 0..4 {
        let (address, guessing) = (program.address.clone(), guessing.clone());
        guessers.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut refused = [0, 0];
            for number in 0..wrong / 4 {
                let request = format!(
                    "GET /sub/t HTTP/1.1\r\nHost: h\r\nHookbot-Token: {guesser:032x}{number:032x}\r\n\r\n"
                );
                stream.write_all(request.as_bytes()).await.unwrap();
                match &head(&mut stream).await[9..12] {
                    "401" => refused[0] += 1,
                    "429" => refused[1] += 1,
                    other => panic!("{other}"),
                }
                tokio::task::yield_now().await;
            }
            guessing.store(false, Ordering::Relaxed);
            refused
        });
    }
    let mut busy = Vec::new();
    while busy.len() < good || guessing.load(Ordering::Relaxed) {
        busy.extend(publish(&program.address, 50).await);
    }
    let (mut unauthorized, mut too_many) = (0, 0);
    while let Some(refused) = guessers.join_next().await {
        let [one, other] = refused.unwrap();
        (unauthorized, too_many) = (unauthorized + one, too_many + other);
    }
    let grown = program.memory().saturating_sub(before);
    let (quiet, busy) = (p99(&mut quiet), p99(&mut busy));
    println!(
        "{unauthorized} times 401, {too_many} times 429; p99 {quiet:?} alone and {busy:?} beside \
         them; {grown} bytes more"
    );
    assert_eq!(unauthorized + too_many, wrong / 4 * 4);
    assert!((99..400).contains(&unauthorized), "{unauthorized}");
    assert!(grown < 32 << 20, "{grown} bytes more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_requests_by_the_thousand_keep_nobody_else_waiting() {
    let _alone = ALONE.lock().await;
    let (half_open, good) = (sized(500, 10_000), sized(300, 5_000));
    let half_open = half_open.min(descriptors() - 200);
    let program = Program::start(&["--memory"]);
    let mut quiet = publish(&program.address, good).await;
    let before = program.memory();

    let mut stalled = Vec::new();
    for number in 0..half_open {
        // Each from its own port, and some from another address, for ports are few.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        let local = [127, 0, 0, 1 + u8::try_from(number % 8).unwrap()];
        socket.bind((local, 0).into()).unwrap();
        let mut stream = socket
            .connect(program.address.parse().unwrap())
            .await
            .unwrap();
        let part: &[u8] = if number % 2 == 0 {
            b"POST /pub/t HTTP/1.1\r\nHost: h\r\nX-Slow: "
        } else {
            b"POST /unsafe/pub/t HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nx"
        };
        stream.write_all(part).await.unwrap();
        stalled.push(stream);
    }
    let mut busy = publish(&program.address, good).await;
    let each = program.memory().saturating_sub(before) / half_open as u64;
    let (quiet, busy) = (p99(&mut quiet), p99(&mut busy));
    println!(
        "{} half-open requests: p99 {quiet:?} without and {busy:?} with them; {each} bytes each",
        stalled.len()
    );
    assert!(busy < Duration::from_secs(2), "{busy:?}");
    assert!(each < 64 << 10, "{each} bytes each");
}

/// What a client declares is not what it has sent, and must not be what it takes: with room for a
/// quarter of what is declared, these took 24 KiB more for each.
#[tokio::test]
async fn half_open_bodies_again_and_again_take_no_more_memory_than_once() {
    let _alone = ALONE.lock().await;
    let half_open = sized(3_000, 8_000).min(descriptors() - 200);
    let program = Program::start(&["--memory"]);
    let request = format!(
        "POST /pub/t HTTP/1.1\r\nHost: h\r\nHookbot-Token: {}\r\nContent-Length: 1000000\r\n\r\nx",
        token("/pub/t")
    );
    let mut after = Vec::new();
    let own = program.descriptors();
    for _ in 0..6 {
        let mut stalled = Vec::new();
        for _ in 0..half_open {
            let mut stream = TcpStream::connect(&program.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            stalled.push(stream);
        }
        // An answer on another connection says that those before it have been looked at.
        let mut last = TcpStream::connect(&program.address).await.unwrap();
        last.write_all(b"GET /status HTTP/1.1\r\nHost: h\r\n\r\n")
            .await
            .unwrap();
        head(&mut last).await;
        drop((stalled, last));
        after.push(program.memory());
        // Or those of two rounds would be measured at once.
        let gone = async {
            while program.descriptors() > own {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(30), gone).await.unwrap();
    }
    let grown = after[5].saturating_sub(after[1]) / half_open as u64;
    println!("{half_open} half-open bodies, six times: {after:?} bytes");
    assert!(
        grown < 12 << 10,
        "{grown} bytes more for each, after four more times"
    );
}

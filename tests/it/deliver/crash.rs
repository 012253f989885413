//! Deliveries of a server that is killed again and again.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::program::Program;
use crate::support::token;
use crate::target::{Answer, Asked, Target};

/// What a service answers that fails in 45 of 100 cases, and sometimes only seems to.
fn unreliable(asks: &AtomicUsize, lost: &AtomicUsize) -> Answer {
    match asks.fetch_add(1, Ordering::Relaxed) * 7 % 100 {
        0..=24 => Answer::Reply(500, ""),
        25..=34 => Answer::Reply(503, "Retry-After: 0\r\n"),
        35..=39 => Answer::Reset,
        40 | 50 | 60 | 70 | 80 => {
            lost.fetch_add(1, Ordering::Relaxed);
            Answer::Lost
        }
        _ => Answer::OK,
    }
}

async fn service(lost: &Arc<AtomicUsize>) -> Target {
    let (asks, lost) = (AtomicUsize::new(0), lost.clone());
    Target::with(move |_| unreliable(&asks, &lost)).await
}

fn start(folder: &Path) -> Program {
    let (config, data) = (folder.join("hookbot.toml"), folder.join("data"));
    let (config, data) = (config.to_str().unwrap(), data.to_str().unwrap());
    Program::start(&["--config", config, "--data-dir", data])
}

/// Publishes messages, one after the other on one connection.
async fn publish(program: &Program, numbers: std::ops::Range<usize>) {
    let mut stream = TcpStream::connect(&program.address).await.unwrap();
    let bearer = token("/pub/in/x");
    for number in numbers {
        let body = format!(r#"{{"n":{number},"k":{}}}"#, number % KEYS);
        let request = format!(
            "POST /pub/in/x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {bearer}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        while !reply.ends_with(b"OK\n") && !reply.ends_with(b"OK") {
            assert!(stream.read_buf(&mut reply).await.unwrap() > 0, "{reply:?}");
        }
    }
}

const KEYS: usize = 7;

fn number(asked: &Asked) -> (usize, usize) {
    let body: serde_json::Value = serde_json::from_slice(&asked.body).unwrap();
    let number = |name: &str| usize::try_from(body[name].as_u64().unwrap()).unwrap();
    (number("k"), number("n"))
}

/// Reads what a service takes until it has everything, in order for each key; how often it took
/// something a second time.
struct Reader {
    next: HashMap<usize, usize>,
    taken: usize,
    repeats: usize,
    keys: usize,
}

impl Reader {
    fn new(keys: usize) -> Self {
        Self {
            next: (0..keys).map(|key| (key, key)).collect(),
            taken: 0,
            repeats: 0,
            keys,
        }
    }

    async fn read(&mut self, target: &mut Target, upto: usize) {
        while self.taken < upto {
            let asked = target.next().await;
            if !asked.is_taken {
                continue;
            }
            let (key, number) = number(&asked);
            let next = self.next.get_mut(&(key % self.keys)).unwrap();
            if number == *next {
                *next += self.keys;
                self.taken += 1;
            } else {
                // Only what came last can come again, and nothing is left out.
                assert_eq!(number + self.keys, *next, "of key {key}");
                self.repeats += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_everything_arrives_in_order_and_twice_only_where_an_answer_was_lost() {
    let total: usize = std::env::var("HOOKBOT_TEST_DELIVERIES")
        .map_or(300, |text| text.parse().expect("a number"));
    let lost = [Arc::default(), Arc::default()];
    let (mut one, mut many) = (service(&lost[0]).await, service(&lost[1]).await);
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[[deliver]]\nname = 'one'\ntopic = 'in/'\nurl = '{}'\nallow = '127.0.0.1'\n\
         pause = '1ms'\nmax_pause = '5ms'\n\
         [[deliver]]\nname = 'many'\ntopic = 'in/'\nurl = '{}'\nallow = '127.0.0.1'\n\
         pause = '1ms'\nmax_pause = '5ms'\nconcurrency = 4\nkey = 'body.k'\n",
        one.url("/"),
        many.url("/"),
    );
    fs::write(folder.path().join("hookbot.toml"), config).unwrap();

    const KILLS: usize = 6;
    let part = total / KILLS;
    let (mut read_one, mut read_many) = (Reader::new(1), Reader::new(KEYS));
    for kill in 0..KILLS {
        let program = start(folder.path());
        publish(&program, kill * part..(kill + 1) * part).await;
        // In the middle of everything: half of what there is is still to come.
        let upto = kill * part + part / 2;
        tokio::join!(
            read_one.read(&mut one, upto),
            read_many.read(&mut many, upto)
        );
        drop(program);
    }
    let program = start(folder.path());
    publish(&program, KILLS * part..total).await;
    tokio::join!(
        read_one.read(&mut one, total),
        read_many.read(&mut many, total)
    );
    let lost = lost.map(|lost: Arc<AtomicUsize>| lost.load(Ordering::Relaxed));
    println!(
        "{total} messages, {KILLS} kills; one at a time: {} repeats, {} answers lost; \
         four at a time: {} repeats, {} answers lost",
        read_one.repeats, lost[0], read_many.repeats, lost[1]
    );
    assert!(lost[0] > 0 && read_one.repeats > 0);
    assert!(read_one.repeats <= lost[0] + KILLS);
    assert!(read_many.repeats <= lost[1] + 4 * KILLS);
}

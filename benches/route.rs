//! How many events a second come in by one organisation's hook and go out on a hundred
//! repositories' topics: over HTTP, verified, on disk, routed, and on disk again.
//!
//! `cargo bench --bench route` starts the program, posts pushes of 8 KB as GitHub signs them on 16
//! connections, as fast as they are answered or 500 a second, and waits until the last of them has
//! been routed. Rules that are behind find 4,000 events in the log when the program starts.
//!
//! `-- --seconds 10` makes each row longer, `--only hundred` leaves out rows that do not say so, and
//! `--program FILE` measures another build. Client and server share the processors.

mod program;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hookbot_protocol::{Headers, Key, Scope};
use hookbot_signatures::{Provider, Request, Scheme, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use program::{KEY, Program};

/// Five lines, whatever repositories there are.
const ONE_RULE: &str = r#"
[[route]]
name = "branches"
from = "/unsafe/github.com/"
when = 'body.ref.startswith("refs/heads/")'
to = "github.com/repo/{{ body.repository.full_name }}/branch/{{ body.ref[11:] }}"
"#;

/// What the hook is signed with. By default one address may send 500 messages a second without a
/// token, signed or not.
const SOURCE: &str = r#"
[limits]
unsafe_rate_per_address = 1000000

[[source]]
topic = "/unsafe/github.com/"
provider = "github"
secrets = "a secret for benchmarks alone"
"#;

const SECRET: &str = "a secret for benchmarks alone";
const REPOSITORIES: usize = 100;
const CONNECTIONS: u32 = 16;
const BYTES: usize = 8_192;

/// A rule for each of the repositories, every one of which looks at every event.
fn a_rule_each() -> String {
    let rule = |number| {
        format!(
            "[[route]]\nname = 'site-{number}'\nfrom = '/unsafe/github.com/'\n\
             when = 'body.repository.full_name == \"acme/site-{number}\"'\nto = 'site/{number}'\n"
        )
    };
    (0..REPOSITORIES).map(rule).collect()
}

/// A request with a push to the repository of this number, signed.
fn push(number: usize) -> Vec<u8> {
    let push = include_str!("../crates/routers/tests/data/push.json");
    let mut json: serde_json::Value = serde_json::from_str(push).expect("it is JSON");
    json["repository"]["full_name"] = format!("acme/site-{number}").into();
    let commit = json["head_commit"].clone();
    let mut body = json.to_string();
    while body.len() < BYTES {
        let commits = json["commits"].as_array_mut();
        commits.expect("a push has commits").push(commit.clone());
        body = json.to_string();
    }
    let request = Request {
        method: "POST",
        url: "",
        headers: &Headers::default(),
        body: body.as_bytes(),
    };
    let secret = Secret::new(SECRET).expect("a constant secret");
    let signed = Scheme::from(Provider::Github).sign(&secret, &request, 0);
    let mut head = format!(
        "POST /unsafe/pub/github.com/org/acme HTTP/1.1\r\nHost: hooks.example.com\r\n\
         User-Agent: GitHub-Hookshot/0123abc\r\nContent-Type: application/json\r\n\
         X-GitHub-Event: push\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in signed.expect("GitHub signs with a secret") {
        head += &format!("{name}: {value}\r\n");
    }
    [head.as_bytes(), b"\r\n", body.as_bytes()].concat()
}

/// Sends a request, and returns the response as far as `end`.
async fn ask(stream: &mut TcpStream, request: &[u8], end: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(request).await?;
    let mut reply = Vec::new();
    while !reply.ends_with(end) {
        let read = stream.read_buf(&mut reply).await?;
        assert!(read > 0, "refused: {}", String::from_utf8_lossy(&reply));
    }
    Ok(reply)
}

/// How events come in.
#[derive(Clone, Copy, PartialEq)]
enum Pace {
    /// As fast as they are answered.
    Fast,
    /// So many a second.
    Steady(u32),
    /// So many at once, while nothing is routed.
    Before(u32),
}

/// Posts for so long on all connections, one event after the other on each; how long each took.
async fn post(
    address: &str,
    pushes: &Arc<[Vec<u8>]>,
    time: Duration,
    pace: Pace,
) -> std::io::Result<Vec<Duration>> {
    let (pause, each) = match pace {
        Pace::Fast => (None, u32::MAX),
        Pace::Steady(rate) => (Some(Duration::from_secs(1) * CONNECTIONS / rate), u32::MAX),
        Pace::Before(events) => (None, events / CONNECTIONS),
    };
    let began = Instant::now();
    let mut senders = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let pushes = pushes.clone();
        senders.spawn(async move {
            let mut times = Vec::new();
            let turns = pushes.iter().cycle().skip(connection as usize * 7);
            for (number, push) in (0..each).zip(turns) {
                if let Some(pause) = pause {
                    let due = began + pause * number + pause * connection / CONNECTIONS;
                    tokio::time::sleep_until(due.into()).await;
                }
                let sent = Instant::now();
                if each == u32::MAX && sent - began >= time {
                    break;
                }
                ask(&mut stream, push, b"\r\n\r\nOK\n").await?;
                times.push(sent.elapsed());
            }
            Ok::<_, std::io::Error>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = senders.join_next().await {
        times.extend(done.expect("no sender panics")?);
    }
    times.sort_unstable();
    Ok(times)
}

/// Waits until so many messages have been routed.
async fn routed(address: &str, number: usize) -> std::io::Result<()> {
    let key = Key::new(KEY.as_bytes()).expect("a constant key");
    let scope = Scope::parse("/metrics").expect("a constant path");
    let token = key.mint(&scope).expose();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: h\r\nHookbot-Token: {token}\r\n\r\n");
    let mut stream = TcpStream::connect(address).await?;
    loop {
        let reply = ask(&mut stream, request.as_bytes(), b"# EOF\n").await?;
        let text = String::from_utf8_lossy(&reply);
        let lines = text
            .lines()
            .filter(|line| line.starts_with("hookbot_routed_total"));
        let counts = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok());
        if counts.sum::<usize>() >= number {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn main() {
    let time = program::time();
    let only = program::argument("--only").unwrap_or_default();
    let runtime = program::runtime();
    let pushes: Arc<[_]> = (0..REPOSITORIES).map(push).collect();
    println!(
        "| | events/s until the last is routed | answered /s | p50 | p99 | server time each |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    let (one, hundred) = (ONE_RULE, &*a_rule_each());
    let rows = [
        ("verified", "", Pace::Fast),
        ("verified and routed by one rule", one, Pace::Fast),
        ("one rule, 500 a second", one, Pace::Steady(500)),
        ("one rule that is behind", one, Pace::Before(BEHIND)),
        ("verified and routed by a hundred", hundred, Pace::Fast),
        ("a hundred, 500 a second", hundred, Pace::Steady(500)),
        ("a hundred that are behind", hundred, Pace::Before(BEHIND)),
    ];
    for (what, routes, pace) in rows.into_iter().filter(|(what, ..)| what.contains(&only)) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name| folder.path().join(name).display().to_string();
        let start = |routes: &str| {
            let config = format!("{SOURCE}{routes}");
            std::fs::write(path("config"), config).expect("the folder takes files");
            Program::start(&["--data-dir", &path("data"), "--config", &path("config")])
        };
        let mut program = start(routes);
        let is_before = matches!(pace, Pace::Before(_));
        if is_before {
            // Once they are served, the rules have their places.
            let served = runtime.block_on(routed(&program.address, 0));
            served.expect("the program answers");
            drop(program);
            program = start("");
        }
        let mut began = Instant::now();
        let times = runtime.block_on(post(&program.address, &pushes, time, pace));
        let times = times.expect("the program answers");
        let answered = began.elapsed().as_secs_f64();
        if is_before {
            drop(program);
            began = Instant::now();
            program = start(routes);
        }
        if !routes.is_empty() {
            let routed = runtime.block_on(routed(&program.address, times.len()));
            routed.expect("the program answers");
        }
        let events = times.len() as f64;
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        println!(
            "| {what} | {:.0} | {:.0} | {:.2?} | {:.2?} | {:.1} µs |",
            events / began.elapsed().as_secs_f64(),
            events / answered,
            at(0.5),
            at(0.99),
            program.used() / events * 1e6,
        );
    }
}

/// How many events there are when rules begin that are behind.
const BEHIND: u32 = 4_000;

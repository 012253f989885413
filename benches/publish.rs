//! How fast messages are published: on disk, each acknowledged only once it is synced, beside in
//! memory, in one run on one machine.
//!
//! `cargo bench --bench publish` starts the program, publishes over loopback with a closed loop on
//! each of 1, 16 and 256 connections, and prints a table. `-- --seconds 10` makes each row longer.
//! Client and server share the processors, so the figures are for comparing, not for boasting.

mod program;

use std::time::{Duration, Instant};

use hookbot_protocol::{Key, Scope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use program::{KEY, Program};

/// What one row of the table says.
struct Row {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

/// Publishes on so many connections, one message after the other on each.
async fn publish(
    address: &str,
    connections: usize,
    size: usize,
    time: Duration,
) -> std::io::Result<Row> {
    let scope = Scope::parse("/pub/").expect("a constant path");
    let token = Key::new(KEY.as_bytes())
        .expect("a constant key")
        .mint(&scope)
        .expose();
    let began = Instant::now();
    let mut publishers = JoinSet::new();
    for number in 0..connections {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let head = format!(
            "POST /pub/bench/{number} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nContent-Length: {size}\r\n\r\n"
        );
        let request = [head.into_bytes(), vec![b'x'; size]].concat();
        publishers.spawn(async move {
            let mut times = Vec::new();
            let mut reply = vec![0; 1_024];
            while began.elapsed() < time {
                let sent = Instant::now();
                stream.write_all(&request).await?;
                let mut length = 0;
                while !reply[..length].ends_with(b"\r\n\r\nOK\n") {
                    let read = stream.read(&mut reply[length..]).await?;
                    assert!(
                        read > 0,
                        "refused: {}",
                        String::from_utf8_lossy(&reply[..length])
                    );
                    length += read;
                }
                times.push(sent.elapsed());
            }
            Ok::<_, std::io::Error>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = publishers.join_next().await {
        times.extend(done.expect("no publisher panics")?);
    }
    let elapsed = began.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    Ok(Row {
        per_second: times.len() as f64 / elapsed,
        p50: at(0.5),
        p99: at(0.99),
    })
}

fn main() {
    let time = program::time();
    let runtime = program::runtime();
    println!(
        "| connections | bytes | on disk /s | p50 | p99 | in memory /s | p50 | p99 | disk : memory |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for size in [512, 16 << 10] {
        for connections in [1, 16, 256] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let path = folder.path().join("data").display().to_string();
            let run = |arguments: &[&str]| {
                let program = Program::start(arguments);
                let row = publish(&program.address, connections, size, time);
                runtime.block_on(row).expect("the program answers")
            };
            let disk = run(&["--data-dir", &path]);
            let memory = run(&["--memory"]);
            println!(
                "| {connections} | {size} | {:.0} | {:.2?} | {:.2?} | {:.0} | {:.2?} | {:.2?} | {:.2} |",
                disk.per_second,
                disk.p50,
                disk.p99,
                memory.per_second,
                memory.p50,
                memory.p99,
                disk.per_second / memory.per_second,
            );
        }
    }
}

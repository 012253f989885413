//! Rules that read the same come and go while messages flow, and the server is killed.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::metrics::value;
use crate::program::Program;
use crate::support::{Reply, Socket, read_to_end, token};

/// The first of them takes each message, the second every other one, and so on.
const RULES: usize = 6;

/// A message for all of them.
const FOR_ALL: usize = 60;

/// Puts a file with these rules in the place of the one before.
fn write(folder: &Path, rules: &HashSet<usize>) {
    let rule = |rule| {
        format!(
            "[[route]]\nname = 'r{rule}'\nfrom = 'in/'\nwhen = 'body % {} == 0'\nto = 'out/{rule}'\n",
            rule + 1
        )
    };
    let text: String = rules.iter().map(rule).collect();
    fs::write(folder.join("new"), text).unwrap();
    fs::rename(folder.join("new"), folder.join("hookbot.toml")).unwrap();
}

fn start(folder: &Path) -> Program {
    let (config, data) = (folder.join("hookbot.toml"), folder.join("data"));
    let (config, data) = (config.to_str().unwrap(), data.to_str().unwrap());
    Program::start(&["--config", config, "--data-dir", data])
}

/// Publishes one number after the other until there is nobody to take them. Those before `next`
/// have been taken.
async fn flow(address: String, next: watch::Sender<usize>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let bearer = token("/pub/in/x");
    let first = *next.borrow();
    for number in first.. {
        let body = number.to_string();
        let request = format!(
            "POST /pub/in/x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {bearer}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut reply = Vec::new();
        let sent = stream.write_all(request.as_bytes()).await;
        while sent.is_ok() && !reply.ends_with(b"OK\n") {
            if !matches!(stream.read_buf(&mut reply).await, Ok(1..)) {
                break;
            }
        }
        // Whether one that has no answer was taken, the log knows; it is not sent again.
        next.send_replace(number + 1);
        if reply.is_empty() {
            return;
        }
    }
}

async fn reloads(program: &Program) -> Option<f64> {
    let mut stream = TcpStream::connect(&program.address).await.unwrap();
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
        token("/metrics")
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let page = Reply::parse(&read_to_end(&mut stream).await).body;
    value(&page, "hookbot_config_reloads_total")
}

async fn reload(program: &Program) {
    let before = reloads(program).await;
    program.hang_up();
    while reloads(program).await == before {}
}

/// Everything that the log has, and will have.
async fn everything(program: &Program) -> Socket {
    let url = format!("ws://{}/sub/?after=start", program.address);
    let mut request = url.into_client_request().unwrap();
    let bearer = format!("Bearer {}", token("/sub/"));
    let headers = request.headers_mut();
    headers.append("Authorization", bearer.parse().unwrap());
    let stream = TcpStream::connect(&program.address).await.unwrap();
    Socket(client_async(request, stream).await.unwrap().0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_and_goes_each_rule_publishes_what_is_its_own_once_and_in_order() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut rules = HashSet::new();
    // Between which two numbers a rule came for the first time.
    let mut came = [None; RULES];
    let next = watch::Sender::new(1);
    let published = || *next.borrow();

    const LIVES: usize = 4;
    for life in 0..LIVES {
        for _ in 0..2 {
            let rule = random.usize(..RULES);
            let _ = rules.remove(&rule) || rules.insert(rule);
        }
        write(folder, &rules);
        let program = start(folder);
        // Once it is served, the rules are at work.
        reloads(&program).await;
        for rule in &rules {
            came[*rule].get_or_insert_with(|| (published(), published()));
        }
        let flowing = tokio::spawn(flow(program.address.clone(), next.clone()));
        let wait = async |messages: usize| {
            let upto = published() + messages;
            let mut next = next.subscribe();
            next.wait_for(|next| *next >= upto).await.unwrap();
        };
        for _ in 0..3 {
            wait(random.usize(..150)).await;
            let rule = random.usize(..RULES);
            let _ = rules.remove(&rule) || rules.insert(rule);
            write(folder, &rules);
            let before = published();
            reload(&program).await;
            for rule in &rules {
                came[*rule].get_or_insert_with(|| (before, published()));
            }
        }
        wait(random.usize(..150)).await;
        println!("life {life}: {rules:?}, {} messages", published());
        drop(program);
        flowing.await.unwrap();
    }

    rules.extend(0..RULES);
    write(folder, &rules);
    let program = start(folder);
    reloads(&program).await;
    let end = published().next_multiple_of(FOR_ALL);
    came.iter_mut().for_each(|came| {
        came.get_or_insert_with(|| (published(), published()));
    });
    next.send_replace(end);
    let flowing = tokio::spawn(flow(program.address.clone(), next.clone()));
    let mut all = everything(&program).await;
    let (mut taken, mut routed) = (Vec::new(), [const { Vec::new() }; RULES]);
    while routed
        .iter()
        .any(|own| own.last().is_none_or(|last| *last < end))
    {
        let message = all.next().await;
        let (topic, number) = message.split_once('\0').unwrap();
        let number: usize = number.parse().unwrap();
        match topic.strip_prefix("out/") {
            Some(rule) => routed[rule.parse::<usize>().unwrap()].push(number),
            None => taken.push(number),
        }
    }
    drop(program);
    flowing.await.unwrap();

    for (rule, own) in routed.iter().enumerate() {
        let (not_before, not_after) = came[rule].unwrap();
        let first = own[0];
        assert!(
            first >= not_before,
            "rule {rule} came with {first}, before {not_before}"
        );
        let is_own = |number: &&usize| number.is_multiple_of(rule + 1) && **number <= end;
        let its: Vec<_> = taken.iter().filter(is_own).collect();
        let missed = its
            .iter()
            .find(|number| ***number > not_after && ***number < first);
        assert_eq!(missed, None, "rule {rule} came by {not_after}");
        let own: Vec<_> = own.iter().filter(|number| **number <= end).collect();
        let its: Vec<_> = its.into_iter().filter(|number| **number >= first).collect();
        assert_eq!(own, its, "rule {rule}");
    }
}

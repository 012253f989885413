//! The program: how it exits, and what it prints.

use std::process::{Command, Output};

use crate::real::RealBroker;
use crate::wrong::{Misdeed, WrongServer};

async fn program(line: String) -> Output {
    let run = move || {
        Command::new(env!("CARGO_BIN_EXE_hookbot-load"))
            .args(line.split_whitespace())
            .env_remove("HOOKBOT_KEY")
            .env_remove("HOOKBOT_KEY_FILE")
            .output()
    };
    tokio::task::spawn_blocking(run).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exit_code_tells_how_it_went() {
    let broker = RealBroker::start().await;
    let (good, url) = (broker.arguments(), broker.url());
    let bad = WrongServer::start(Misdeed::Lose, false).await;
    let bad = format!("--url {bad} --shape nchan --patience 500ms");
    let fanout = "fanout --subscribers 2 --rate 1000 --duration 50ms";
    let table = [
        (format!("{fanout} {good}"), 0),
        (format!("{fanout} {bad}"), 1),
        (format!("{fanout} {bad} --allow-loss"), 0),
        (format!("{fanout} --url http://192.0.2.1"), 2),
        (format!("{fanout} --url https://127.0.0.1"), 2),
        (format!("{fanout} --size 5"), 2),
        (format!("resume {bad}"), 2),
        (format!("idle --subscribers 4000000 {good}"), 2),
        (format!("{fanout} --url http://127.0.0.1:1"), 3),
        // Nobody gets in without a token.
        (format!("{fanout} --url {url}"), 3),
    ];
    for (line, code) in table {
        let output = program(line.clone()).await;
        assert_eq!(output.status.code(), Some(code), "{line}: {output:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_https_server_is_believed_by_its_authority_or_for_the_asking() {
    let broker = RealBroker::start_tls().await;
    let other = RealBroker::start_tls().await;
    let load = "fanout --subscribers 2 --rate 1000 --duration 20ms";
    let table = [
        (format!("--ca {}", broker.authority()), 0),
        ("--insecure".to_owned(), 0),
        (format!("--ca {}", other.authority()), 3),
        (String::new(), 2),
    ];
    for (more, code) in table {
        let output = program(format!("{load} {more} {}", broker.arguments())).await;
        assert_eq!(output.status.code(), Some(code), "{more}: {output:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_is_all_that_is_printed_and_holds_no_secret() {
    let broker = RealBroker::start().await;
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("table.tsv");
    let line = "fanout --subscribers 2 --rate 1000 --duration 20ms --rounds 2 --json --label own";
    let line = format!("{line} --table {} {}", table.display(), broker.arguments());
    let output = program(line).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["label"], "own");
    assert_eq!(json["rounds"].as_array().unwrap().len(), 2);
    assert_eq!(json["median"][0]["lost"], 0);
    assert!(output.stderr.is_empty());
    assert!(!text.contains("Bearer") && !text.contains("a key for tests"));
    assert_eq!(std::fs::read_to_string(&table).unwrap().lines().count(), 2);
}

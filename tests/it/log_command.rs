use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use hookbot::server::{Listener, Server, Settings};
use hookbot_broker::Broker;
use hookbot_log::{DiskLog, Log, Options};
use hookbot_protocol::{Keys, Publication, Topic};
use tokio_util::sync::CancellationToken;

use crate::support::key;

/// Runs `hookbot log` on a folder.
fn ask(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookbot"));
    command
        .arg("log")
        .args(arguments)
        .env("HOOKBOT_DATA_DIR", folder);
    command.env_remove("HOOKBOT_KEY").output().unwrap()
}

fn printed(folder: &Path, arguments: &[&str]) -> String {
    let output = ask(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn fill(log: &dyn Log) {
    for number in 0..10 {
        let topic = if number % 2 == 0 { "t" } else { "/unsafe/t" };
        let publication = Publication::new(Topic::parse(topic).unwrap(), number.to_string());
        log.append(publication, None).await.unwrap();
    }
}

/// Everything that is asked of a folder, and must be answered the same by a running server.
fn answers(folder: &Path) -> [String; 4] {
    [
        &["read", "t"][..],
        &["read", "/unsafe/", "--after", "4", "--limit", "1"],
        &["verify"],
        &["stats"],
    ]
    .map(|question| printed(folder, question))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_server_and_a_stopped_one_s_folder_give_the_same_answers() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("data");
    let log = DiskLog::open(&folder, Options::default()).unwrap();
    fill(&log).await;
    let (broker, fan_out) = Broker::new(Arc::new(log));
    let fan_out = tokio::spawn(fan_out.run());
    let settings = Settings {
        data_dir: Some(folder.clone()),
        ..Settings::new(Keys::new(key()))
    };
    let server = Server::new(broker, settings).unwrap();
    let listeners = Listener::bind(&"127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(server.run(listeners, stop.clone()));
    let socket = hookbot::server::admin::socket(&folder);
    while !socket.exists() {
        tokio::task::yield_now().await;
    }

    let [safe, one, verified, stats] = tokio::task::spawn_blocking({
        let folder = folder.clone();
        move || answers(&folder)
    })
    .await
    .unwrap();
    assert_eq!(safe.lines().count(), 5);
    assert!(
        safe.lines().all(|line| line.contains("\"topic\":\"t\"")),
        "{safe}"
    );
    assert!(
        one.lines().count() == 1 && one.contains("\"body\":\"5\""),
        "{one}"
    );
    assert_eq!(verified, "10 messages read\n");
    assert!(stats.contains("next offset"), "{stats}");
    let refused = ask(&folder, &["read", "a//b"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");

    stop.cancel();
    running.await.unwrap();
    fan_out.abort();
    let _ = fan_out.await;
    let stopped = answers(&folder);
    assert_eq!(
        [&stopped[0], &stopped[1], &stopped[2]],
        [&safe, &one, &verified]
    );
}

#[test]
fn a_folder_without_a_log_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = ask(folder.path(), &["stats"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.contains(&folder.path().display().to_string()),
        "{error}"
    );
}

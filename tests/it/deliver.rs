//! Messages that are pushed to services.

mod changes;
mod choice;
mod command;
mod crash;
mod guard;
mod services;
mod signatures;

use std::fs;
use std::path::Path;
use std::time::Duration;

use hookbot_protocol::{Publication, Topic};
use tokio::time::{sleep, timeout};

use crate::metrics::{metrics, value};
use crate::support::{Options, PATIENCE, TestServer};
use crate::target::Asked;

/// A folder with a configuration, and a server that does what it says.
async fn with(config: &str) -> (tempfile::TempDir, TestServer) {
    with_log(config, 64 << 20).await
}

/// The same, with a log that holds so many bytes.
async fn with_log(config: &str, bytes: usize) -> (tempfile::TempDir, TestServer) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let options = Options {
        log_bytes: Some(bytes),
        settings: Some(Box::new(|settings| settings.data_dir = Some(data))),
        ..Options::default()
    };
    let server = start(folder.path(), config, options).await;
    (folder, server)
}

/// The same, where nothing is on disk.
async fn in_memory(config: &str) -> (tempfile::TempDir, TestServer) {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), config, Options::default()).await;
    (folder, server)
}

async fn start(folder: &Path, config: &str, options: Options) -> TestServer {
    let file = folder.join("hookbot.toml");
    fs::write(&file, config).unwrap();
    let options = Options {
        config: Some(file),
        ..options
    };
    let server = TestServer::start_with(options).await;
    // Whoever is answered comes after the deliveries have begun.
    assert_eq!(server.request("GET /status", &[], b"").await.status, 200);
    server
}

async fn reload(server: &TestServer, folder: &Path, config: &str) {
    fs::write(folder.join("hookbot.toml"), config).unwrap();
    server.configuration.as_ref().unwrap().reload().await;
}

/// A delivery of `topic` that tries again soon.
fn deliver(name: &str, topic: &str, url: &str, more: &str) -> String {
    format!(
        "[[deliver]]\nname = '{name}'\ntopic = '{topic}'\nurl = '{url}'\nallow = '127.0.0.1'\n\
         pause = '1ms'\nmax_pause = '5ms'\n{more}\n"
    )
}

/// Publishes numbers, as fast as the log takes them.
async fn publish(server: &TestServer, topic: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let topic = Topic::parse(topic).unwrap();
        let publication = Publication::new(topic, number.to_string());
        server.broker.publish(publication).await.unwrap();
    }
}

/// Waits until a metric has at least this value.
async fn wait_for(server: &TestServer, metric: &str, least: f64) {
    wait_until(server, metric, |value| value >= least).await;
}

/// Waits until this holds of a metric's value.
async fn wait_until(server: &TestServer, metric: &str, holds: impl Fn(f64) -> bool) {
    let waiting = async {
        while !value(&metrics(server).await, metric).is_some_and(&holds) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "{metric} does not become what it should");
}

fn has(asked: &Asked, number: u32) {
    assert_eq!(asked.text(), number.to_string());
}

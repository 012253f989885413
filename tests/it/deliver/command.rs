//! Deliveries, as the program's commands tell of them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::Value;

use crate::program::Program;
use crate::support::{PATIENCE, token};
use crate::target::{Answer, Target};

fn hookbot(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookbot"));
    command.args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8([&*output.stdout, &output.stderr].concat()).unwrap()
}

/// What the server says of its deliveries, once this holds of it.
fn deliveries(data: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < PATIENCE, "it never holds");
        let asked = hookbot(&["deliveries", "--json", "--data-dir", data]);
        let lines = String::from_utf8(asked.stdout).unwrap();
        let all: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        if asked.status.success() && holds(&all) {
            return all;
        }
        assert!(matches!(asked.status.code(), Some(0 | 4)));
    }
}

fn start(folder: &Path, config: &str) -> (Program, String) {
    let (file, data) = (folder.join("hookbot.toml"), folder.join("data"));
    fs::write(&file, config).unwrap();
    let data = data.to_str().unwrap().to_owned();
    let arguments = ["--config", file.to_str().unwrap(), "--data-dir", &data];
    (Program::start(&arguments), data)
}

fn publish(program: &Program, body: &str) {
    let (length, bearer) = (body.len(), token("/pub/in/x"));
    let request = format!(
        "POST /pub/in/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
         Authorization: Bearer {bearer}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(&program.address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_tells_how_each_delivery_is_doing_and_nothing_secret() {
    let target = Target::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[[deliver]]\nname = 'good'\ntopic = 'in/'\nurl = 'http://ada:hush@{0}/x?key=hush'\n\
         allow = '127.0.0.1'\n\
         [[deliver]]\nname = 'astray'\ntopic = 'in/'\nurl = 'http://127.1:{1}/'\n",
        target.address,
        target.address.port(),
    );
    let (program, data) = start(folder.path(), &config);
    publish(&program, "1");
    let all = deliveries(&data, |all| {
        all[0]["delivered"] == 1 && all[1]["failed"].as_u64() > Some(0)
    });
    assert_eq!(
        (&all[0]["state"], &all[0]["last_status"]),
        (&"running".into(), &200.into())
    );
    assert_eq!(all[1]["delivered"], 0);
    assert!(all[1]["last_error"].is_string() && all[1]["next_attempt"].is_u64());
    let shown = hookbot(&["deliveries", "--data-dir", &data]);
    let shown = text(&shown);
    assert!(
        shown.contains("good from in/ to http://***@127.0.0.1:"),
        "{shown}"
    );
    assert!(shown.contains("1 delivered, 0 failed attempts"), "{shown}");
    assert!(shown.contains("astray from in/"), "{shown}");
    assert!(!shown.contains("hush") && !format!("{all:?}").contains("hush"));
    drop(program);
    let nobody = hookbot(&["deliveries", "--data-dir", &data]);
    assert_eq!(nobody.status.code(), Some(4), "{}", text(&nobody));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_aside_is_listed_tried_again_and_dropped() {
    let works = Arc::new(AtomicBool::new(false));
    let own = works.clone();
    let mut target = Target::with(move |asked| match &*asked.text() {
        "never" => Answer::Reply(400, ""),
        _ if !own.load(Ordering::Relaxed) => Answer::Reply(403, ""),
        _ => Answer::OK,
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[[deliver]]\nname = 'd'\ntopic = 'in/'\nurl = '{}'\nallow = '127.0.0.1'\n\
         secrets = 'whsec_aHVzaGh1c2g='\n",
        target.url("/"),
    );
    let (program, data) = start(folder.path(), &config);
    for body in ["later", "never"] {
        publish(&program, body);
        target.next().await;
    }
    deliveries(&data, |all| all[0]["parked"] == 2);
    let dead = |arguments: &[&str]| {
        let own = ["--deliveries", "--data-dir", &data];
        let output = hookbot(&[&["dead"], arguments, &own].concat());
        (output.status.code().unwrap(), text(&output))
    };
    let (code, listed) = dead(&["list"]);
    assert_eq!(code, 0, "{listed}");
    assert!(
        listed.contains("deliver -> d") && listed.contains("403"),
        "{listed}"
    );

    works.store(true, Ordering::Relaxed);
    let (code, retried) = dead(&["retry", "--all"]);
    assert_eq!(code, 1, "{retried}");
    assert!(retried.contains("1 of 2 were not taken"), "{retried}");
    let again = target.next().await;
    assert_eq!(again.text(), "later");
    // As the server sends it: signed.
    assert!(again.header("webhook-signature").is_some());
    assert_eq!(again.header("hookbot-attempt"), Some("2"));

    drop(program);
    let (code, shown) = dead(&["show", "2"]);
    assert!(code == 0 && shown.ends_with("never\n"), "{shown}");
    assert_eq!(dead(&["retry", "--all"]).0, 4);
    assert_eq!(dead(&["drop", "2"]).0, 0);
    assert_eq!(dead(&["list"]), (0, String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_whose_service_wanted_no_more_goes_on_when_that_is_said() {
    let is_back = Arc::new(AtomicBool::new(false));
    let own = is_back.clone();
    let mut target = Target::with(move |_| match own.load(Ordering::Relaxed) {
        false => Answer::Reply(410, ""),
        true => Answer::OK,
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[[deliver]]\nname = 'd'\ntopic = 'in/'\nurl = '{}'\nallow = '127.0.0.1'\n",
        target.url("/"),
    );
    let (program, data) = start(folder.path(), &config);
    deliveries(&data, |all| all.len() == 1);
    let resume = |name| {
        let output = hookbot(&["deliveries", "resume", name, "--data-dir", &data]);
        (output.status.code().unwrap(), text(&output))
    };
    let refused = |name, reason| {
        let (code, said) = resume(name);
        assert!(code == 1 && said.contains(reason), "{code} {said}");
    };
    refused("d", "d has not ended");
    refused("e", "there is no delivery e");

    publish(&program, "1");
    publish(&program, "2");
    // However often it is said, one who still wants no more is asked once.
    for wants_more in [false, true] {
        assert_eq!(target.next().await.text(), "1");
        deliveries(&data, |all| all[0]["state"] == "gone");
        is_back.store(wants_more, Ordering::Relaxed);
        assert_eq!(resume("d"), (0, "d goes on\n".to_owned()));
    }
    for body in ["1", "2"] {
        assert_eq!(target.next().await.text(), body);
    }
    let all = deliveries(&data, |all| all[0]["delivered"] == 2);
    assert_eq!(all[0]["state"], "running");
}

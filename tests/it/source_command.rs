//! Sources, limits and revoked tokens in a file, as the program takes them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use hookbot_protocol::{Headers, Scope};
use hookbot_signatures::{Provider, Request, Scheme, Secret};

use crate::program::Program;
use crate::support::{Socket, key, token};

fn hookbot(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookbot"));
    command
        .args(arguments)
        .env_remove("HOOKBOT_KEY")
        .output()
        .unwrap()
}

/// What a server tells of its sources, which it does soon after it listens.
fn sources(data: &Path, more: &[&str]) -> String {
    let arguments = ["sources", "--data-dir", data.to_str().unwrap()];
    loop {
        let asked = hookbot(&[&arguments, more].concat());
        match asked.status.code() {
            Some(0) => return String::from_utf8(asked.stdout).unwrap(),
            Some(4) => {}
            _ => panic!("{asked:?}"),
        }
    }
}

/// The program with this configuration, and with data in this folder.
fn start(folder: &Path, config: &str, more: &[&str]) -> Program {
    let file = folder.join("hookbot.toml");
    fs::write(&file, config).unwrap();
    let data = folder.join("data");
    let arguments = [
        "--config",
        file.to_str().unwrap(),
        "--data-dir",
        data.to_str().unwrap(),
    ];
    Program::start(&[&arguments, more].concat())
}

/// Posts as GitHub would, signed with a secret; the status.
async fn post(program: &Program, path: &str, secret: &str) -> u16 {
    let (none, body) = (Headers::default(), b"{}");
    let request = Request {
        method: "POST",
        url: "",
        headers: &none,
        body,
    };
    let scheme = Scheme::from(Provider::Github);
    let signed = scheme
        .sign(&Secret::new(secret).unwrap(), &request, 0)
        .unwrap();
    let mut head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n");
    for (name, value) in signed {
        head += &format!("{name}: {value}\r\n");
    }
    head += "Content-Length: 2\r\n\r\n{}";
    send(program, &head).await
}

async fn send(program: &Program, request: &str) -> u16 {
    use tokio::io::AsyncWriteExt;
    let mut stream = tokio::net::TcpStream::connect(&program.address)
        .await
        .unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let text = crate::support::read_to_end(&mut stream).await;
    crate::support::Reply::parse(&text).status
}

async fn subscribe(program: &Program, token: &str) -> Result<Socket, u16> {
    use tokio_tungstenite::tungstenite::Error;
    let url = format!("ws://{}/sub/t?token={token}", program.address);
    let stream = tokio::net::TcpStream::connect(&program.address)
        .await
        .unwrap();
    match tokio_tungstenite::client_async(url, stream).await {
        Ok((stream, _)) => Ok(Socket(stream)),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

const PATH: &str = "/unsafe/pub/github.com/org/acme";

#[tokio::test]
async fn a_secret_is_rotated_in_the_file_and_the_command_tells_when_the_old_one_can_go() {
    let folder = tempfile::tempdir().unwrap();
    let secret = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, format!("{text}\n")).unwrap();
        format!("file:{}", file.display())
    };
    let (old, new) = (
        secret("old", "canary of yesterday"),
        secret("new", "canary of today"),
    );
    let source = |secrets: &str| {
        format!(
            "[[source]]\nname = 'gh'\ntopic = '/unsafe/github.com/'\nprovider = 'github'\n\
             secrets = [{secrets}]\npromote = 'github.com/'\n"
        )
    };
    let program = start(folder.path(), &source(&format!("'{old}'")), &[]);
    assert_eq!(post(&program, PATH, "canary of yesterday").await, 200);
    assert_eq!(post(&program, PATH, "canary of today").await, 401);

    let both = source(&format!("'{new}', '{old}'"));
    fs::write(folder.path().join("hookbot.toml"), both).unwrap();
    program.hang_up();
    while post(&program, PATH, "canary of today").await != 200 {}
    assert_eq!(post(&program, PATH, "canary of yesterday").await, 200);

    let data = folder.path().join("data");
    let shown = sources(&data, &[]);
    assert!(
        shown.starts_with("gh on /unsafe/github.com/: github\n"),
        "{shown}"
    );
    assert!(
        shown.contains(&format!("secret {new}: matched once since 20")),
        "{shown}"
    );
    assert!(
        shown.contains(&format!("secret {old}: matched 2 times since 20")),
        "{shown}"
    );
    assert!(!shown.contains("canary"), "{shown}");
    let line = sources(&data, &["--json"]);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["source"]["verified"], 3);

    // A file that is wrong, and one whose secret is not there, change nothing.
    for wrong in ["[[source]]\n", &source("'file:/no/such/secret'")] {
        fs::write(folder.path().join("hookbot.toml"), wrong).unwrap();
        program.hang_up();
        assert_eq!(post(&program, PATH, "canary of yesterday").await, 200);
    }
    drop(program);
    let asked = hookbot(&["sources", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(asked.status.code(), Some(4), "{asked:?}");
}

#[tokio::test]
async fn a_listener_is_told_who_verified_a_message_and_why_another_was_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[[source]]\nname = 'gh'\ntopic = '/unsafe/github.com/'\nprovider = 'github'\n\
        secrets = ['right']\non_fail = 'quarantine'\npromote = 'github.com/'\n\
        [[route]]\nname = 'r'\nfrom = 'github.com/'\nto = 'out/{{ body.nope }}'\n";
    let program = start(folder.path(), config, &[]);
    assert_eq!(post(&program, PATH, "right").await, 200);
    assert_eq!(post(&program, PATH, "wrong").await, 200);
    let heard = |path: &str| {
        let url = format!("ws://{}@{}{path}", token("/"), program.address);
        let more = "--json --unsafe-is-ok --after start --count 1 --timeout 30s";
        let arguments = format!("listen {url} {more}");
        let listened = hookbot(&arguments.split(' ').collect::<Vec<_>>());
        assert!(listened.status.success(), "{listened:?}");
        serde_json::from_slice::<serde_json::Value>(&listened.stdout).unwrap()
    };
    let verified = heard("/sub/github.com/org/acme");
    assert_eq!(verified["source"], "gh");
    assert_eq!(verified["verified_by"], "github");
    let refused = heard("/unsafe/sub/quarantine/");
    assert_eq!(refused["topic"], "/unsafe/quarantine/github.com/org/acme");
    assert_eq!(refused["source"], "gh");
    assert_eq!(refused["refused"], "no secret matches");
    assert!(refused["verified_by"].is_null());
    let parked = heard("/unsafe/sub/parked/r");
    assert_eq!(parked["parked_by"], "r");
    assert_eq!(parked["parked_from"], "github.com/org/acme");
    let because = parked["parked_because"].as_str().unwrap();
    assert!(because.contains("body.nope"), "{because}");
    assert_eq!(parked["body"], "{}");
}

#[tokio::test]
async fn a_check_needs_no_secret_and_a_start_does() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[[source]]\ntopic = '/unsafe/a/'\nprovider = 'github'\n\
        secrets = ['env:HOOKBOT_NO_SUCH_SECRET']\n[limits]\ntoken_rate = '5/s'\n";
    let file = folder.path().join("hookbot.toml");
    fs::write(&file, config).unwrap();
    let file = file.to_str().unwrap();
    let checked = hookbot(&["check", file]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    assert!(
        String::from_utf8(checked.stdout)
            .unwrap()
            .ends_with("good, 0 routes, 1 source\n")
    );
    let latin = folder.path().join("latin.toml");
    fs::write(&latin, b"[server]\n# \xfc").unwrap();
    let checked = hookbot(&["check", latin.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(7), "{checked:?}");
    let shown = String::from_utf8(checked.stderr).unwrap();
    assert!(shown.contains("latin.toml:2:3"), "{shown}");
    let start = [
        "serve",
        "--memory",
        "--bind",
        "127.0.0.1:0",
        "--key",
        "k",
        "--config",
        file,
    ];
    let started = hookbot(&start);
    assert!(!started.status.success());
    let shown = String::from_utf8(started.stderr).unwrap();
    assert!(
        shown.contains("cannot use env:HOOKBOT_NO_SUCH_SECRET"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_token_is_revoked_in_the_file_of_the_server_and_in_one_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let named = |name: &str| {
        let scope = Scope::parse("/sub/").unwrap();
        key()
            .mint_named(&scope, &name.parse().unwrap(), None)
            .expose()
    };
    let denied = folder.path().join("denied");
    fs::write(&denied, "").unwrap();
    let deny_file = format!("[tokens]\ndeny_file = '{}'\n", denied.display());
    let program = start(folder.path(), &deny_file, &[]);
    let [mut ada, mut bob] = [named("ada"), named("bob")];
    let mut by_ada = subscribe(&program, &ada).await.unwrap();
    let mut by_bob = subscribe(&program, &bob).await.unwrap();
    fs::write(&denied, "ada\n").unwrap();
    assert_eq!(by_ada.close_code().await, 1008);
    let both = format!("{deny_file}deny = ['bob']\n");
    fs::write(folder.path().join("hookbot.toml"), both).unwrap();
    program.hang_up();
    assert_eq!(by_bob.close_code().await, 1008);
    for token in [&mut ada, &mut bob] {
        assert_eq!(subscribe(&program, token).await.err(), Some(401));
    }
    assert!(subscribe(&program, &token("/sub/t")).await.is_ok());
}

#[tokio::test]
async fn keys_are_read_again_at_a_hang_up() {
    let folder = tempfile::tempdir().unwrap();
    let previous = folder.path().join("previous");
    fs::write(&previous, "the older key\n").unwrap();
    let data = folder.path().join("data");
    let program = Program::start(&[
        "--previous-keys-file",
        previous.to_str().unwrap(),
        "--data-dir",
        data.to_str().unwrap(),
    ]);
    let old = hookbot_protocol::Key::new(b"the older key").unwrap();
    let old = old.mint(&Scope::parse("/sub/t").unwrap());
    let mut socket = subscribe(&program, &old.expose()).await.unwrap();
    let shown = sources(&data, &[]);
    let expected = format!(
        "previous key 1: token {} on \"/sub/t\" from",
        old.fingerprint().short()
    );
    assert!(shown.starts_with(&expected), "{shown}");
    fs::write(&previous, "").unwrap();
    program.hang_up();
    assert_eq!(socket.close_code().await, 1008);
    assert_eq!(subscribe(&program, &old.expose()).await.err(), Some(401));
    assert!(subscribe(&program, &token("/sub/t")).await.is_ok());
}

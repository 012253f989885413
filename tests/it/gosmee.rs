//! What gosmee's users bring along: their variables, their client's place, and how they get a
//! channel.

use std::fs;
use std::path::Path;
use std::process::Output;

use tokio::process::Command;
use tokio::time::timeout;

use crate::foreign_channels::{Answer, EVENTS, GOSMEE, NO_VERSION, Then, VERSION, serve};
use crate::forward_stage::{Act, Service, Stage};
use crate::support::PATIENCE;

async fn client(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookbot"));
    let running = command
        .arg("client")
        .args(arguments)
        .envs(environment.iter().copied())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, running).await;
    output.expect("it does not end").unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8([&*output.stdout, &output.stderr].concat()).unwrap()
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gosmees_variables_count_where_nothing_else_is_said() {
    let stage = Stage::new().await;
    let (service, url) = Service::start(|_| Act::Answer(503)).await;
    stage.publish("a/b", "{}").await;
    let (saved, elsewhere) = (stage.path("saved"), stage.path("elsewhere"));
    let theirs = [
        ("GOSMEE_URL", &*stage.url("/sub/a/")),
        ("GOSMEE_TARGET_URL", &url),
        ("GOSMEE_TARGET_RETRIES", "1"),
        ("GOSMEE_TARGET_TIMEOUT", "3"),
        ("GOSMEE_SAVEDIR", saved.to_str().unwrap()),
        ("GOSMEE_EXEC", "echo they want $WANTED"),
        ("GOSMEE_EXEC_ENV_VARS", "OTHER,WANTED"),
        ("GOSMEE_LOG_LEVEL", "debug"),
        ("GOSMEE_SSE_BUFFER_SIZE", "4096"),
        ("GOSMEE_CONFIG", "/nowhere"),
        ("GOSMEE_RESUME_STATE_FILE", ""),
        ("WANTED", "this"),
        ("RUST_LOG", ""),
        ("NO_COLOR", ""),
        ("CLICOLOR_FORCE", "1"),
    ];
    let begin = ["--no-state", "--after", "start", "--count", "1"];
    let output = client(&begin, &theirs).await;
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!((service.seen().len(), files(&saved)), (2, 3), "{text}");
    for part in [
        "they want this\n",
        "DEBUG",
        "\u{1b}[",
        "GOSMEE_CONFIG is not heeded here",
    ] {
        assert!(text.contains(part), "{part} {text}");
    }

    let ours = [
        ("HOOKBOT_RETRIES", "0"),
        ("HOOKBOT_EXEC", "echo we want $WANTED"),
        ("HOOKBOT_EXEC_ENV", "OTHER"),
    ];
    let save = ["--save", elsewhere.to_str().unwrap()];
    let plain = ["--log-level", "warn", "--nocolor"];
    let output = client(
        &[&begin[..], &save, &plain].concat(),
        &[&theirs[..], &ours].concat(),
    )
    .await;
    let text = said(&output);
    assert_eq!((service.seen().len(), files(&elsewhere)), (3, 3), "{text}");
    assert!(
        text.contains("we want\n") && !text.contains("DEBUG") && !text.contains('\u{1b}'),
        "{text}"
    );
    assert_eq!(files(&saved), 3);
}

#[tokio::test]
async fn a_file_of_gosmees_is_refused_rather_than_ignored() {
    let channel = ["http://127.0.0.1:1/abc", "http://127.0.0.1:1/"];
    let output = client(&[&["-F", "config.yaml"], &channel[..]].concat(), &[]).await;
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("docs/moving.md"), "{text}");
    // A channel knows no times and no cursors, and smee encrypts nothing.
    for (wrong, reason) in [
        (&["--since", "1h"][..], "a channel knows no times"),
        (&["--after", "start"], "is no place in a channel"),
        (
            &["--source-kind", "smee", "--encryption-key-file", "x"],
            "is for channels of gosmee servers",
        ),
    ] {
        let output = client(&[wrong, &channel].concat(), &[]).await;
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(reason), "{text}");
    }
}

#[tokio::test]
async fn it_goes_on_where_gosmees_client_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (file, saved) = (path("resume.state"), path("saved"));
    let ask = || Answer::new(VERSION, "{}", Then::End);
    let events = |events: &str| Answer::new(EVENTS, events, Then::Silence);
    let next = "id: 1769862600008-0\ndata: {\"bodyB\":\"\"}\n\n";
    let (address, mut heads) = serve(vec![ask(), events(GOSMEE), ask(), events(next)]).await;
    let channel = format!("http://{address}/some-channel");
    let arguments = ["--count", "1", "--save", &saved, &channel];
    let variable = [("GOSMEE_RESUME_STATE_FILE", &*file)];

    fs::write(&file, "not-a-stream-id\n").unwrap();
    let output = client(&arguments, &variable).await;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));

    // From its place the first time, and from ours from then on.
    fs::write(&file, "1700000000000-7\n").unwrap();
    for place in ["1700000000000-7", "1769862600007-0"] {
        let output = client(&arguments, &variable).await;
        assert!(output.status.success(), "{}", said(&output));
        heads.recv().await.unwrap();
        let head = heads.recv().await.unwrap();
        assert!(
            head.contains(&format!("last-event-id: {place}\r\n")),
            "{head}"
        );
    }
}

#[tokio::test]
async fn a_new_channel_is_a_line_and_nothing_else() {
    let to = "HTTP/1.1 307 Temporary\r\nLocation: https://smee.example/abc\r\n";
    let said_so = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
    for (answer, code, out) in [
        (
            Answer::new(to, "", Then::End),
            0,
            "https://smee.example/abc\n",
        ),
        (
            Answer::new(said_so, "http://h/AbcDef\n", Then::End),
            0,
            "http://h/AbcDef\n",
        ),
        (Answer::new(NO_VERSION, "<html>", Then::End), 3, ""),
        (Answer::new("HTTP/1.1 404 No\r\n", "", Then::End), 3, ""),
    ] {
        let (address, mut heads) = serve(vec![answer]).await;
        let output = client(&["-u", &format!("http://{address}/base")], &[]).await;
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), out);
        assert!(heads.recv().await.unwrap().starts_with("GET /base/new "));
    }
    let output = client(&["--new-url"], &[]).await;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

#[tokio::test]
async fn a_variable_that_a_backfill_does_not_know_is_warned_about() {
    let output = Command::new(env!("CARGO_BIN_EXE_hookbot"))
        .args(["replay", "github", "acme/site", "--list-hooks"])
        .env_clear()
        .env("GOSMEE_TARGET_TIMEOUT", "3")
        .output();
    let output = timeout(PATIENCE, output).await.expect("it ends").unwrap();
    let text = said(&output);
    // For want of a token.
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("GOSMEE_TARGET_TIMEOUT is not heeded here"),
        "{text}"
    );
}

//! How commands end that are not served by anybody.

use std::fs::{File, read_to_string};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{PATIENCE, TestServer, token};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookbot"));
    command.args(arguments).stdin(Stdio::null());
    command.kill_on_drop(true);
    command
}

#[tokio::test]
async fn what_is_interrupted_is_not_done() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = |path| format!("http://{}{path}", silent.local_addr().unwrap());
    let (publish, listen) = (url("/pub/t"), url("/sub/t"));
    for (arguments, code) in [
        (&["publish", &publish][..], 130),
        (&["listen", "--count", "1", &listen], 130),
        // It never is, so this is its end.
        (&["listen", &listen], 0),
    ] {
        let mut child = command(arguments).spawn().unwrap();
        let accepted = timeout(PATIENCE, silent.accept()).await.unwrap();
        let (mut stream, _) = accepted.unwrap();
        // Once it has asked, it waits for the answer, and for signals as well.
        stream.read_u8().await.unwrap();
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
        let ended = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
        assert_eq!(ended.code(), Some(code), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_script_that_nobody_reads_is_no_failure_and_one_that_has_no_room_is() {
    let completion = || command(&["completion", "bash"]);
    let mut unread = completion();
    let mut child = unread.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().await.unwrap().code(), Some(0));

    let mut full = completion();
    full.stdout(File::create("/dev/full").unwrap());
    let output = full.stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().await.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot write to standard output"), "{told}");
}

#[tokio::test]
async fn a_command_that_has_ended_is_not_waited_for_though_its_input_is_held() {
    let server = TestServer::start().await;
    server.publish("t", &"x".repeat(1 << 20)).await;
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let leaving = format!("exec 3<&0; sleep 1000 <&3 & echo $! > {}", pid.display());
    let url = format!("http://{}@{}/sub/t", token("/sub/t"), server.address);
    let once = [
        "listen", "--after", "start", "--count", "1", "--exec", &leaving, &url,
    ];
    let ended = timeout(PATIENCE, command(&once).status()).await;
    let left = read_to_string(&pid).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(left).unwrap(), Signal::KILL).unwrap();
    assert_eq!(ended.expect("an end").unwrap().code(), Some(0));
}

//! The configuration file, as the program reads it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use crate::program::Program;
use crate::support::{PATIENCE, token};

/// Runs `hookbot` to its end, with something to read, and without a key.
fn hookbot(arguments: &[&str], typed: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hookbot"))
        .args(arguments)
        .env_remove("HOOKBOT_KEY")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that fails early does not read it.
    let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

/// A folder with a configuration in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn with(config: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write(config);
        folder
    }

    fn write(&self, config: &str) {
        fs::write(self.config(), config).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("hookbot.toml")
    }

    /// The program, with this configuration and with data in this folder.
    fn start(&self, arguments: &[&str]) -> Program {
        let config = self.config();
        let config = ["--config", config.to_str().unwrap()];
        self.start_without(&[&config, arguments].concat())
    }

    fn start_without(&self, arguments: &[&str]) -> Program {
        let data = self.0.path().join("data");
        let data = ["--data-dir", data.to_str().unwrap()];
        Program::start(&[&data, arguments].concat())
    }
}

fn publish(program: &Program, topic: &str, body: &str) -> Output {
    let token = token("/pub/");
    let url = format!("http://{token}@{}/pub/{topic}", program.address);
    hookbot(&["publish", &url], body)
}

/// The first messages below a prefix.
fn listen(program: &Program, prefix: &str, count: usize) -> String {
    let token = token("/sub/");
    let url = format!("ws://{token}@{}/sub/{prefix}", program.address);
    let count = count.to_string();
    let output = hookbot(
        &[
            "listen",
            "--after",
            "start",
            "--timeout",
            "30s",
            "--count",
            &count,
            &url,
        ],
        "",
    );
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout).to_owned()
}

fn route(to: &str) -> String {
    format!("[[route]]\nname = 'r'\nfrom = 'in/'\nto = '{to}'\n")
}

fn check(file: &Path) -> Output {
    hookbot(&["check", file.to_str().unwrap()], "")
}

#[test]
fn a_check_needs_no_key_and_shows_every_mistake_in_its_line() {
    let folder = Folder::with(&route("out/x"));
    let good = check(&folder.config());
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    assert!(text(&good.stdout).ends_with("hookbot.toml: good, 1 route\n"));

    folder.write("[server]\nmax_bodie = \"1MiB\"\n\n[[route]]\nname = \"r\"\nfrom = \"in/\"\nto = \"in/x\"\n");
    let wrong = check(&folder.config());
    assert_eq!(wrong.status.code(), Some(7), "{wrong:?}");
    let shown = text(&wrong.stderr);
    for expected in [
        "unknown key `max_bodie`",
        "hookbot.toml:2:1\n",
        "2 | max_bodie = ...\n",
        "  | ^^^^^^^^^ did you mean `max_body`?\n",
        "route `r` publishes what it reads",
        "7 | to = \"in/x\"\n  |      ^^^^^^\n",
    ] {
        assert!(shown.contains(expected), "{expected}\n{shown}");
    }
    let nowhere = check(&folder.0.path().join("nowhere"));
    assert_eq!(nowhere.status.code(), Some(2), "{nowhere:?}");
}

#[test]
fn a_server_does_not_start_with_a_wrong_file() {
    let folder = Folder::with(&route("in/x"));
    let config = folder.config();
    let serve = |more: &[&str]| {
        let config = config.to_str().unwrap();
        let arguments = ["serve", "--memory", "--bind", "127.0.0.1:0", "--key", "k"];
        hookbot(&[&arguments[..], &["--config", config], more].concat(), "")
    };
    let refused = serve(&[]);
    assert_eq!(refused.status.code(), Some(7), "{refused:?}");
    folder.write("[[route]]\nname = 'github'\npreset = 'github'");
    let refused = serve(&[]);
    assert_eq!(refused.status.code(), Some(7), "{refused:?}");
    let said = text(&refused.stderr);
    assert!(
        said.contains("HOOKBOT_GITHUB_SECRET") && said.contains("[[source]]"),
        "{said}"
    );
    let refused = serve(&["--router", "github", "--github-secret", "s"]);
    assert_eq!(refused.status.code(), Some(7), "{refused:?}");
    assert!(text(&refused.stderr).contains("--router"));
}

#[test]
fn a_flag_wins_over_the_file() {
    let folder = Folder::with("[server]\nmax_body = '10B'");
    let long = "more than ten bytes";
    let refused = publish(&folder.start(&[]), "t", long);
    assert!(text(&refused.stderr).contains("413"), "{refused:?}");
    let taken = publish(&folder.start(&["--max-body", "1MiB"]), "t", long);
    assert!(taken.status.success(), "{taken:?}");
}

#[test]
fn routes_change_with_the_file_and_on_a_hang_up() {
    let folder = Folder::with(&route("out/1"));
    let program = folder.start(&[]);
    let next = |count: usize| {
        publish(&program, "in/x", "");
        listen(&program, "out/", count)
    };
    assert_eq!(next(1), "out/1\t\n");
    // Each is told of the change in its own way, and some time later.
    let mut count = 1;
    let mut until = |topic: &str| {
        let began = Instant::now();
        loop {
            count += 1;
            if next(count).ends_with(&format!("{topic}\t\n")) {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{topic}");
        }
    };
    // As long and as old as before: only who is told can know.
    let as_old = fs::metadata(folder.config()).unwrap().modified().unwrap();
    folder.write(&route("out/2"));
    let file = fs::File::options().write(true).open(folder.config());
    file.unwrap().set_modified(as_old).unwrap();
    program.hang_up();
    until("out/2");
    folder.write(&route("out/3"));
    until("out/3");
    folder.write("[[");
    program.hang_up();
    until("out/3");
}

#[test]
fn a_route_goes_on_where_it_was_by_its_name() {
    let folder = Folder::with(&route("out/x"));
    let program = folder.start(&[]);
    publish(&program, "in/x", "1");
    assert_eq!(listen(&program, "out/", 1), "out/x\t1\n");
    drop(program);
    let program = folder.start_without(&[]);
    publish(&program, "in/x", "2");
    drop(program);
    let program = folder.start(&[]);
    publish(&program, "in/x", "3");
    let all = listen(&program, "out/", 3);
    assert_eq!(all, "out/x\t1\nout/x\t2\nout/x\t3\n");
    drop(program);
    // A control: another one begins with what is published now.
    folder.write(&route("other/x").replace("'r'", "'s'"));
    let program = folder.start(&[]);
    publish(&program, "in/x", "4");
    assert_eq!(listen(&program, "other/", 1), "other/x\t4\n");
}

#[test]
fn a_test_tells_what_each_route_would_do_with_an_event() {
    let folder = Folder::with(
        r#"
        [[route]]
        name = "copy"
        from = "in/"
        to = ["out/{{ body.n }}", "log/{{ headers['x-n'] }}"]
        body = "{{ method }} {{ query.q }}"

        [[route]]
        name = "picky"
        from = "in/"
        when = "body.n > 1"
        to = "out/x"

        [[route]]
        name = "other"
        from = "elsewhere"
        to = "out/x"

        [[route]]
        name = "strange"
        from = "/unsafe/in/"
        to = "out/{{ verified_by }}"
        "#,
    );
    let test = |more: &[&str], event: &str| {
        let config = folder.config();
        let arguments = ["route", "test", config.to_str().unwrap()];
        let output = hookbot(&[&arguments, more].concat(), event);
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout).to_owned()
    };
    let event = r#"{"topic":"in/x","method":"POST","query":"q=%C3%BC","headers":[["x-n","a"]],"body":"{\"n\":1}"}"#;
    assert_eq!(
        test(&[], event),
        "copy: publishes on out/1: POST ü\n\
         copy: publishes on log/a: POST ü\n\
         picky: does nothing, the condition does not hold\n\
         other: does nothing, it is on another topic\n\
         strange: does nothing, it is on another topic\n"
    );
    let parked = test(&[], r#"{"topic":"in/x","body":"{\"n\":2}"}"#);
    assert!(parked.starts_with("copy: parks it on /unsafe/parked/copy: to: undefined value"));
    assert!(
        parked.contains("picky: publishes on out/x: {\"n\":2}\n"),
        "{parked}"
    );
    let event = r#"{"topic":"/unsafe/in/x"}"#;
    assert!(test(&[], event).ends_with("strange: does nothing, it is not verified\n"));
    let verified = test(&["--verified-by", "stripe", "--json"], event);
    let last: serde_json::Value = serde_json::from_str(verified.lines().last().unwrap()).unwrap();
    assert_eq!(last["publications"][0]["topic"], "out/stripe");
}

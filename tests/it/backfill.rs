//! `hookbot replay github` and `gitlab`: what a stand-in for their APIs says, sent to servers.

use std::ops::RangeInclusive;
use std::process::Output;
use std::time::Duration;

use hookbot::server::{Rules, Source, SourceSecret, Sources};
use hookbot_protocol::{Filter, Headers, Keys};
use hookbot_signatures::{Provider, Request, Scheme, Secret};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

use crate::api_stand_in::{Fault, Sent, StandIn, TOKEN};
use crate::support::{Options, PATIENCE, TestServer, key, token};

/// What webhooks are signed with.
pub(crate) const SECRET: &str = "the-canary-of-a-webhook";

/// Deliveries of these numbers: d1 and so on.
pub(crate) fn numbered(numbers: RangeInclusive<u64>) -> Vec<Sent> {
    numbers.map(|n| Sent::new(n, &format!("d{n}"), n)).collect()
}

/// The program, with the API and its token where it looks for them.
fn command(api: &StandIn, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookbot"));
    command
        .args(arguments)
        .env_clear()
        .env("GITHUB_API_URL", api.url())
        .env("CI_API_V4_URL", api.url())
        .env("GITHUB_TOKEN", TOKEN)
        .env("GITLAB_TOKEN", TOKEN)
        .env("HOOK_SECRET", SECRET)
        .kill_on_drop(true);
    command
}

/// Runs it to its end. Nothing that it prints has a secret in it.
pub(crate) async fn hookbot(api: &StandIn, arguments: &[&str]) -> Output {
    let run = timeout(PATIENCE, command(api, arguments).output()).await;
    let output = run.expect("it ends").unwrap();
    let printed = [&*output.stdout, &*output.stderr].concat();
    let printed = String::from_utf8(printed).unwrap();
    for secret in [TOKEN, SECRET, &token("/")] {
        assert!(
            !printed.contains(secret),
            "a secret was printed:\n{printed}"
        );
    }
    output
}

/// The URL of a path of the server, with a token for everything.
pub(crate) fn url(server: &TestServer, path: &str) -> String {
    format!("http://{}@{}{path}", token("/"), server.address)
}

/// A server that publishes a delivery only once.
pub(crate) async fn deduplicating() -> TestServer {
    TestServer::start_with(Options::settings(|settings| {
        settings.deduplicate = Some(Duration::from_secs(3_600));
        settings.ping_interval = Duration::from_millis(100);
    }))
    .await
}

pub(crate) fn lines(output: &Output) -> Vec<String> {
    let text = str::from_utf8(&output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn objects(output: &Output) -> Vec<Value> {
    let lines = lines(output);
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

/// A payload that GitHub signed in its compact form, and that the API shows in another.
pub(crate) fn signed(sent: Sent) -> Sent {
    let none = Headers::default();
    let request = Request {
        method: "POST",
        url: "",
        headers: &none,
        body: sent.payload.as_bytes(),
    };
    let secret = Secret::new(SECRET).unwrap();
    let headers = Scheme::from(Provider::Github).sign(&secret, &request, 0);
    Sent {
        headers: headers.unwrap(),
        ..sent
    }
}

/// What was published on a topic, in order.
pub(crate) async fn published(server: &TestServer, topic: &str, number: usize) -> Vec<String> {
    let mut socket = server.subscribe(&format!("/sub/{topic}?after=start")).await;
    let mut payloads = Vec::new();
    while payloads.len() < number {
        payloads.push(socket.next().await);
    }
    // Whatever else there may be comes before this.
    assert_eq!(server.publish(topic, "the end").await.status, 200);
    assert_eq!(socket.next().await, "the end");
    payloads
}

#[tokio::test]
async fn what_github_has_sent_is_published_oldest_first_and_only_once() {
    let api = StandIn::start().await;
    let sent: Vec<_> = numbered(1..=130).into_iter().map(signed).collect();
    api.state().sent = sent.clone();
    api.state().sent.push(Sent {
        is_repeated: true,
        ..signed(Sent::new(131, "d5", 131))
    });
    api.state().hooks = vec![serde_json::json!({ "id": 7, "config": { "url": "https://x/" } })];
    let server = deduplicating().await;
    let target = url(&server, "/pub/site");
    let arguments = [
        "replay",
        "github",
        "acme/site",
        &target,
        "--secret",
        "env:HOOK_SECRET",
    ];
    for _ in 0..2 {
        let output = hookbot(&api, &arguments).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(lines(&output).len(), 130);
        assert!(
            lines(&output)[0].ends_with("d1  200 OK, signature verified"),
            "{output:?}"
        );
    }
    let payloads = published(&server, "site", 130).await;
    // The fifth is as its newest attempt had it.
    let mut expected: Vec<_> = sent.iter().map(|sent| sent.payload.clone()).collect();
    expected[4] = r#"{"n":131,"text":"<&>"}"#.to_owned();
    assert_eq!(payloads, expected);
}

#[tokio::test]
async fn only_what_is_meant_is_listed_and_sent() {
    let api = StandIn::start().await;
    let failed = |sent| Sent {
        status: 502,
        ..sent
    };
    api.state().sent = vec![
        failed(Sent::new(1, "old", 10)),
        Sent {
            event: "ping",
            ..failed(Sent::new(2, "ping", 20))
        },
        failed(Sent::new(3, "never", 30)),
        Sent {
            event: "issues",
            ..failed(Sent::new(4, "other", 40))
        },
        failed(Sent::new(5, "later", 50)),
        Sent::new(6, "taken", 60),
        Sent {
            is_repeated: true,
            ..Sent::new(7, "later", 70)
        },
    ];
    for (more, deliveries) in [
        (&[][..], &["old", "never", "other", "later", "taken"][..]),
        (
            &["--since", "2026-01-31T00:00:20Z"],
            &["never", "other", "later", "taken"],
        ),
        // As gosmee spells it.
        (
            &["-T", "2026-01-31T00:00:20"],
            &["never", "other", "later", "taken"],
        ),
        (&["--failed"], &["old", "never", "other"]),
        (
            &["--failed", "--event", "issues", "--event", "ping"],
            &["ping", "other"],
        ),
        (&["--since", "1s"], &[]),
    ] {
        let arguments = [
            "replay",
            "github",
            "acme",
            "7",
            "--list-deliveries",
            "--json",
        ];
        let output = hookbot(&api, &[&arguments[..], more].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let objects = objects(&output);
        let found: Vec<_> = objects
            .iter()
            .map(|object| object["delivery"].as_str().unwrap())
            .collect();
        assert_eq!(found, deliveries, "{more:?}");
    }
    assert!(api.state().asked.iter().all(|asked| asked.method == "GET"));
    let asked = api.targets();
    assert!(
        asked
            .iter()
            .all(|target| target.starts_with("/orgs/acme/hooks/7/deliveries?"))
    );
}

#[tokio::test]
async fn a_source_that_verifies_takes_what_verifies_or_is_signed_again() {
    let api = StandIn::start().await;
    let genuine = signed(Sent::new(1, "genuine", 1));
    let changed = Sent {
        payload: r#"{"n":2}"#.to_owned(),
        ..signed(Sent::new(2, "changed", 2))
    };
    api.state().sent = vec![genuine.clone(), changed.clone()];
    let server = TestServer::start_with(Options::settings(|settings| {
        let secret = SourceSecret::new("env:S", SECRET.as_bytes().to_vec()).unwrap();
        let source = Source {
            scheme: Some(Provider::Github.into()),
            secrets: vec![secret],
            ..Source::new(Filter::parse("/unsafe/site").unwrap())
        };
        settings.rules = Rules {
            sources: Sources::new(vec![source]).unwrap(),
            ..Rules::new(Keys::new(key()))
        };
    }))
    .await;
    let target = format!("http://{}/unsafe/pub/site", server.address);
    let arguments = [
        "replay",
        "github",
        "acme/site",
        "7",
        &target,
        "--json",
        "--secret",
        "env:HOOK_SECRET",
    ];
    let output = hookbot(&api, &arguments).await;
    // The second one is refused, and said to be.
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let told = objects(&output);
    let signatures: Vec<_> = told
        .iter()
        .map(|one| (&one["answer"], &one["signature"]))
        .collect();
    assert_eq!(
        signatures,
        [
            (&200.into(), &"verified".into()),
            (&401.into(), &"unverified".into())
        ]
    );

    let output = hookbot(&api, &[&arguments[..], &["--resign"]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let mut socket = server.subscribe("/unsafe/sub/site?after=start").await;
    for payload in [&genuine, &genuine, &changed].map(|sent| &sent.payload) {
        assert_eq!(socket.next().await, *payload);
    }
}

#[tokio::test]
async fn what_is_lost_is_told_and_does_not_hold_up_the_rest() {
    let api = StandIn::start().await;
    api.state().sent = numbered(1..=3);
    api.state().gone = [2].into();
    let server = deduplicating().await;
    let target = url(&server, "/pub/site");
    let output = hookbot(&api, &["replay", "github", "acme/site", "7", &target]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        lines(&output)[1].ends_with("lost: GitHub no longer has it"),
        "{output:?}"
    );
    assert!(stderr(&output).contains("2 sent, 1 lost"), "{output:?}");
    assert_eq!(published(&server, "site", 2).await.len(), 2);
}

#[tokio::test]
async fn a_target_that_takes_nothing_ends_it() {
    let api = StandIn::start().await;
    api.state().sent = numbered(1..=3);
    let server = TestServer::start().await;
    let target = format!("http://wrong@{}/pub/site", server.address);
    let output = hookbot(&api, &["replay", "github", "acme/site", "7", &target]).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(
        stderr(&output).contains("the target refused with 401"),
        "{output:?}"
    );
    assert_eq!(lines(&output).len(), 1);
}

#[tokio::test]
async fn any_service_is_a_target_and_gets_the_headers_as_they_were() {
    let api = StandIn::start().await;
    api.state().sent = vec![signed(Sent::new(1, "d1", 1))];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}/webhooks?a=b", listener.local_addr().unwrap());
    let arguments = ["replay", "github", "acme/site", "7", &target];
    let received = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = String::new();
        while !text.ends_with('}') {
            text.push(stream.read_u8().await.unwrap().into());
        }
        stream.write_all(b"HTTP/1.1 204 x\r\n\r\n").await.unwrap();
        text
    };
    let (output, received) = tokio::join!(hookbot(&api, &arguments), received);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        received.starts_with("POST /webhooks?a=b HTTP/1.1\r\n"),
        "{received}"
    );
    for header in [
        "x-github-event: push",
        "x-github-delivery: d1",
        "user-agent: GitHub-Hookshot/044aadd",
        "content-type: application/json",
    ] {
        assert!(
            received.contains(&format!("\r\n{header}\r\n")),
            "{header}\n{received}"
        );
    }
    assert!(
        received.contains("\r\nx-hub-signature-256: sha256="),
        "{received}"
    );
    assert!(
        received.ends_with("\r\n\r\n{\"n\":1,\"text\":\"<&>\"}"),
        "{received}"
    );
}

#[tokio::test]
async fn new_deliveries_are_followed_and_old_ones_left_alone() {
    let api = StandIn::start().await;
    // More than a page, so that there is something behind it that was never seen.
    api.state().sent = numbered(1..=250);
    let server = TestServer::start().await;
    let target = url(&server, "/pub/site");
    let arguments = [
        "replay",
        "github",
        "acme/site",
        "7",
        &target,
        "--follow",
        "--interval",
        "20ms",
        "--json",
    ];
    let mut child = command(&api, &arguments)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
    let polled = |times: usize| {
        let api = &api;
        async move {
            let seen = api.targets().len();
            while api.targets().len() < seen + times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    timeout(PATIENCE, polled(3)).await.unwrap();
    for n in 251..=253 {
        let new = Sent::new(n, &format!("d{n}"), n);
        api.state().sent.push(new.clone());
        let line = timeout(PATIENCE, told.next_line()).await.unwrap();
        let told: Value = serde_json::from_str(&line.unwrap().unwrap()).unwrap();
        assert_eq!(told["delivery"], new.delivery);
        // Once more, by somebody's hand.
        let again = Sent {
            id: n + 1_000,
            is_repeated: true,
            ..new
        };
        api.state().sent.push(again);
        timeout(PATIENCE, polled(3)).await.unwrap();
    }
    child.kill().await.unwrap();
    assert_eq!(told.next_line().await.unwrap(), None);
    assert_eq!(published(&server, "site", 3).await.len(), 3);
}

#[tokio::test]
async fn a_provider_delivers_again_what_it_is_asked_to() {
    let api = StandIn::start().await;
    api.state().sent = vec![
        Sent {
            status: 500,
            ..Sent::new(1, "a", 1)
        },
        Sent::new(2, "b", 2),
        Sent {
            status: 500,
            ..Sent::new(3, "c", 3)
        },
    ];
    let arguments = ["replay", "--failed", "--redeliver"];
    for (provider, account, paths) in [
        (
            "github",
            "acme/site",
            ["deliveries/1/attempts", "deliveries/3/attempts"],
        ),
        (
            "gitlab",
            "acme/web/site",
            ["events/1/resend", "events/3/resend"],
        ),
    ] {
        let mut arguments = arguments.to_vec();
        arguments.insert(1, provider);
        arguments.extend([account, "7"]);
        let output = hookbot(&api, &arguments).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(
            lines(&output)
                .iter()
                .all(|line| line.ends_with("asked for again"))
        );
        let state = api.state();
        let posts = state.asked.iter().filter(|asked| asked.method == "POST");
        let posts: Vec<_> = posts.map(|asked| asked.target.clone()).collect();
        assert!(posts[posts.len() - 2].ends_with(paths[0]), "{posts:?}");
        assert!(posts[posts.len() - 1].ends_with(paths[1]), "{posts:?}");
    }
}

#[tokio::test]
async fn one_that_is_too_old_to_be_delivered_again_does_not_hold_up_the_rest() {
    let api = StandIn::start().await;
    api.state().sent = numbered(1..=3);
    let arguments = [
        "replay",
        "github",
        "acme/site",
        "7",
        "--redeliver",
        "--json",
    ];
    for (too_old, code, told) in [(2, 1, 3), (1, 3, 0)] {
        api.state().too_old = [too_old].into();
        let output = hookbot(&api, &arguments).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(lines(&output).len(), told, "{output:?}");
    }
}

#[tokio::test]
async fn webhooks_are_listed_without_the_tokens_in_their_urls() {
    let api = StandIn::start().await;
    let hook = |id, url: &str| serde_json::json!({ "id": id, "active": true, "events": ["push"], "config": { "url": url } });
    let with_token = format!("https://{}@hooks.example.com/pub/a", token("/"));
    let with_query = format!("https://hooks.example.com/pub/a?token={}", token("/"));
    api.state().hooks = vec![hook(7, &with_token), hook(8, &with_query)];
    let base = ["replay", "github", "acme/site"];
    let output = hookbot(&api, &[&base[..], &["--list-hooks"]].concat()).await;
    let expected = [
        "7  https://***@hooks.example.com/pub/a  push",
        "8  https://hooks.example.com/pub/a?token=***  push",
    ];
    assert_eq!(lines(&output), expected);
    // Which one is meant has to be said.
    let output = hookbot(&api, &[&base[..], &["-D"]].concat()).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains(expected[0]), "{output:?}");
}

#[tokio::test]
async fn gitlabs_events_are_sent_with_the_token_that_it_does_not_show() {
    let api = StandIn::start().await;
    api.state().sent = numbered(1..=45);
    let server = deduplicating().await;
    let target = url(&server, "/pub/site");
    let arguments = [
        "replay",
        "gitlab",
        "acme/web/site",
        "7",
        &target,
        "--resign",
        "--secret",
        "env:HOOK_SECRET",
    ];
    let mut events = server.subscribe("/sub/site?after=start").await;
    let output = hookbot(&api, &arguments).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        lines(&output)
            .iter()
            .all(|line| line.ends_with("signed again")),
        "{output:?}"
    );
    for n in 1..=45 {
        assert_eq!(events.next().await, format!(r#"{{"n":{n},"text":"<&>"}}"#));
    }
}

#[tokio::test]
async fn nothing_that_goes_wrong_prints_a_secret() {
    let api = StandIn::start().await;
    let api_url = api.url();
    let target = format!("http://{}@127.0.0.1:9/pub/x", token("/"));
    for (faults, arguments, code) in [
        (
            vec![Fault::Echo],
            &["github", "acme/site", "7", "--list-deliveries"][..],
            3,
        ),
        (
            vec![Fault::Answer(200, vec![], TOKEN.to_owned())],
            &["gitlab", "a/b", "7", "--list-deliveries"],
            1,
        ),
        (vec![], &["github", "acme/site", &target, &target], 2),
        (
            vec![],
            &["github", "acme/site", "7", &target, "--secret", SECRET],
            2,
        ),
        (vec![], &["github", "no/such/name", "--list-hooks"], 2),
        (vec![], &["github", "--list-hooks"], 2),
        (vec![], &["github", &target], 2),
        (vec![], &["gitlab", &target], 2),
        (vec![], &["gitlab", "acme/web/site", "7"], 2),
        (vec![], &["gitlab", "--list-hooks", &target], 2),
    ] {
        api.state().faults = faults.into();
        let mut all = vec!["replay", arguments[0], "--api-url", &api_url];
        all.extend(&arguments[1..]);
        let run = timeout(
            PATIENCE,
            command(&api, &all).env("RUST_LOG", "trace").output(),
        );
        let output = run.await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        for secret in [TOKEN, &token("/")] {
            assert!(!printed.contains(secret), "{printed}");
        }
        // What was typed where it does not belong can't be kept from being seen.
        assert!(
            !printed.contains(SECRET) || arguments.contains(&SECRET),
            "{printed}"
        );
    }
}

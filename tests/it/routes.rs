use std::fs;
use std::path::Path;

use hookbot_protocol::{Headers, Publication, Topic};
use hookbot_signatures::{Provider, Request, Scheme, Secret};

use crate::metrics::{metrics, value};
use crate::support::{Options, TestServer};

/// A folder with a configuration, and a server that does what it says.
async fn with(config: &str) -> (tempfile::TempDir, TestServer) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hookbot.toml");
    fs::write(&file, config).unwrap();
    let options = Options {
        config: Some(file),
        ..Options::default()
    };
    (folder, TestServer::start_with(options).await)
}

/// Writes another configuration and has the server read it.
async fn reload(server: &TestServer, folder: &Path, config: &str) {
    fs::write(folder.join("hookbot.toml"), config).unwrap();
    let configuration = server.configuration.as_ref().unwrap();
    configuration.reload().await;
}

fn route(name: &str, from: &str, to: &str) -> String {
    format!("[[route]]\nname = '{name}'\nfrom = '{from}'\nto = '''{to}'''\nunverified = true\n")
}

#[tokio::test]
async fn one_hook_becomes_a_topic_a_branch() {
    let config = r#"
        [[route]]
        name = "branches"
        from = "/unsafe/github.com/"
        unverified = true
        when = 'body.ref.startswith("refs/heads/")'
        to = "github.com/repo/{{ body.repository.full_name }}/branch/{{ body.ref[11:] }}"
    "#;
    let (_folder, server) = with(config).await;
    let mut all = server.subscribe("/sub/github.com/").await;
    for reference in ["refs/tags/v1", "refs/heads/fix/a", "refs/heads/main"] {
        let body = format!(r#"{{"ref":"{reference}","repository":{{"full_name":"acme/site"}}}}"#);
        let line = "POST /unsafe/pub/github.com/org/acme";
        assert_eq!(server.request(line, &[], body.as_bytes()).await.status, 200);
    }
    for branch in ["fix/a", "main"] {
        let topic = format!("github.com/repo/acme/site/branch/{branch}\0");
        let message = all.next().await;
        assert!(message.starts_with(&topic), "{message}");
    }
}

#[tokio::test]
async fn only_what_a_source_has_verified_is_routed() {
    let (folder, server) = with("").await;
    let config = r#"
        [[source]]
        topic = "/unsafe/github.com/"
        provider = "github"
        secrets = ["a hook's secret"]
        on_fail = "quarantine"

        [[route]]
        name = "branches"
        from = "/unsafe/"
        when = 'body.ref.startswith("refs/heads/")'
        to = "github.com/repo/{{ body.repository.full_name }}/branch/{{ body.ref[11:] }}"
        body = "{{ verified_by }} {{ body.n }}"
    "#;
    reload(&server, folder.path(), config).await;
    let mut all = server.subscribe("/sub/github.com/").await;
    let scheme = Scheme::from(Provider::Github);
    let secrets = ["a hook's secret", "another's"].map(|own| Secret::new(own).unwrap());
    for number in 0..200 {
        let body = format!(
            r#"{{"ref":"refs/heads/main","repository":{{"full_name":"acme/{}"}},"n":{number}}}"#,
            number % 100
        );
        let request = Request {
            method: "POST",
            url: "",
            headers: &Headers::default(),
            body: body.as_bytes(),
        };
        // Every third is not GitHub's, or is nobody's.
        let signed = match number % 3 {
            0 => scheme.sign(&secrets[1], &request, 0).unwrap(),
            1 => scheme.sign(&secrets[0], &request, 0).unwrap(),
            _ => Vec::new(),
        };
        let signed: Vec<_> = signed
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let line = "POST /unsafe/pub/github.com/org/acme";
        let reply = server.request(line, &signed, body.as_bytes()).await;
        assert_eq!(reply.status, 200);
    }
    // Where no source is, nobody has verified anything.
    let body = br#"{"ref":"refs/heads/main","repository":{"full_name":"acme/x"},"n":-1}"#;
    server
        .request("POST /unsafe/pub/elsewhere", &[], body)
        .await;
    for number in (0..200).filter(|number| number % 3 == 1) {
        let topic = format!("github.com/repo/acme/{}/branch/main", number % 100);
        assert_eq!(all.next().await, format!("{topic}\0github {number}"));
    }
    server.stop.cancel();
    let last = all.receive().await.unwrap();
    assert!(last.is_close(), "{last:?}");
}

#[tokio::test]
async fn the_preset_for_github_believes_the_source_on_its_topics() {
    let (folder, server) = with("").await;
    let config = r#"
        [[source]]
        topic = "/unsafe/github.com/org/acme"
        provider = "github"
        secrets = ["a hook's secret"]

        [[route]]
        name = "repositories"
        preset = "github"
    "#;
    reload(&server, folder.path(), config).await;
    let mut all = server.subscribe("/sub/github.com/").await;
    let post = async |topic: &str, repository: &str, is_signed: bool| {
        let body = format!(
            r#"{{"ref":"refs/heads/main","after":"00ff","repository":{{"full_name":"{repository}"}}}}"#
        );
        let request = Request {
            method: "POST",
            url: "",
            headers: &Headers::default(),
            body: body.as_bytes(),
        };
        let secret = Secret::new("a hook's secret").unwrap();
        let mut headers = vec![("X-GitHub-Event".to_owned(), "push".to_owned())];
        if is_signed {
            let scheme = Scheme::from(Provider::Github);
            headers.extend(scheme.sign(&secret, &request, 0).unwrap());
        }
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let line = format!("POST /unsafe/pub/github.com/{topic}");
        let reply = server.request(&line, &headers, body.as_bytes()).await;
        reply.status
    };
    assert_eq!(post("org/acme", "acme/forged", false).await, 401);
    // Signed, but where no source has looked at it.
    assert_eq!(post("org/other", "acme/elsewhere", true).await, 200);
    assert_eq!(post("org/acme", "acme/site", true).await, 200);
    let message = all.next().await;
    assert!(
        message.starts_with("github.com/repo/acme/site/branch/main\0"),
        "{message}"
    );
    let text = metrics(&server).await;
    let refused = value(&text, "hookbot_not_routed_total{router=\"repositories\"}");
    assert_eq!(refused, Some(1.0));
}

#[tokio::test]
async fn a_message_that_breaks_a_rule_is_parked_and_the_next_is_routed() {
    let (_folder, server) = with(&route("r", "in/", "out/{{ body.n }}")).await;
    let mut parked = server.subscribe("/unsafe/sub/parked/r").await;
    let mut out = server.subscribe("/sub/out/").await;
    let deep = "[".repeat(200_000);
    let bodies = ["not JSON", "{}", r#"{"n":"a//b"}"#, &deep, r#"{"n":null}"#];
    for body in bodies {
        assert_eq!(server.publish("in/x", body).await.status, 200);
    }
    assert_eq!(server.publish("in/x", r#"{"n":1}"#).await.status, 200);
    assert_eq!(out.next().await, "out/1\0{\"n\":1}");
    for body in bodies {
        assert_eq!(parked.next().await, body);
    }
    let metrics = metrics(&server).await;
    let count = |name| value(&metrics, name);
    assert_eq!(count(r#"hookbot_parked_total{router="r"}"#), Some(5.0));
    assert_eq!(count(r#"hookbot_routed_total{router="r"}"#), Some(1.0));
}

#[tokio::test]
async fn what_a_route_reads_in_two_ways_it_publishes_once() {
    let config = route("r", "in/", "out/x").replace("'in/'", "['in/', 'in/x', '/']");
    let config = config.replace("out/x", "/unsafe/out");
    let (_folder, server) = with(&config).await;
    let mut out = server.subscribe("/unsafe/sub/out").await;
    for body in ["1", "2", "3"] {
        server.publish("in/x", body).await;
    }
    let mut all = [out.next().await, out.next().await, out.next().await];
    // Each way has its own pace.
    all.sort();
    assert_eq!(all, ["1", "2", "3"]);
    // It ends when all three ways have got to the end.
    server.stop.cancel();
    let last = out.receive().await.unwrap();
    assert!(last.is_close(), "{last:?}");
}

#[tokio::test]
async fn a_circle_that_nobody_could_see_comes_to_an_end() {
    let config = route("there", "a/", "{{ 'b/x' }}") + &route("back", "b/", "{{ 'a/x' }}");
    let (_folder, server) = with(&config).await;
    let mut parked = server.subscribe("/unsafe/sub/parked/").await;
    let mut all = server.subscribe("/sub/").await;
    server.publish("a/x", "round").await;
    assert_eq!(parked.next().await, "/unsafe/parked/there\0round");
    server.publish("the/end", "").await;
    for hop in 0..=8 {
        let topic = if hop % 2 == 0 { "a/x" } else { "b/x" };
        assert_eq!(all.next().await, format!("{topic}\0round"), "{hop}");
    }
    assert_eq!(all.next().await, "the/end\0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_loses_nothing_repeats_nothing_and_drops_no_connection() {
    let both = |to: &str| route("changing", "in/", to) + &route("same", "in/", "same/x");
    let (folder, server) = with(&both("out/0")).await;
    let mut out = server.subscribe("/sub/out/").await;
    let mut same = server.subscribe("/sub/same/x").await;
    let broker = server.broker.clone();
    let publishing = tokio::spawn(async move {
        for number in 0..2_000 {
            let topic = Topic::parse("in/x").unwrap();
            let publication = Publication::new(topic, number.to_string());
            broker.publish(publication).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    for number in 1..=20 {
        reload(&server, folder.path(), &both(&format!("out/{number}"))).await;
    }
    publishing.await.unwrap();
    reload(&server, folder.path(), &both("out/last")).await;
    server.publish("in/x", "2000").await;
    let mut last = String::new();
    for number in 0..=2_000 {
        let message = out.next().await;
        let (topic, body) = message.split_once('\0').unwrap();
        assert_eq!(body, number.to_string(), "on {topic}");
        last = topic.to_owned();
        assert_eq!(same.next().await, number.to_string());
    }
    assert_eq!(last, "out/last");
    let metrics = metrics(&server).await;
    let reloads = value(&metrics, "hookbot_config_reloads_total");
    assert_eq!(reloads, Some(21.0));
}

#[tokio::test]
async fn a_wrong_file_changes_nothing_and_is_counted() {
    let (folder, server) = with(&route("r", "in/", "out/old")).await;
    let mut out = server.subscribe("/sub/out/").await;
    for wrong in [
        &*route("r", "in/", "out/{{ new"),
        &route("r", "in/", "in/x"),
        "[[rout]]",
        "\"",
    ] {
        reload(&server, folder.path(), wrong).await;
        server.publish("in/x", "").await;
        assert_eq!(out.next().await, "out/old\0");
    }
    fs::remove_file(folder.path().join("hookbot.toml")).unwrap();
    server.configuration.as_ref().unwrap().reload().await;
    server.publish("in/x", "").await;
    assert_eq!(out.next().await, "out/old\0");
    let failures = "hookbot_config_reload_failures_total";
    assert_eq!(value(&metrics(&server).await, failures), Some(5.0));
    assert_eq!(
        value(&metrics(&server).await, "hookbot_config_reloads_total"),
        Some(0.0)
    );

    reload(&server, folder.path(), &route("r", "in/", "out/new")).await;
    server.publish("in/x", "").await;
    assert_eq!(out.next().await, "out/new\0");
    reload(&server, folder.path(), "").await;
    server.publish("in/x", "").await;
    server.publish("out/end", "").await;
    assert_eq!(out.next().await, "out/end\0");
}

//! Every spelling of a path with every token, through the whole server, beside a model that knows
//! nothing of it.

use std::sync::Arc;
use std::time::SystemTime;

use hookbot::server::Networks;
use hookbot_protocol::{Key, Scope};
use percent_encoding::percent_decode_str;
use tokio::task::JoinSet;

use crate::support::{Options, RESERVED, TestServer, key};

/// The path that a spelling means to somebody who publishes; `None` where it means none.
fn meaning(raw: &str) -> Option<String> {
    let raw = raw.split_once('?').map_or(raw, |(path, _)| path);
    let segments = raw.strip_prefix('/')?.split('/');
    let decoded: Option<Vec<_>> = segments.map(segment).collect();
    let decoded = decoded?;
    let path = format!("/{}", decoded.join("/"));
    let topic = ["/unsafe/pub/", "/pub/", "/"];
    let topic = topic.iter().find_map(|verb| path.strip_prefix(verb))?;
    let first = topic.split('/').next()?;
    if path.starts_with("/unsafe/pub/") && OWN.contains(&first) {
        return None;
    }
    let is_short = path.len() <= 1_024 && decoded.len() <= 32;
    (is_short && !RESERVED.contains(&first)).then_some(path)
}

fn segment(raw: &str) -> Option<String> {
    let mut parts = raw.split('%');
    parts.next();
    let digits = |part: &str| {
        part.get(..2)
            .is_some_and(|two| two.bytes().all(|own| own.is_ascii_hexdigit()))
    };
    if !parts.all(digits) {
        return None;
    }
    let text = percent_decode_str(raw).decode_utf8().ok()?.into_owned();
    let is_bad = text.is_empty() || text == "." || text == ".." || text.contains('/');
    let is_bad = is_bad || text.chars().any(char::is_control) || text.ends_with("?recursive");
    (!is_bad).then_some(text)
}

/// Whether a token for `scope` is one for publishing to `path`.
fn grants(scope: &str, path: &str) -> bool {
    let covers = |path: &str| path == scope || (scope.ends_with('/') && path.starts_with(scope));
    covers(path) || path.strip_prefix("/pub").is_some_and(covers)
}

/// A token, and the path that it is good for, if it is good for any.
fn tokens() -> Vec<(Option<String>, String)> {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let other = Key::new(b"somebody else's key").unwrap();
    let name = "ci".parse().unwrap();
    let mut all = Vec::new();
    for path in SCOPES {
        let scope = Scope::parse(path).unwrap();
        let mint = |key: &Key| {
            [
                key.mint(&scope).expose(),
                key.mint_expiring(&scope, now + 3_600).expose(),
                key.mint_named(&scope, &name, None).expose(),
                key.mint_named(&scope, &name, Some(now + 3_600)).expose(),
            ]
        };
        let good = mint(&key());
        for token in &good {
            all.push((Some(scope.as_str().to_owned()), token.clone()));
        }
        for token in mint(&other) {
            all.push((None, token));
        }
        let (plain, named) = (&good[0], &good[2]);
        let flipped = if plain.starts_with('0') { "1" } else { "0" };
        all.extend(
            [
                key().mint_sha1(&scope).expose(),
                key().mint_expiring(&scope, now - 1).expose(),
                key().mint_named(&scope, &name, Some(now - 1)).expose(),
                format!("{flipped}{}", &plain[1..]),
                plain[..63].to_owned(),
                format!("{plain}0"),
                plain.to_uppercase(),
                format!("x1.{}.{plain}", now + 3_600),
                format!("n1.ci.{plain}"),
                named.replace(".ci.", ".cd."),
                named.replace(".ci.", ".ci.9999999999."),
                named["n1.ci.".len()..].to_owned(),
                path.to_owned(),
            ]
            .map(|token| (None, token)),
        );
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_spelling_of_a_path_opens_for_a_token_that_is_not_for_it() {
    let server = TestServer::start_with(Options::settings(|settings| {
        // Every request comes from an address of its own: guesses are slowed down otherwise.
        settings.rules.proxies.networks = Networks::parse(["127.0.0.1"]).unwrap();
    }))
    .await;
    let (server, tokens) = (Arc::new(server), Arc::new(tokens()));
    let long = format!("/pub/{}", "x".repeat(1_020));
    let deep = format!("/pub{}", "/x".repeat(32));
    let spellings = SPELLINGS
        .iter()
        .map(|raw| (*raw).to_owned())
        .chain([long, deep]);
    let mut checks = JoinSet::new();
    for (number, raw) in spellings.enumerate() {
        let (server, tokens) = (server.clone(), tokens.clone());
        checks.spawn(async move { check(&server, number, &raw, &tokens).await });
    }
    let (mut accepted, mut refused) = (0, 0);
    while let Some(counts) = checks.join_next().await {
        let (yes, no) = counts.unwrap();
        (accepted, refused) = (accepted + yes, refused + no);
    }
    println!("{accepted} accepted, {refused} refused, 0 of them wrongly");
    assert!(
        accepted > 200 && refused > 10_000,
        "{accepted} and {refused}"
    );
}

/// Publishes to one spelling with each of the tokens; how many were accepted, and how many not.
async fn check(
    server: &TestServer,
    number: usize,
    raw: &str,
    tokens: &[(Option<String>, String)],
) -> (usize, usize) {
    let meaning = meaning(raw);
    let (mut accepted, mut refused) = (0, 0);
    for (at, (scope, token)) in tokens.iter().enumerate() {
        let granted = scope
            .as_deref()
            .is_some_and(|scope| meaning.as_deref().is_some_and(|path| grants(scope, path)));
        let address = format!("10.{number}.{}.{}", at / 250, at % 250);
        let bearer = format!("Bearer {token}");
        let headers = [("X-Forwarded-For", &*address), ("Authorization", &*bearer)];
        let reply = server.request(&format!("POST {raw}"), &headers, b"").await;
        let is_open = meaning
            .as_deref()
            .is_some_and(|path| path.starts_with("/unsafe/pub/"));
        assert_eq!(
            reply.status == 200,
            granted || is_open,
            "{raw:?} with {scope:?} {}: {reply:?}",
            token.len()
        );
        // Only who has a token is told where its message is.
        assert_eq!(
            reply.header("hookbot-cursor").is_some(),
            granted,
            "{raw:?} {scope:?}"
        );
        *(if granted { &mut accepted } else { &mut refused }) += 1;
    }
    (accepted, refused)
}

const SCOPES: [&str; 12] = [
    "/",
    "/pub/",
    "/pub/a",
    "/pub/a/",
    "/pub/a/b",
    "/a",
    "/a/",
    "/sub/a/",
    "/unsafe/pub/a",
    "/pub/%252F",
    "/pub/ü",
    "/pub/ab/",
];

const SPELLINGS: [&str; 58] = [
    "/pub/a",
    "/pub/a/b",
    "/pub/ab",
    "/pub/ab/c",
    "/a",
    "/a/b",
    "/%61",
    "/pub/%61",
    "/%70ub/a",
    "/pub/a/%62",
    "/pub/%C3%BC",
    "/pub/ü",
    "/pub/u%CC%88",
    "/pub/%252F",
    "/pub/%2F",
    "/pub/a%2Fb",
    "/pub/a%2fb",
    "/pub%2Fa",
    "/pub/a%5Cb",
    "/pub/a\\b",
    "/pub//a",
    "//pub/a",
    "/pub/a//b",
    "/pub/a/",
    "/pub/",
    "/pub/./a",
    "/pub/../pub/a",
    "/pub/a/../a",
    "/pub/b/../a",
    "/pub/%2e%2e/pub/a",
    "/pub/%2E/a",
    "/pub/a/%2e%2e/a/b",
    "/pub/a%00",
    "/pub/a%0d%0a",
    "/pub/%7f",
    "/pub/%c2%85",
    "/pub/%ff",
    "/pub/%c0%af",
    "/pub/%ed%a0%80",
    "/pub/%",
    "/pub/%6",
    "/pub/%zz",
    "/pub/a%3Frecursive",
    "/pub/a%3Fb",
    "/pub/a%23b",
    "/pub/a;x=1",
    "/pub/a%20",
    "/pub/A",
    "/PUB/a",
    "/pub/pub/a",
    "/pub/sub/a",
    "/pub/status",
    "/unsafe/pub/a",
    "/unsafe/%70ub/a",
    "/unsafe/pub/../../pub/a",
    "/unsafe/pub/quarantine/a",
    "/pub/a?token=x",
    "/pub/a?/../b",
];

/// What only the broker publishes to, below `/unsafe/`.
const OWN: [&str; 3] = ["smee", "quarantine", "parked"];

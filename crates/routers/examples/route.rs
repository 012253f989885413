//! How many pushes a second one processor verifies and routes:
//! `cargo run --release -p hookbot-routers --example route`.
//!
//! Each is 8 KB, as GitHub sends it, of one of a hundred repositories.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use hookbot_protocol::{Headers, Message, Offset, Publication, Topic};
use hookbot_routers::{Outcome, Preset, Route, Router, Rule, View};
use hookbot_signatures::{Provider, Request, Scheme, Secret};

fn main() -> Result<(), Box<dyn Error>> {
    let scheme = Scheme::from(Provider::Github);
    let secrets = [Secret::new(SECRET)?];
    let pushes: Vec<_> = (0..100).map(push).collect::<Result<_, _>>()?;
    let verify = |message: &Message| {
        let publication = &message.publication;
        let request = Request {
            method: "POST",
            url: "",
            headers: &publication.headers,
            body: &publication.body,
        };
        scheme.verify(&secrets, &request, 0).is_ok()
    };
    let organisation = rule(Route {
        when: Some(r#"body.ref.startswith("refs/heads/")"#.to_owned()),
        to: vec![
            "github.com/repo/{{ body.repository.full_name }}/branch/{{ body.ref[11:] }}".to_owned(),
        ],
        ..Route::default()
    })?;
    let munging = rule(Route {
        when: Some("body.commits|length > 0".to_owned()),
        to: vec!["deploys/{{ body.repository.name }}".to_owned()],
        body: Some(
            r#"{"sha":{{ body.after|tojson }},"who":{{ body.pusher.name|tojson }}}"#.to_owned(),
        ),
        ..Route::default()
    })?;
    let preset = rule(Route {
        preset: Some(Preset::Github),
        ..Route::default()
    })?;
    let is_routed = |rule: &Rule, message: &Message| {
        let outcome = black_box(Router::route(rule, message));
        matches!(outcome, Outcome::Published(_))
    };

    println!("| {} bytes | events/s |", pushes[0].publication.body.len());
    println!("| --- | ---: |");
    measure("verify", &pushes, verify);
    measure("route by branch", &pushes, |push| {
        is_routed(&organisation, push)
    });
    measure("verify and route by branch", &pushes, |push| {
        verify(push) && is_routed(&organisation, push)
    });
    measure("verify and route with a body of its own", &pushes, |push| {
        verify(push) && is_routed(&munging, push)
    });
    measure("the preset, which verifies by itself", &pushes, |push| {
        is_routed(&preset, push)
    });
    let routes = (0..100).map(|number| {
        rule(Route {
            when: Some(format!(
                r#"body.repository.full_name == "acme/site-{number}""#
            )),
            to: vec![format!("site-{number}")],
            ..Route::default()
        })
    });
    let routes: Vec<_> = routes.collect::<Result<_, _>>()?;
    measure("a hundred routes, each by itself", &pushes, |push| {
        let routed = routes.iter().filter(|rule| is_routed(rule, push));
        routed.count() == 1
    });
    measure("a hundred routes that share a view", &pushes, |push| {
        let view = View::new(push);
        let outcomes = routes.iter().map(|rule| rule.route_shared(push, &view));
        let routed = outcomes.filter(|outcome| matches!(outcome, Outcome::Published(_)));
        routed.count() == 1
    });
    Ok(())
}

fn measure(what: &str, pushes: &[Message], does: impl Fn(&Message) -> bool) {
    let began = Instant::now();
    let mut count = 0_u32;
    while began.elapsed() < TIME {
        for push in pushes {
            assert!(does(push), "{what}");
            count += 1;
        }
    }
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    println!("| {what} | {rate:.0} |");
}

fn rule(route: Route) -> Result<Rule, Box<dyn Error>> {
    let route = Route {
        name: "r".to_owned(),
        from: vec!["/unsafe/github.com/".to_owned()],
        ..route
    };
    let faults = |faults: Vec<_>| format!("{faults:?}").into();
    Rule::new(route, Some(SECRET)).map_err(faults)
}

/// A push of so many bytes to the repository of this number, as a source has verified it.
fn push(number: usize) -> Result<Message, Box<dyn Error>> {
    let mut json: serde_json::Value =
        serde_json::from_str(include_str!("../tests/data/push.json"))?;
    json["repository"]["full_name"] = format!("acme/site-{number}").into();
    let commit = json["head_commit"].clone();
    let mut body = json.to_string();
    while body.len() < BYTES {
        let commits = json["commits"].as_array_mut().ok_or("a push has commits")?;
        commits.push(commit.clone());
        body = json.to_string();
    }
    let mut headers: Headers = [
        ("host", "hooks.example.com"),
        ("user-agent", "GitHub-Hookshot/0123abc"),
        ("content-type", "application/json"),
        ("x-github-event", "push"),
        ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
    ]
    .into_iter()
    .map(|(name, value)| (name, value.as_bytes()))
    .collect();
    let request = Request {
        method: "POST",
        url: "",
        headers: &headers,
        body: body.as_bytes(),
    };
    let scheme = Scheme::from(Provider::Github);
    for (name, value) in scheme.sign(&Secret::new(SECRET)?, &request, 0)? {
        headers.push(&name.to_ascii_lowercase(), value.as_bytes());
    }
    let publication = Publication {
        headers,
        attributes: [("verified_by", &b"github"[..])].into_iter().collect(),
        ..Publication::new(Topic::parse("/unsafe/github.com/org/acme")?, body)
    };
    Ok(Message::new(
        publication,
        Offset(number as u64),
        SystemTime::now(),
    ))
}

const SECRET: &[u8] = b"a secret for measuring alone";

const BYTES: usize = 8_192;

const TIME: Duration = Duration::from_secs(3);

//! Whatever a message holds, every rule ends, publishes on topics alone, and nothing unverified.
//!
//! The first byte chooses the topic and the attributes, the second how many headers the lines that
//! follow are, and the rest is the body.

#![no_main]

use std::sync::LazyLock;
use std::time::SystemTime;

use hookbot_protocol::{Headers, Message, Offset, Publication, Topic};
use hookbot_routers::{Outcome, Route, Router, Rule};
use libfuzzer_sys::fuzz_target;

/// Each one looks at a message in another way.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let rules = [
        (
            r#"body.ref.startswith("refs/heads/")"#,
            "out/{{ body.repository.full_name }}/{{ body.ref[11:] }}",
            None,
        ),
        (
            "body.a < body.b or text|length > 3",
            "out/{{ body.a }}",
            Some("{{ body }}"),
        ),
        (
            "not body.draft",
            "out/{{ headers['x-event'] }}",
            Some("{{ text|upper }}{{ body|tojson }}"),
        ),
        (
            "'x' in body or body.n * 'x'",
            "{{ body.topic }}",
            Some("{{ 'x' * body.n }}"),
        ),
        (
            "query.a or true",
            "out/{{ query.a }}",
            Some("{% for a in body %}{% for b in body %}{{ a }}{{ b }}{% endfor %}{% endfor %}"),
        ),
        (
            "body|sort or true",
            "out/{{ body|first }}",
            Some("{{ body|sort|unique|join(text) }}"),
        ),
        (
            "range(body.n) or true",
            "out/{{ body.n|int }}",
            Some("{{ text.replace(body.a, text) }}"),
        ),
        (
            "body.a.format(body.b) or true",
            "out/{{ body.a|replace(body.b, body.a) }}",
            Some("{{ body.a % body.b }}"),
        ),
        (
            "body == [body, body.a] or true",
            "out/{{ text.split(body.a)|last }}",
            Some("{{ body.a|indent(body.n) }}"),
        ),
    ];
    let rule = |(at, (when, to, body)): (usize, (&str, &str, Option<&str>))| {
        let route = Route {
            name: format!("r{at}"),
            from: vec!["in/".to_owned(), "/unsafe/".to_owned()],
            when: Some(when.to_owned()),
            to: vec![to.to_owned()],
            body: body.map(str::to_owned),
            headers: vec![("x-of".to_owned(), "{{ topic }}".to_owned())],
            ..Route::default()
        };
        Rule::new(route, None).expect("a good route")
    };
    rules.into_iter().enumerate().map(rule).collect()
});

fuzz_target!(|input: &[u8]| {
    let [choice, count, rest @ ..] = input else {
        return;
    };
    let mut lines = rest.splitn(usize::from(count % 4) + 1, |byte| *byte == b'\n');
    let mut headers = Headers::default();
    for name in ["x-event", "x-other", "x-event"]
        .iter()
        .take(usize::from(count % 4))
    {
        headers.push(name, lines.next().unwrap_or_default());
    }
    let body = lines.next().unwrap_or_default().to_vec();
    let topic = ["in/x", "/unsafe/x", "/unsafe/x", "elsewhere"][usize::from(choice % 4)];
    let mut attributes = Headers::default();
    if choice % 4 == 2 {
        attributes.push("verified_by", b"fuzz");
    }
    let message = Message::new(
        Publication {
            query: String::from_utf8_lossy(&body).into(),
            headers,
            attributes,
            ..Publication::new(Topic::parse(topic).expect("a topic"), body)
        },
        Offset(1),
        SystemTime::UNIX_EPOCH,
    );
    for rule in &*RULES {
        match Router::route(rule, &message) {
            Outcome::Published(publications) => {
                assert!(choice % 4 == 0 || choice % 4 == 2, "routed unverified");
                for publication in publications {
                    let topic = publication.topic;
                    assert_eq!(Topic::parse(topic.as_str()).as_ref(), Ok(&topic));
                    assert!(!topic.is_brokers_own(), "{topic}");
                }
            }
            Outcome::Parked(publication, _) => {
                assert!(publication.topic.as_str().starts_with("/unsafe/parked/r"));
                assert_eq!(publication.body, message.publication.body);
            }
            Outcome::NotMatched(_) => {}
            Outcome::Refused(error) => panic!("{error}"),
        }
    }
});

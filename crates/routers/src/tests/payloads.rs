//! Whatever a payload holds, a rule comes to an end.

use hookbot_protocol::Topic;
use proptest::prelude::*;

use super::samples::{holds, message, parked_because, route, to};
use crate::{Outcome, Route, Router, Rule, Unmatched};

#[test]
fn an_evaluation_without_an_end_is_cut_and_a_large_one_refused() {
    let many = format!("[{}1]", "1,".repeat(5_000));
    for (template, expected) in [
        (
            "{% for a in body %}{% for b in body %}{% endfor %}{% endfor %}",
            "fuel",
        ),
        ("{{ 'x' * 100000000 }}", "fuel"),
        ("{{ body|map('string')|join('x' * 90000) }}", "fuel"),
        ("{{ 'x' * 9000 }}", "more than"),
        ("{{ range(100000)|list|sort|join }}", "fuel"),
    ] {
        let reason = parked_because(to(&format!("out/{template}"), &many));
        assert!(reason.contains(expected), "{template}: {reason}");
    }
}

#[test]
fn odd_payloads_are_no_json_rather_than_a_burden() {
    let deep = "[".repeat(100_000);
    let closed = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let wide = format!("[{}[]]", "[],".repeat(2_000_000));
    let names = format!("{{{}\"ref\":1}}", "\"ref\":0,".repeat(100_000));
    for body in [
        &*deep,
        &closed,
        &wide,
        "1e999",
        "{\"a\":1}}",
        "\u{feff}1",
        "",
    ] {
        assert!(!holds("body is defined", body), "{:.10}", body);
    }
    // The last one of many with a name counts.
    assert!(holds("body.ref == 1", &names));
    assert!(holds("body.ref == 1", r#"{"ref":0,"ref":1}"#));
    let nested = format!("{}{}", "[".repeat(100), "]".repeat(100));
    assert!(holds("body is defined and body|string", &nested));
}

/// What conditions and templates are made of.
const PIECES: [&str; 24] = [
    "body",
    "body.a",
    "body.a.b",
    "body[0]",
    "text",
    "headers",
    "query.a",
    "topic",
    "1",
    "'x'",
    "none",
    "[body]",
    "{'a': body}",
    "body|length",
    "body|list",
    "body|string",
    "body|tojson",
    "body.a|int",
    "text|upper",
    "body.a.split('x')",
    "range(body.a)",
    "body|sort",
    "body.a ~ body",
    "'x' * body.a",
];

fn hostile() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    let value = leaf.prop_recursive(5, 64, 6, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..6);
        let fields = prop::collection::vec(("a|b|ref|.{0,3}", inner), 0..6);
        prop_oneof![
            list.prop_map(|items| format!("[{}]", items.join(","))),
            fields.prop_map(|fields| {
                let fields: Vec<_> = fields
                    .into_iter()
                    .map(|(name, value)| {
                        format!("{}:{value}", serde_json::to_string(&name).unwrap())
                    })
                    .collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    });
    prop_oneof![9 => value, 1 => any::<String>()]
}

proptest! {
    #[test]
    fn no_payload_breaks_a_rule_and_every_topic_is_one(
        body in hostile(),
        [a, b, c] in prop::array::uniform3(0..PIECES.len()),
        operator in "and|or|<|>=|==|in|\\+|\\*|~|-",
    ) {
        let [a, b, c] = [a, b, c].map(|piece| PIECES[piece]);
        let rule = Rule::new(Route {
            when: Some(format!("({a}) {operator} ({b}) or true")),
            body: Some(format!("{{{{ {c} }}}}{{% for x in {b} %}}{{{{ x }}}}{{% endfor %}}")),
            ..route("in/", &format!("out/{{{{ {a} }}}}"))
        }, None);
        let message = message("in/x", &body);
        match Router::route(&rule.unwrap(), &message) {
            Outcome::Published(publications) => for publication in publications {
                let topic = publication.topic;
                prop_assert_eq!(Topic::parse(topic.as_str()), Ok(topic));
            },
            Outcome::NotMatched(Unmatched::When) => {}
            Outcome::Parked(publication, _) => {
                prop_assert_eq!(publication.body, body);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

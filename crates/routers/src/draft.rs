//! What a rule publishes, as templates that a message fills in.

use std::sync::Arc;

use hookbot_protocol::{Headers, Message, Publication, Topic};

use crate::router::RouteError;
use crate::template::Template;
use crate::view::View;

/// Publications whose parts are still templates.
pub(crate) struct Draft {
    pub(crate) to: Vec<Template>,
    pub(crate) body: Option<Box<Template>>,
    /// Their names, and their values.
    pub(crate) headers: Vec<(String, Template)>,
}

impl Draft {
    /// What they are for a message, of which this is the view.
    pub(crate) fn publications(
        &self,
        message: &Message,
        view: &Arc<View>,
    ) -> Result<Vec<Publication>, RouteError> {
        let text = |part, template: &Template| {
            let text = template.render(view);
            text.map_err(|reason| RouteError::Evaluation { part, reason })
        };
        let to = self.to.iter().map(|to| own_topic(text("to", to)?.trim()));
        let to: Vec<_> = to.collect::<Result<_, RouteError>>()?;
        let body = self
            .body
            .as_ref()
            .map(|body| text("body", body))
            .transpose()?;
        let headers = self.headers.iter().map(|(name, value)| {
            let value = text("headers", value)?;
            Ok((name.as_str(), header(value.trim())?.to_owned()))
        });
        let headers: Vec<_> = headers.collect::<Result<_, RouteError>>()?;
        let publication = |topic| published(message, topic, body.as_deref(), &headers);
        Ok(to.into_iter().map(publication).collect())
    }
}

/// What is published on a topic. A new body comes without what was said of the old one.
fn published(
    message: &Message,
    topic: Topic,
    body: Option<&str>,
    headers: &[(&str, String)],
) -> Publication {
    let set = headers
        .iter()
        .map(|(name, value)| (*name, value.as_bytes()));
    let Some(body) = body else {
        let publication = message.publication.clone();
        let kept = publication.headers.iter();
        let kept = kept.filter(|(name, _)| headers.iter().all(|(set, _)| set != name));
        let headers: Headers = kept.chain(set).collect();
        return Publication {
            topic,
            headers,
            delivery_id: None,
            ..publication
        };
    };
    Publication {
        headers: set.collect(),
        ..Publication::new(topic, body.to_owned())
    }
}

/// A topic that a rule may publish to.
pub(crate) fn own_topic(text: &str) -> Result<Topic, RouteError> {
    let topic = Topic::parse(text)?;
    if topic.is_brokers_own() {
        return Err(RouteError::BrokersOwn);
    }
    Ok(topic)
}

/// The value of a header.
fn header(value: &str) -> Result<&str, RouteError> {
    if value.chars().any(char::is_control) {
        return Err(RouteError::HeaderValue);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use crate::tests::samples::{PUSH, message, parked_because, published, route, rule, to};
    use crate::{Route, Router};

    #[test]
    fn a_push_is_published_as_it_came_on_the_topic_of_its_branch() {
        let rule = rule(Route {
            when: Some(r#"body.ref.startswith("refs/heads/")"#.to_owned()),
            ..route(
                "in/",
                "github.com/repo/{{ body.repository.full_name }}/branch/{{ body.ref[11:] }}",
            )
        });
        let message = message("in/x", PUSH);
        let [publication] = &published(Router::route(&rule, &message))[..] else {
            panic!("one publication");
        };
        assert_eq!(
            publication.topic.as_str(),
            "github.com/repo/acme/site/branch/main"
        );
        let original = &message.publication;
        assert_eq!(publication.body, original.body);
        assert_eq!(publication.headers, original.headers);
        assert_eq!(publication.query, original.query);
    }

    #[test]
    fn what_a_template_needs_and_a_message_lacks_parks_it_with_the_reason() {
        let because = |template, body| parked_because(to(template, body));
        for (template, body, expected) in [
            (
                "out/{{ body.nope }}",
                "{}",
                "undefined value in `body.nope`",
            ),
            ("out/{{ body.nope.deeper }}", "{}", "undefined"),
            ("out/{{ body.n }}", "not JSON", "undefined"),
            ("out/{{ body.n }}", r#"{"n":null}"#, "none"),
            ("out/{{ body.n }}", r#"{"n":[1]}"#, "sequence"),
            ("out/{{ body.n }}", r#"{"n":{"a":1}}"#, "map"),
            ("out/{{ body.n }}", r#"{"n":""}"#, "empty segment"),
            ("out/{{ body.n }}", r#"{"n":"../x"}"#, "segment"),
            ("out/{{ body.n }}", r#"{"n":"a\nb"}"#, "control"),
            ("{{ body.n }}", r#"{"n":"status"}"#, "keeps for itself"),
            (
                "{{ body.n }}",
                r#"{"n":"/unsafe/parked/x"}"#,
                "only the broker",
            ),
            ("out/{{ 1 // body.n }}", r#"{"n":0}"#, "1 // 0"),
            ("out/{{ body.n.nope() }}", r#"{"n":"x"}"#, "method"),
        ] {
            let reason = because(template, body);
            assert!(reason.contains(expected), "{template} {body}: {reason}");
        }
        let long = format!(r#"{{"n":"{}"}}"#, "x".repeat(2_000));
        assert!(because("out/{{ body.n }}", &long).contains("longer"));
    }

    #[test]
    fn a_topic_has_what_a_message_says_and_spaces_around_it_do_not_count() {
        for (template, body, topic) in [
            ("out", "{}", "out"),
            ("\n  out/{{ body.n }}\n", r#"{"n":1}"#, "out/1"),
            ("out/{{ body.n }}", r#"{"n":true}"#, "out/true"),
            ("out/{{ body.n|default('x') }}", "{}", "out/x"),
            ("out/{% if body.n %}a{% else %}b{% endif %}", "{}", "out/b"),
            ("{{ topic }}/{{ headers['x-event'] }}", "{}", "in/x/push"),
            ("out/{{ body.n|lower }}", r#"{"n":"Ü"}"#, "out/ü"),
            ("out/{{ body.n.split('/')[1] }}", r#"{"n":"a/b"}"#, "out/b"),
        ] {
            let [publication] = &published(to(template, body))[..] else {
                panic!("{template}: one publication");
            };
            assert_eq!(publication.topic.as_str(), topic, "{template}");
        }
    }

    #[test]
    fn a_body_is_printed_as_json_has_it() {
        let rule = rule(Route {
            body: Some("{{ body.a }} {{ body.b }} {{ body.c }} {{ body }}".to_owned()),
            ..route("in/", "out")
        });
        let json = r#"{"c":"<\"é","b":null,"a":true,"d":[1,-2.5,{}]}"#;
        let [publication] = &published(Router::route(&rule, &message("in/x", json)))[..] else {
            panic!("one publication");
        };
        assert_eq!(publication.body, format!("true null <\"é {json}"));
    }

    #[test]
    fn a_new_body_comes_without_the_old_headers() {
        let rule = rule(Route {
            to: vec!["out/1".to_owned(), "out/2".to_owned()],
            body: Some(r#"{"n":{{ body.n|tojson }}}"#.to_owned()),
            headers: vec![("x-n".to_owned(), "{{ body.n }}".to_owned())],
            ..route("in/", "")
        });
        let publications = published(Router::route(&rule, &message("in/x", r#"{"n":"\"1"}"#)));
        let topics: Vec<_> = publications
            .iter()
            .map(|each| each.topic.as_str())
            .collect();
        assert_eq!(topics, ["out/1", "out/2"]);
        for publication in publications {
            assert_eq!(publication.body, r#"{"n":"\"1"}"#);
            assert!(publication.headers.iter().eq([("x-n", &b"\"1"[..])]));
        }
    }

    #[test]
    fn a_header_is_set_beside_the_old_ones_where_the_body_stays() {
        let with = |value: &str| {
            let headers = vec![("x-event".to_owned(), value.to_owned())];
            let rule = rule(Route {
                headers,
                ..route("in/", "out")
            });
            Router::route(&rule, &message("in/x", r#"{"n":"a\nb"}"#))
        };
        let [publication] = &published(with("{{ topic }}"))[..] else {
            panic!("one publication");
        };
        let expected: [(&str, &[u8]); 2] = [("x-odd", b"\xff"), ("x-event", b"in/x")];
        assert!(publication.headers.iter().eq(expected));
        assert!(parked_because(with("{{ body.n }}")).contains("control"));
    }
}

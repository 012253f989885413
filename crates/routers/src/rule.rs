//! A route that is ready to be followed.

use std::fmt;

use hookbot_protocol::{Filter, Headers, Message, Publication, Topic};
use hookbot_signatures::Provider;

use crate::bodies::Bodies;
use crate::faults::Faults;
use crate::github::Github;
use crate::hops::Hops;
use crate::outcome::{Outcome, Unmatched};
use crate::parked::parked;
use crate::route::{Fault, Preset, Route};
use crate::router::{RouteError, Router};
use crate::template::{Condition, Template, literal};
use crate::view::View;

/// A route whose every expression, template and topic has been checked.
///
/// It publishes what a message makes of its templates. A message that it should have published and
/// could not is parked on `/unsafe/parked/<its name>`.
pub struct Rule {
    route: Route,
    from: Vec<Filter>,
    parked: Topic,
    when: Option<Condition>,
    what: What,
    bodies: Option<Bodies>,
}

/// What is published.
pub(crate) enum What {
    Templates {
        to: Vec<Template>,
        body: Option<Box<Template>>,
        headers: Vec<(String, Template)>,
    },
    Github(Option<Github>),
}

impl Rule {
    /// Checks a route. The secret is what [`Preset::Github`] verifies with what no source has;
    /// without one it refuses that.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn new(route: Route, github: Option<&[u8]>) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::default();
        let parked = faults.name(&route.name);
        let from = faults.from(&route);
        let when = faults.when(&route);
        let what = match route.preset {
            Some(Preset::Github) => faults.github(&route, github),
            None => faults.templates(&route),
        };
        faults.unless_any(parked.map(|parked| Self {
            from,
            parked,
            when,
            what,
            route,
            bodies: None,
        }))
    }

    /// Shares what it has parsed with the other rules that share this.
    #[must_use]
    pub fn sharing(mut self, bodies: &Bodies) -> Self {
        self.bodies = Some(bodies.clone());
        self
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.route.name
    }

    /// What its file said.
    #[must_use]
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// Whether it routes only what a source has verified as GitHub's, for want of the secret.
    #[must_use]
    pub fn lacks_secret(&self) -> bool {
        matches!(self.what, What::Github(None))
    }

    /// Whether everything that it publishes on one of its topics is read by the other.
    pub(crate) fn feeds(&self, other: &Self) -> bool {
        let is_read = |begin: &str, is_open: bool| {
            other.from.iter().any(|filter| match filter {
                Filter::Topic(topic) => !is_open && topic.as_str() == begin,
                Filter::Prefix(_) => {
                    let prefix = filter.as_str();
                    let is_unsafe = begin.starts_with('/');
                    !begin.is_empty()
                        && begin.starts_with(prefix)
                        && is_unsafe == prefix.starts_with('/')
                }
            })
        };
        match self.what {
            What::Github(_) => is_read("github.com/repo/", true),
            What::Templates { .. } => self.route.to.iter().any(|to| {
                let (begin, is_open) = literal(to.trim());
                is_read(begin, is_open)
            }),
        }
    }

    /// Whether it reads this topic. What the broker itself has put aside is read only by who asks
    /// for just that.
    fn reads(&self, topic: &Topic) -> bool {
        self.from.iter().any(|filter| {
            filter.matches(topic) && (!topic.is_brokers_own() || filter != &filter.space())
        })
    }

    /// What to publish, if the message is for this rule.
    fn publications(&self, message: &Message) -> Result<Vec<Publication>, Why> {
        let topic = message.topic();
        if !self.reads(topic) {
            return Err(Why::NotMatched(Unmatched::From));
        }
        let verifies_itself = matches!(self.what, What::Github(_));
        let verified_by = message.publication.attributes.get(VERIFIED_BY);
        if topic.is_unsafe() && !verifies_itself && verified_by.is_none() && !self.route.unverified
        {
            return Err(Why::NotMatched(Unmatched::Unverified));
        }
        let view = View::sharing(message, self.bodies.as_ref());
        if let Some(when) = &self.when {
            let holds = when.holds(&view);
            let holds = holds.map_err(|reason| failed("when", reason));
            if !holds? {
                return Err(Why::NotMatched(Unmatched::When));
            }
        }
        let hops = Hops::of(message).next().ok_or(RouteError::Circle)?;
        let mut publications = match &self.what {
            What::Github(github) => {
                let routed = if verified_by == Some(Provider::Github.name().as_bytes()) {
                    Github::route_verified(message)
                } else {
                    let github = github.as_ref().ok_or(RouteError::NoSecret);
                    github.and_then(|github| github.route(message))
                };
                match routed {
                    Err(error) if error.is_distrust() => return Err(Why::Refused(error)),
                    routed => routed?,
                }
            }
            What::Templates { to, body, headers } => {
                let text = |part, template: &Template| {
                    let text = template.render(&view);
                    text.map_err(|reason| failed(part, reason))
                };
                let to = to.iter().map(|to| own_topic(text("to", to)?.trim()));
                let to: Vec<_> = to.collect::<Result<_, RouteError>>()?;
                let body = body.as_ref().map(|body| text("body", body)).transpose()?;
                let headers = headers.iter().map(|(name, value)| {
                    let value = text("headers", value)?;
                    Ok((name.as_str(), header(value.trim())?.to_owned()))
                });
                let headers: Vec<_> = headers.collect::<Result<_, RouteError>>()?;
                let publication = |topic| published(message, topic, body.as_deref(), &headers);
                to.into_iter().map(publication).collect()
            }
        };
        for publication in &mut publications {
            publication.attributes = hops.inherit(message);
        }
        Ok(publications)
    }
}

impl Router for Rule {
    fn name(&self) -> &str {
        &self.route.name
    }

    fn topics(&self) -> Vec<Filter> {
        self.from.clone()
    }

    fn route(&self, message: &Message) -> Outcome {
        match self.publications(message) {
            Ok(publications) => Ok(publications).into(),
            Err(Why::NotMatched(why)) => Outcome::NotMatched(why),
            Err(Why::Refused(error)) => Outcome::Refused(error),
            // It is kept already.
            Err(Why::Failed(error)) if message.topic().is_brokers_own() => Outcome::Refused(error),
            Err(Why::Failed(error)) => {
                let parked = parked(message, self.name(), &self.parked, &error);
                Outcome::Parked(Box::new(parked), error)
            }
        }
    }

    fn parked(&self, message: &Message, error: RouteError) -> Outcome {
        if message.topic().is_brokers_own() {
            return Outcome::Refused(error);
        }
        let parked = parked(message, self.name(), &self.parked, &error);
        Outcome::Parked(Box::new(parked), error)
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rule").field(&self.route).finish()
    }
}

/// Why nothing is published.
enum Why {
    NotMatched(Unmatched),
    Refused(RouteError),
    Failed(RouteError),
}

impl From<RouteError> for Why {
    fn from(error: RouteError) -> Self {
        Self::Failed(error)
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

fn failed(part: &'static str, reason: String) -> RouteError {
    RouteError::Evaluation { part, reason }
}

/// The attribute of a message that is what a provider sent.
const VERIFIED_BY: &str = "verified_by";

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use hookbot_protocol::Offset;
    use proptest::prelude::*;

    use super::*;
    use crate::route::Part;

    const PUSH: &str = include_str!("../tests/data/push.json");

    fn route(from: &str, to: &str) -> Route {
        Route {
            name: "r".to_owned(),
            from: vec![from.to_owned()],
            to: vec![to.to_owned()],
            ..Route::default()
        }
    }

    fn rule(route: Route) -> Rule {
        Rule::new(route, None).unwrap()
    }

    fn message(topic: &str, body: &str) -> Message {
        sent(Publication {
            method: "POST".into(),
            query: "a=1&b=x%20y".into(),
            headers: [("x-event", &b"push"[..]), ("x-odd", b"\xff")]
                .into_iter()
                .collect(),
            ..Publication::new(Topic::parse(topic).unwrap(), body.to_owned())
        })
    }

    fn sent(publication: Publication) -> Message {
        Message::new(publication, Offset(7), SystemTime::UNIX_EPOCH)
    }

    fn published(outcome: Outcome) -> Vec<Publication> {
        match outcome {
            Outcome::Published(publications) => publications,
            other => panic!("{other:?}"),
        }
    }

    fn parked_because(outcome: Outcome) -> String {
        match outcome {
            Outcome::Parked(publication, _) => {
                assert_eq!(publication.topic.as_str(), "/unsafe/parked/r");
                let reason = publication.attributes.get("parked_because").unwrap();
                String::from_utf8(reason.to_vec()).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Whether a rule with this condition is for a message with this body.
    fn holds(when: &str, body: &str) -> bool {
        let rule = rule(Route {
            when: Some(when.to_owned()),
            ..route("in/", "out")
        });
        match Router::route(&rule, &message("in/x", body)) {
            Outcome::Published(_) => true,
            Outcome::NotMatched(Unmatched::When) => false,
            other => panic!("{when}: {other:?}"),
        }
    }

    /// The topic that a template makes of a message.
    fn to(template: &str, body: &str) -> Outcome {
        Router::route(&rule(route("in/", template)), &message("in/x", body))
    }

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
    fn a_condition_sees_everything_that_is_known_of_a_message() {
        for when in [
            r#"topic == "in/x""#,
            r#"method == "POST" and query.a == "1" and query.b == "x y""#,
            r#"headers["x-event"] == "push" and headers["X-Event"] == "push""#,
            r#""x-event" in headers and "y" not in headers"#,
            "body.n == 3 and body.list|length == 2 and body.list[-1] == none and body.list[0] == 1",
            r#"text.startswith("{") and offset == 7 and time == "1970-01-01T00:00:00.000Z""#,
            "verified_by is undefined and attributes.verified_by is undefined",
            "body.nope|default(3) == 3 and body.nope is undefined",
        ] {
            assert!(holds(when, r#"{"n":3,"list":[1,null]}"#), "{when}");
        }
    }

    #[test]
    fn what_is_not_there_is_false_whatever_is_done_with_it() {
        for when in [
            "body.nope",
            "body.nope.deeper[3].still",
            r#"body.nope.startswith("refs/")"#,
            r#"body.nope == "x""#,
            r#""x" in body.nope"#,
            "body.nope > 3",
            "body.nope < 3",
            "3 > body.nope",
            "body.nope.deeper <= 3",
            "not body.nope < 3 and body.nope < 3",
            r#"body.nope < "x""#,
            "body.nope|length > 0",
            "body.nope|int > 0",
            "body.nope + 1 == 2",
            "headers.nope or query.nope or verified_by",
            "body.n.nope.nope",
            "body.n.nope|length > 0",
            "body.n.nope < 3",
            "'x'.nope.startswith('x')",
        ] {
            for body in [r#"{"n":1}"#, "not JSON", "", "[]", "null"] {
                assert!(!holds(when, body), "{when} {body}");
            }
        }
        for when in [
            "not body.nope",
            "body.nope or body.n == 1",
            r#"body.nope.startswith("x") or body.n < 2"#,
            "body.nope is undefined and body.n < 2",
            "body.nope|default(1) < 2",
        ] {
            assert!(holds(when, r#"{"n":1}"#), "{when}");
        }
        // A control: these hold where it is there.
        for when in ["body.n < 3", "body.n > 0", "body.n|int > 0"] {
            assert!(holds(when, r#"{"n":1}"#), "{when}");
        }
    }

    #[test]
    fn rules_that_share_bodies_see_nothing_of_each_other() {
        let bodies = Bodies::default();
        let message = message("in/x", PUSH);
        let conditions = [
            ("body.nope < 3", false),
            (
                "body.ref < \"s\" and body.after == body.head_commit.id",
                true,
            ),
            ("body.nope.deeper > 3 or body.ref is defined", true),
            ("body.nope is undefined and body.commits|length > 0", true),
        ];
        let rules = conditions.map(|(when, holds)| {
            let route = Route {
                when: Some(when.to_owned()),
                ..route("in/", "out")
            };
            (rule(route).sharing(&bodies), holds)
        });
        let message = &message;
        std::thread::scope(|scope| {
            for (rule, holds) in &rules {
                scope.spawn(move || {
                    for _ in 0..1_000 {
                        let outcome = Router::route(rule, message);
                        let is_routed = matches!(outcome, Outcome::Published(_));
                        assert_eq!(is_routed, *holds, "{rule:?}: {outcome:?}");
                    }
                });
            }
        });
        assert_eq!(bodies.len(), 1, "for all of them");
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
    fn a_parked_message_is_the_one_that_came_and_is_not_parked_again() {
        let rule = rule(Route {
            unverified: true,
            ..route("/unsafe/parked/", "out/{{ body.nope }}")
        });
        let Outcome::Parked(first, _) = to("out/{{ body.nope }}", "{}") else {
            panic!("parked");
        };
        let original = message("in/x", "{}").publication;
        assert_eq!(first.body, original.body);
        assert_eq!(first.headers, original.headers);
        assert_eq!(first.attributes.get("parked_from"), Some(&b"in/x"[..]));
        let again = Router::route(&rule, &sent(*first));
        assert!(matches!(again, Outcome::Refused(_)), "{again:?}");
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

    #[test]
    fn nothing_unverified_is_routed_unless_the_rule_says_so() {
        let strict = rule(route("/unsafe/", "out"));
        let lax = rule(Route {
            unverified: true,
            ..route("/unsafe/", "out")
        });
        let mut message = message("/unsafe/x", "{}");
        let outcome = Router::route(&strict, &message);
        assert!(matches!(
            outcome,
            Outcome::NotMatched(Unmatched::Unverified)
        ));
        assert_eq!(published(Router::route(&lax, &message)).len(), 1);
        // A header is anybody's, an attribute is the broker's.
        message.publication.headers.push("verified_by", b"github");
        let outcome = Router::route(&strict, &message);
        assert!(matches!(
            outcome,
            Outcome::NotMatched(Unmatched::Unverified)
        ));
        let attributes = &mut message.publication.attributes;
        attributes.push("verified_by", b"github");
        assert_eq!(published(Router::route(&strict, &message)).len(), 1);
    }

    #[test]
    fn what_the_broker_has_put_aside_is_read_only_by_who_asks_for_it() {
        let reads = |from: &str, topic: &str| {
            let rule = rule(Route {
                unverified: true,
                ..route(from, "out")
            });
            matches!(
                Router::route(&rule, &message(topic, "{}")),
                Outcome::Published(_)
            )
        };
        assert!(reads("/unsafe/", "/unsafe/x"));
        for own in ["/unsafe/parked/r", "/unsafe/quarantine/x"] {
            assert!(!reads("/unsafe/", own), "{own}");
        }
        assert!(reads("/unsafe/parked/", "/unsafe/parked/r"));
        assert!(reads("/unsafe/parked/r", "/unsafe/parked/r"));
        assert!(!reads("in/", "elsewhere"));
    }

    #[test]
    fn a_message_that_goes_in_circles_is_parked_after_eight_hops() {
        let there = rule(route("in/", "{{ topic }}"));
        let mut message = message("in/x", "{}");
        for hop in 1..=8 {
            let publication = published(Router::route(&there, &message)).remove(0);
            let hops = hop.to_string();
            assert_eq!(
                publication.attributes.get("hops"),
                Some(hops.as_bytes()),
                "{hop}"
            );
            message = sent(publication);
        }
        let reason = parked_because(Router::route(&there, &message));
        assert!(reason.contains("circles"), "{reason}");
    }

    #[test]
    fn everything_that_is_wrong_with_a_route_is_told_at_once() {
        let parts = |route: Route| -> Vec<Part> {
            let faults = Rule::new(route, None).unwrap_err();
            faults.into_iter().map(|fault| fault.part).collect()
        };
        assert_eq!(
            parts(Route {
                name: "a/b".to_owned(),
                from: vec!["in/".to_owned(), "//".to_owned()],
                when: Some("body.".to_owned()),
                to: vec!["out".to_owned(), "out/{{ x".to_owned()],
                body: Some("{{ bdy }}".to_owned()),
                headers: vec![("X-Upper".to_owned(), String::new())],
                ..Route::default()
            }),
            [
                Part::Name,
                Part::From(1),
                Part::When,
                Part::To(1),
                Part::Body,
                Part::Header("X-Upper".to_owned()),
            ]
        );
        for (template, part) in [
            ("{{ body.x|nope }}", Part::To(0)),
            ("{{ body.x is nope }}", Part::To(0)),
            ("{{ nope(body) }}", Part::To(0)),
            ("{{ namespace(a=1) }}", Part::To(0)),
            ("status", Part::To(0)),
            ("a//b", Part::To(0)),
            ("", Part::To(0)),
            ("/unsafe/parked/x", Part::To(0)),
            ("{% include 'x' %}", Part::To(0)),
            ("{% macro f() %}{% endmacro %}", Part::To(0)),
        ] {
            assert_eq!(parts(route("in/", template)), [part], "{template}");
        }
        assert_eq!(
            parts(Route::default()),
            [Part::Name, Part::From(0), Part::To(0)]
        );
        let preset = Route {
            preset: Some(Preset::Github),
            ..route("in/", "out")
        };
        assert_eq!(parts(preset), [Part::To(0)]);
    }

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
}

//! A route that is ready to be followed.

use std::fmt;
use std::sync::Arc;

use hookbot_protocol::{Filter, Message, Publication, Topic};
use hookbot_signatures::Provider;

use crate::draft::Draft;
use crate::faults::Faults;
use crate::github::Github;
use crate::hops::Hops;
use crate::outcome::{Outcome, Unmatched};
use crate::parked::parked;
use crate::route::{Fault, Preset, Route};
use crate::router::{RouteError, Router};
use crate::template::{Condition, literal};
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
}

/// What is published.
pub(crate) enum What {
    Draft(Draft),
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
        }))
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
            What::Draft(_) => self.route.to.iter().any(|to| {
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
    fn publications(&self, message: &Message, view: &Arc<View>) -> Result<Vec<Publication>, Why> {
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
        if let Some(when) = &self.when {
            let holds = when.holds(view);
            let part = "when";
            let holds = holds.map_err(|reason| RouteError::Evaluation { part, reason });
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
            What::Draft(draft) => draft.publications(message, view)?,
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
        self.route_shared(message, &View::new(message))
    }

    fn route_shared(&self, message: &Message, view: &Arc<View>) -> Outcome {
        match self.publications(message, view) {
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

/// The attribute of a message that is what a provider sent.
const VERIFIED_BY: &str = "verified_by";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Part;
    use crate::tests::samples::{PUSH, message, parked_because, published, route, rule, sent, to};

    #[test]
    fn rules_that_share_a_view_see_nothing_of_each_other() {
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
            (rule(route), holds)
        });
        let message = &message("in/x", PUSH);
        let view = &View::new(message);
        std::thread::scope(|scope| {
            for (rule, holds) in &rules {
                scope.spawn(move || {
                    for _ in 0..1_000 {
                        let outcome = rule.route_shared(message, view);
                        let is_routed = matches!(outcome, Outcome::Published(_));
                        assert_eq!(is_routed, *holds, "{rule:?}: {outcome:?}");
                    }
                });
            }
        });
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
}

//! Routes, and messages for them.

use std::time::SystemTime;

use hookbot_protocol::{Message, Offset, Publication, Topic};

use crate::{Outcome, Route, Router, Rule, Unmatched};

pub(crate) const PUSH: &str = include_str!("../../tests/data/push.json");

pub(crate) fn route(from: &str, to: &str) -> Route {
    Route {
        name: "r".to_owned(),
        from: vec![from.to_owned()],
        to: vec![to.to_owned()],
        ..Route::default()
    }
}

pub(crate) fn rule(route: Route) -> Rule {
    Rule::new(route, None).unwrap()
}

pub(crate) fn message(topic: &str, body: &str) -> Message {
    sent(Publication {
        method: "POST".into(),
        query: "a=1&b=x%20y".into(),
        headers: [("x-event", &b"push"[..]), ("x-odd", b"\xff")]
            .into_iter()
            .collect(),
        ..Publication::new(Topic::parse(topic).unwrap(), body.to_owned())
    })
}

pub(crate) fn sent(publication: Publication) -> Message {
    Message::new(publication, Offset(7), SystemTime::UNIX_EPOCH)
}

pub(crate) fn published(outcome: Outcome) -> Vec<Publication> {
    match outcome {
        Outcome::Published(publications) => publications,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn parked_because(outcome: Outcome) -> String {
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
pub(crate) fn holds(when: &str, body: &str) -> bool {
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
pub(crate) fn to(template: &str, body: &str) -> Outcome {
    Router::route(&rule(route("in/", template)), &message("in/x", body))
}

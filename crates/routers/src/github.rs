//! GitHub's router: what strangers could have posted becomes topics that only GitHub writes to.
//!
//! It knows a delivery's headers, its signature and the few fields it routes by. It never trusts
//! a field of a body whose signature it has not checked.
//!
//! The event's type is a header, and GitHub signs bodies only: who holds one signed body can have
//! it routed again, and as another event.

use std::borrow::Cow;

use hookbot_protocol::{Envelope, Filter, Message, Publication, Topic};
use hookbot_signatures::EmptySecret;
use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;
use crate::router::{RouteError, Router};
use crate::signature::Verifier;

/// Republishes what GitHub signed, from `/unsafe/github.com/` to one topic a branch, and one a
/// kind of event.
///
/// A push to a branch becomes a short JSON object on `github.com/repo/<owner/repo>/branch/<branch>`;
/// a deleted branch is a push too, of a SHA that is all zeros. Any other event goes, whole and in
/// an [`Envelope`], to `github.com/repo/<owner/repo>/event/<type>`.
#[derive(Debug)]
pub struct Github {
    verifier: Verifier,
}

impl Github {
    /// Trusts what is signed with `secret`, the one typed into the webhook's settings.
    ///
    /// # Errors
    ///
    /// When the secret is empty.
    pub fn new(secret: &[u8]) -> Result<Self, EmptySecret> {
        let verifier = Verifier::new(secret)?;
        Ok(Self { verifier })
    }

    /// What to publish because of `message`: one publication, or none.
    ///
    /// # Errors
    ///
    /// When the message can't be trusted or understood.
    pub fn route(&self, message: &Message) -> Result<Vec<Publication>, RouteError> {
        let delivery = delivery(&message.publication)?;
        self.verifier.verify(&delivery)?;
        publications(&delivery)
    }

    /// What to publish because of a message that a source has verified, as it came.
    ///
    /// # Errors
    ///
    /// When it can't be understood.
    pub(crate) fn route_verified(message: &Message) -> Result<Vec<Publication>, RouteError> {
        // Of an envelope it would be the outside that was signed.
        if message.publication.headers.get(EVENT).is_none() {
            return Err(RouteError::NotADelivery);
        }
        publications(&delivery(&message.publication)?)
    }

    /// Where GitHub's webhooks post.
    pub(crate) fn reads() -> Vec<Filter> {
        vec![Filter::parse(POSTED).expect("a constant prefix")]
    }
}

impl Router for Github {
    fn name(&self) -> &str {
        "github"
    }

    fn topics(&self) -> Vec<Filter> {
        Self::reads()
    }

    fn route(&self, message: &Message) -> Outcome {
        self.route(message).into()
    }
}

/// The fields of a push that subscribers get to see.
#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: String,
    after: String,
    repository: Repository,
    pusher: Option<Pusher>,
}

/// Any other event; those of an organization have no repository.
#[derive(Deserialize)]
struct Event {
    repository: Option<Repository>,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

#[derive(Deserialize)]
struct Pusher {
    #[serde(default)]
    name: String,
}

impl Repository {
    /// The topic for `rest` of this repository.
    fn topic(&self, rest: [&str; 2]) -> Result<Topic, RouteError> {
        let [kind, name] = rest;
        let full_name = &self.full_name;
        // With more slashes, one repository's topics could pass for another's.
        if full_name.split('/').count() != 2 {
            return Err(RouteError::FullName);
        }
        let topic = format!("github.com/repo/{full_name}/{kind}/{name}");
        Ok(Topic::parse(&topic)?)
    }
}

/// What is published for a push, with these keys in this order.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Update<'a> {
    r#type: &'a str,
    repo: &'a str,
    branch: &'a str,
    #[serde(rename = "SHA")]
    sha: &'a str,
    who: &'a str,
}

/// What to publish for a delivery that is GitHub's.
fn publications(delivery: &Envelope) -> Result<Vec<Publication>, RouteError> {
    let json = json(&delivery.payload);
    let publication = match &*delivery.event {
        "push" => pushed(&json)?,
        _ => happened(delivery, &json)?,
    };
    Ok(publication.into_iter().collect())
}

/// What GitHub sent: from the headers it came with, or from the envelope that the body is once
/// somebody has passed it on.
fn delivery(publication: &Publication) -> Result<Envelope, RouteError> {
    let Publication { headers, body, .. } = publication;
    if headers.get(EVENT).is_none() {
        // The reason would quote a stranger, at any length.
        return Envelope::from_json(body).map_err(|_| RouteError::NotADelivery);
    }
    for name in [EVENT, "x-hub-signature-256", "x-hub-signature"] {
        let values = headers.iter().filter(|(own, _)| *own == name);
        if values
            .map(|(_, value)| value)
            .any(|value| headers.get(name) != Some(value))
        {
            return Err(RouteError::Repeated(name));
        }
    }
    Ok(Envelope::new(headers, body.clone()))
}

/// The JSON in a payload, or in the form's field that it may be in.
fn json(payload: &[u8]) -> Cow<'_, [u8]> {
    // The body tells, not its content type: an envelope has none, and `curl --data` calls
    // everything a form.
    let first = form_urlencoded::parse(payload).next();
    match first {
        Some((name, json)) if name == "payload" => json.into_owned().into_bytes().into(),
        _ => payload.into(),
    }
}

/// What to publish for a push; nothing for a tag.
fn pushed(json: &[u8]) -> Result<Option<Publication>, RouteError> {
    let push: Push = serde_json::from_slice(json)?;
    let Some(branch) = push.reference.strip_prefix("refs/heads/") else {
        return Ok(None);
    };
    let topic = push.repository.topic(["branch", branch])?;
    let who = push.pusher.as_ref().map_or("<unknown>", |who| &who.name);
    let update = serde_json::to_vec(&Update {
        r#type: "push",
        repo: &push.repository.full_name,
        branch,
        sha: &push.after,
        who,
    })?;
    Ok(Some(Publication::new(topic, update)))
}

/// What to publish for an event other than a push; nothing for one without a repository.
fn happened(delivery: &Envelope, json: &[u8]) -> Result<Option<Publication>, RouteError> {
    let event: Event = serde_json::from_slice(json)?;
    let Some(repository) = event.repository else {
        return Ok(None);
    };
    if delivery.event.contains('/') {
        return Err(RouteError::EventType);
    }
    let topic = repository.topic(["event", &delivery.event])?;
    Ok(Some(Publication::new(topic, delivery.to_json())))
}

/// Where GitHub's webhooks post.
const POSTED: &str = "/unsafe/github.com/";

const EVENT: &str = "x-github-event";

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use hmac::{Hmac, KeyInit, Mac};
    use hookbot_protocol::{Offset, TopicError};
    use proptest::prelude::*;
    use sha1::Sha1;
    use sha2::Sha256;

    use super::*;
    use crate::outcome::Unmatched;
    use crate::route::{Preset, Route};
    use crate::rule::Rule;

    const SECRET: &[u8] = b"anvil";
    const PUSH: &str = include_str!("../tests/data/push.json");
    const UPDATE: &str = concat!(
        r#"{"Type":"push","Repo":"acme/site","Branch":"main","#,
        r#""SHA":"c0ffee1234567890abcdef1234567890abcdef12","Who":"runner-example"}"#
    );

    fn sha256(body: &[u8]) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("any length is fine");
        let mac = mac.chain_update(body).finalize().into_bytes();
        format!("sha256={}", hex::encode(mac))
    }

    fn sha1(body: &[u8]) -> String {
        let mac = Hmac::<Sha1>::new_from_slice(SECRET).expect("any length is fine");
        let mac = mac.chain_update(body).finalize().into_bytes();
        format!("sha1={}", hex::encode(mac))
    }

    fn posted(headers: &[(&str, &[u8])], body: &[u8]) -> Message {
        let topic = Topic::parse("/unsafe/github.com/org/acme").expect("a topic");
        let publication = Publication {
            headers: headers.iter().copied().collect(),
            ..Publication::new(topic, body.to_vec())
        };
        Message::new(publication, Offset(1), SystemTime::UNIX_EPOCH)
    }

    /// What the router makes of a message. A route with its preset makes the same of it.
    fn route(message: &Message) -> Result<Vec<(String, String)>, RouteError> {
        let github = Github::new(SECRET).expect("a secret");
        let result = github.route(message).map(texts);
        match (&result, Router::route(&preset(Some(SECRET)), message)) {
            (Ok(texts), Outcome::NotMatched(Unmatched::Nothing)) => assert!(texts.is_empty()),
            (Ok(expected), Outcome::Published(publications)) => {
                assert_eq!(&texts(publications), expected);
            }
            (Err(error), Outcome::Refused(other)) => {
                assert!(error.is_distrust());
                assert_eq!(error.to_string(), other.to_string());
            }
            (Err(error), Outcome::Parked(publication, other)) => {
                assert!(!error.is_distrust());
                assert_eq!(error.to_string(), other.to_string());
                assert_eq!(publication.body, message.publication.body);
            }
            (_, outcome) => panic!("{outcome:?}"),
        }
        result
    }

    fn preset(secret: Option<&[u8]>) -> Rule {
        let route = Route {
            name: "github".to_owned(),
            preset: Some(Preset::Github),
            ..Route::default()
        };
        Rule::new(route, secret).expect("a good route")
    }

    fn texts(publications: Vec<Publication>) -> Vec<(String, String)> {
        let texts = publications.into_iter().map(|publication| {
            let body = String::from_utf8(publication.body.to_vec()).expect("JSON is UTF-8");
            (publication.topic.to_string(), body)
        });
        texts.collect()
    }

    /// What a delivery is routed to that GitHub signed.
    fn signed(event: &str, body: &str) -> Result<Vec<(String, String)>, RouteError> {
        let signature = sha256(body.as_bytes());
        route(&posted(
            &[
                ("x-github-event", event.as_bytes()),
                ("x-hub-signature-256", signature.as_bytes()),
            ],
            body.as_bytes(),
        ))
    }

    fn push(full_name: &str, reference: &str) -> String {
        serde_json::json!({
            "ref": reference,
            "after": "00ff",
            "repository": { "full_name": full_name },
        })
        .to_string()
    }

    fn to_main() -> Vec<(String, String)> {
        let topic = "github.com/repo/acme/site/branch/main";
        vec![(topic.to_owned(), UPDATE.to_owned())]
    }

    #[test]
    fn a_push_becomes_an_update_on_its_branch() {
        assert_eq!(signed("push", PUSH).unwrap(), to_main());
    }

    #[test]
    fn a_branch_may_have_slashes_and_a_pusher_may_be_missing() {
        let update = r#"{"Type":"push","Repo":"acme/site","Branch":"fix/a/ü","SHA":"00ff","Who":"<unknown>"}"#;
        assert_eq!(
            signed("push", &push("acme/site", "refs/heads/fix/a/ü")).unwrap(),
            [(
                "github.com/repo/acme/site/branch/fix/a/ü".to_owned(),
                update.to_owned()
            )]
        );
    }

    #[test]
    fn only_branches_are_rebroadcast() {
        for reference in [
            "refs/tags/v1",
            "refs/pull/1/head",
            "main",
            "refs/heads",
            "Refs/heads/main",
            "",
        ] {
            let routed = signed("push", &push("acme/site", reference)).unwrap();
            assert_eq!(routed, [], "{reference:?}");
        }
    }

    #[test]
    fn a_hostile_name_makes_no_topic() {
        let long = format!("refs/heads/{}", "x".repeat(1_024));
        for (full_name, reference, error) in [
            ("acme/site", "refs/heads/", TopicError::EmptySegment),
            ("acme/site", "refs/heads/a//b", TopicError::EmptySegment),
            ("acme/site", "refs/heads/a/", TopicError::EmptySegment),
            ("acme/site", "refs/heads//a", TopicError::EmptySegment),
            ("acme/site", "refs/heads/../x", TopicError::DotSegment),
            ("acme/site", "refs/heads/a\0b", TopicError::Control),
            ("acme/site", "refs/heads/a\nb", TopicError::Control),
            ("acme/site", &long, TopicError::TooLong),
            ("../site", "refs/heads/a", TopicError::DotSegment),
            ("acme/..", "refs/heads/a", TopicError::DotSegment),
            ("acme/", "refs/heads/a", TopicError::EmptySegment),
            ("/site", "refs/heads/a", TopicError::EmptySegment),
            ("acme/\u{7f}", "refs/heads/a", TopicError::Control),
        ] {
            let result = signed("push", &push(full_name, reference));
            assert!(
                matches!(result, Err(RouteError::Topic(found)) if found == error),
                "{full_name:?} {reference:?}: {result:?}"
            );
        }
        for full_name in ["", "acme", "acme/site/branch", "/acme/site", "acme//site"] {
            let result = signed("push", &push(full_name, "refs/heads/a"));
            assert!(matches!(result, Err(RouteError::FullName)), "{full_name:?}");
        }
        let body = r#"{"repository":{"full_name":"acme/site"}}"#;
        for event in ["", ".", "..", "a\0b"] {
            let result = signed(event, body);
            assert!(matches!(result, Err(RouteError::Topic(_))), "{event:?}");
        }
        assert!(matches!(signed("a/b", body), Err(RouteError::EventType)));
    }

    #[test]
    fn another_event_keeps_its_envelope() {
        let body = r#"{"action":"published","repository":{"full_name":"acme/site"}}"#;
        let signature = sha256(body.as_bytes());
        let message = posted(
            &[
                ("x-github-delivery", b"72d3162e-cc78-11e3-81ab-4c9367dc0958"),
                ("x-github-event", b"release"),
                ("x-hub-signature-256", signature.as_bytes()),
            ],
            body.as_bytes(),
        );
        let [(topic, envelope)] = &route(&message).unwrap()[..] else {
            panic!("one publication");
        };
        assert_eq!(topic, "github.com/repo/acme/site/event/release");
        let envelope = Envelope::from_json(envelope.as_bytes()).unwrap();
        let publication = &message.publication;
        let original = Envelope::new(&publication.headers, publication.body.clone());
        assert_eq!(envelope, original);
        assert_eq!(envelope.payload, body);
    }

    #[test]
    fn an_event_without_a_repository_goes_nowhere() {
        for body in [r#"{"zen":"Keep it small."}"#, r#"{"repository":null}"#] {
            assert_eq!(signed("ping", body).unwrap(), []);
        }
    }

    #[test]
    fn a_delivery_that_github_did_not_sign_goes_nowhere() {
        let event: (&str, &[u8]) = ("x-github-event", b"push");
        let signature = sha256(PUSH.as_bytes());
        let weak = sha1(PUSH.as_bytes());
        let good: (&str, &[u8]) = ("x-hub-signature-256", signature.as_bytes());
        let weak: (&str, &[u8]) = ("x-hub-signature", weak.as_bytes());
        let bad: (&str, &[u8]) = ("x-hub-signature-256", b"sha256=00");
        let blank: (&str, &[u8]) = ("x-hub-signature-256", b"");

        let with = |headers: &[_]| route(&posted(headers, PUSH.as_bytes()));
        assert!(matches!(with(&[event]), Err(RouteError::Unsigned)));
        assert!(matches!(with(&[event, blank]), Err(RouteError::Unsigned)));
        assert!(matches!(
            with(&[event, bad, weak]),
            Err(RouteError::BadSignature)
        ));
        assert_eq!(with(&[event, weak]).unwrap(), to_main());
        assert_eq!(with(&[event, blank, weak]).unwrap(), to_main());

        let mut flipped = PUSH.as_bytes().to_vec();
        for at in [0, flipped.len() / 2, flipped.len() - 1] {
            flipped[at] ^= 1;
            let result = route(&posted(&[event, good], &flipped));
            assert!(matches!(result, Err(RouteError::BadSignature)));
            flipped[at] ^= 1;
        }
        assert_eq!(with(&[event, good]).unwrap(), to_main());
    }

    #[test]
    fn a_header_with_two_values_is_refused() {
        let signature = sha256(PUSH.as_bytes());
        let good: (&str, &[u8]) = ("x-hub-signature-256", signature.as_bytes());
        let event: (&str, &[u8]) = ("x-github-event", b"push");
        let with = |headers: &[_]| route(&posted(headers, PUSH.as_bytes()));
        for other in [
            ("x-hub-signature-256", &b"sha256=00"[..]),
            ("x-hub-signature-256", b""),
            ("x-github-event", b"release"),
        ] {
            for headers in [[event, good, other], [other, event, good]] {
                let result = with(&headers);
                assert!(matches!(result, Err(RouteError::Repeated(_))), "{other:?}");
            }
        }
        assert_eq!(with(&[event, good, good]).unwrap(), to_main());
    }

    #[test]
    fn an_envelope_in_the_body_is_verified_by_what_is_in_it() {
        let envelope = Envelope {
            delivery: String::new(),
            event: "push".to_owned(),
            payload: PUSH.into(),
            signature: String::new(),
            signature256: sha256(PUSH.as_bytes()),
        };
        let with = |envelope: &Envelope| route(&posted(&[], &envelope.to_json()));
        assert_eq!(with(&envelope).unwrap(), to_main());
        let unsigned = Envelope {
            signature256: String::new(),
            ..envelope.clone()
        };
        assert!(matches!(with(&unsigned), Err(RouteError::Unsigned)));
        let other = Envelope {
            payload: PUSH.replace("acme/site", "evil/site").into(),
            ..envelope
        };
        assert!(matches!(with(&other), Err(RouteError::BadSignature)));
    }

    #[test]
    fn what_a_source_has_verified_needs_no_secret_here() {
        let verified = |by: &str, message: Message| {
            let publication = Publication {
                attributes: [("verified_by", by.as_bytes())].into_iter().collect(),
                ..message.publication
            };
            let message = Message::new(publication, Offset(1), SystemTime::UNIX_EPOCH);
            [None, Some(SECRET)].map(|secret| Router::route(&preset(secret), &message))
        };
        let push = || posted(&[("x-github-event", b"push")], PUSH.as_bytes());
        for outcome in verified("github", push()) {
            let Outcome::Published(publications) = outcome else {
                panic!("{outcome:?}");
            };
            assert_eq!(texts(publications), to_main());
        }
        // Another's word for it is no word of GitHub's.
        let outcomes = verified("gitea", push());
        assert!(matches!(
            outcomes[0],
            Outcome::Refused(RouteError::NoSecret)
        ));
        assert!(matches!(
            outcomes[1],
            Outcome::Refused(RouteError::Unsigned)
        ));
        // What is in an envelope is not what the source has looked at.
        let envelope = Envelope::new(&push().publication.headers, PUSH.into());
        for outcome in verified("github", posted(&[], &envelope.to_json())) {
            assert!(matches!(
                outcome,
                Outcome::Refused(RouteError::NotADelivery)
            ));
        }
    }

    #[test]
    fn the_go_programs_envelope_is_routed() {
        let envelope = Envelope {
            delivery: "1".to_owned(),
            event: "push".to_owned(),
            payload: PUSH.into(),
            signature: sha1(PUSH.as_bytes()),
            signature256: String::new(),
        };
        let json = String::from_utf8(envelope.to_json().to_vec()).unwrap();
        let json = json.replace(r#","Signature256":"""#, "");
        assert!(!json.contains("256"));
        assert_eq!(route(&posted(&[], json.as_bytes())).unwrap(), to_main());
    }

    #[test]
    fn a_form_is_verified_raw_and_read_decoded() {
        let form: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("payload", PUSH)
            .finish();
        let signature = sha256(form.as_bytes());
        let headers: [(&str, &[u8]); 3] = [
            ("x-github-event", b"push"),
            ("x-hub-signature-256", signature.as_bytes()),
            (
                "content-type",
                b"Application/X-WWW-Form-URLencoded; charset=utf-8",
            ),
        ];
        let message = posted(&headers, form.as_bytes());
        assert_eq!(route(&message).unwrap(), to_main());

        let envelope = message.publication;
        let envelope = Envelope::new(&envelope.headers, envelope.body).to_json();
        assert_eq!(route(&posted(&[], &envelope)).unwrap(), to_main());

        let other_signature = sha256(PUSH.as_bytes());
        let mut resigned = headers;
        resigned[1].1 = other_signature.as_bytes();
        assert!(matches!(
            route(&posted(&resigned, form.as_bytes())),
            Err(RouteError::BadSignature)
        ));
    }

    #[test]
    fn json_that_is_called_a_form_is_json_all_the_same() {
        let signature = sha256(PUSH.as_bytes());
        let headers: [(&str, &[u8]); 3] = [
            ("x-github-event", b"push"),
            ("x-hub-signature-256", signature.as_bytes()),
            ("content-type", b"application/x-www-form-urlencoded"),
        ];
        assert_eq!(
            route(&posted(&headers, PUSH.as_bytes())).unwrap(),
            to_main()
        );
    }

    #[test]
    fn json_of_any_depth_is_an_error_and_nothing_worse() {
        let deep = "[".repeat(100_000);
        let ignored = format!(r#"{{"a":{deep}"#);
        let in_place = format!(r#"{{"repository":{deep}"#);
        for body in [&*deep, &ignored, &in_place, "", "null", "{", "[]"] {
            for event in ["push", "release"] {
                let result = signed(event, body);
                assert!(!matches!(result, Ok(routed) if !routed.is_empty()));
            }
            let result = route(&posted(&[], body.as_bytes()));
            assert!(matches!(result, Err(RouteError::NotADelivery)));
        }
        let closed = format!(r#"{{"a":{deep}{},"#, "]".repeat(100_000));
        let closed = push("acme/site", "refs/heads/a").replacen('{', &closed, 1);
        assert!(signed("push", &closed).is_ok());
    }

    #[test]
    fn an_error_tells_nothing_of_the_signature_it_wanted() {
        let right = sha256(PUSH.as_bytes());
        let headers: [(&str, &[u8]); 2] = [
            ("x-github-event", b"push"),
            ("x-hub-signature-256", b"sha256=00"),
        ];
        let error = route(&posted(&headers, PUSH.as_bytes())).unwrap_err();
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(!text.contains(&right["sha256=".len()..]));
        }
    }

    #[test]
    fn it_reads_what_anybody_may_post_for_github() {
        let github = Github::new(SECRET).unwrap();
        let topics = github.topics();
        let matches = |topic| {
            let topic = Topic::parse(topic).unwrap();
            topics.iter().any(|filter| filter.matches(&topic))
        };
        assert_eq!(github.name(), "github");
        assert!(matches("/unsafe/github.com/org/acme"));
        // What it publishes, it does not read again.
        assert!(!matches("github.com/repo/acme/site/branch/main"));
        assert_eq!(format!("{github:?}"), "Github { verifier: Verifier(..) }");
    }

    proptest! {
        #[test]
        fn nothing_unsigned_is_routed_and_nothing_panics(
            names in prop::collection::vec(
                prop::sample::select(vec![
                    "x-github-event",
                    "x-hub-signature-256",
                    "x-hub-signature",
                    "content-type",
                ]),
                0..6,
            ),
            value in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..80),
                "(sha1|sha256)=[0-9a-f]{0,66}".prop_map(String::into_bytes),
            ],
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let headers: Vec<_> = names.into_iter().map(|name| (name, &*value)).collect();
            prop_assert!(route(&posted(&headers, &body)).is_err());
        }

        #[test]
        fn a_signed_name_is_routed_below_its_repository_or_not_at_all(
            full_name in "[a./\0ü]{0,6}",
            reference in "(refs/heads/)?[a./\0ü]{0,8}",
            event in prop::sample::select(vec!["push", "release"]),
        ) {
            let body = push(&full_name, &reference);
            if let Ok(routed) = signed(event, &body) {
                let below = format!("github.com/repo/{full_name}/");
                prop_assert!(routed.iter().all(|(topic, _)| topic.starts_with(&below)));
            }
        }
    }
}

//! A path means one thing, however it is written.
//!
//! The input is tried as a raw path, and as the text of a topic that some path must lead to.

#![no_main]

use hookbot_protocol::{Endpoint, Filter, Path, Scope, Topic};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(path) = Path::parse(text) {
        let scope = Scope::parse(text).expect("a path is a scope");
        assert_eq!(scope.as_str(), path.as_str());
        if !matches!(path.endpoint(), Endpoint::Call(_)) {
            assert_eq!(Path::parse(&encoded(path.as_str())).as_ref(), Ok(&path));
            assert!(path.as_str().len() <= Path::MAX_BYTES);
        }
        check_granting(&path);
        check_endpoint(path.endpoint());
    }
    if let Ok(scope) = Scope::parse(text) {
        assert_eq!(Scope::parse(&scope.encoded()), Ok(scope));
    }
    if let Ok(topic) = Topic::parse(text) {
        check_reachable(topic);
    }
});

fn check_granting(path: &Path) {
    let granting: Vec<_> = path.granting().collect();
    assert!(granting.contains(&path.as_str()));
    assert!(granting.contains(&"/"));
    let bare = path.as_str().get("/pub".len()..).unwrap_or_default();
    for (at, scope) in granting.iter().enumerate() {
        assert!(!granting[..at].contains(scope), "{scope} twice");
        let covers =
            |path: &str| path == *scope || (scope.ends_with('/') && path.starts_with(scope));
        assert!(covers(path.as_str()) || covers(bare), "{scope}");
    }
}

fn check_endpoint(endpoint: &Endpoint) {
    match endpoint {
        Endpoint::Publish(topic) => {
            assert_eq!(Topic::parse(topic.as_str()).as_ref(), Ok(topic));
        }
        Endpoint::Call(call) => {
            for (topic, _) in call.candidates().filter(|(topic, _)| !topic.is_empty()) {
                assert!(topic == "/unsafe" || Topic::parse(topic).is_ok(), "{topic}");
            }
        }
        Endpoint::Subscribe(filter) | Endpoint::Combined(filter) | Endpoint::Answer(filter) => {
            assert_eq!(Filter::parse(&filter.to_string()).as_ref(), Ok(filter));
        }
        Endpoint::Other => {}
    }
}

/// What a router may publish to, a subscriber can name.
fn check_reachable(topic: Topic) {
    let path = match topic.as_str().strip_prefix("/unsafe/") {
        Some(name) => format!("/unsafe/sub/{name}"),
        None => format!("/sub/{topic}"),
    };
    let path = Path::parse(&encoded(&path)).expect("some path leads to a topic");
    assert_eq!(path.endpoint(), &Endpoint::Subscribe(Filter::Topic(topic)));
}

fn encoded(path: &str) -> String {
    path.replace('%', "%25").replace('?', "%3F")
}

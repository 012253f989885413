//! APIs that fail, refuse, or say what nobody is to see.

use std::time::Duration;

use hookbot_backfill::{Account, Api, Credential, Delivery, Error, Hook, Provider};

use crate::clock::Clock;
use crate::github::api;
use crate::stand_in::{Fault, Sent, StandIn, TOKEN};

fn hook(server: &StandIn, clock: &Clock) -> Hook {
    let account = Account::on_github("acme/site").unwrap();
    Hook::new(clock.of(api(server)), account, Some(7))
}

#[tokio::test(start_paused = true)]
async fn what_fails_in_passing_is_asked_for_again() {
    let clock = Clock::new();
    let server = StandIn::start().await;
    server.state().sent = vec![Sent::new(1, "a", 1)];
    server.state().faults = [502, 500, 408, 503].map(Fault::status).into();
    let found = hook(&server, &clock).attempts(|_| false).await.unwrap();
    assert_eq!((found.len(), clock.pauses()), (1, vec![1, 2, 4, 8]));

    server.state().faults = (0..9).map(|_| Fault::status(502)).collect();
    let error = hook(&server, &clock).attempts(|_| false).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(error.is_of_one_delivery() && error.to_string().contains("502"));
    assert_eq!(server.state().faults.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_never_answers_is_asked_again() {
    let clock = Clock::new();
    let server = StandIn::start().await;
    server.state().sent = vec![Sent::new(1, "a", 1)];
    let (asked, is_asked) = tokio::sync::oneshot::channel();
    server.state().faults = [Fault::Silence(asked)].into();
    let mut hook = hook(&server, &clock);
    let (found, ()) = tokio::join!(hook.attempts(|_| false), async {
        is_asked.await.unwrap();
        clock.advance(Duration::from_secs(60));
    });
    assert_eq!(found.unwrap().len(), 1);
    assert_eq!(
        clock.told(),
        ["GitHub: no answer within 60 s; waiting for 1 s"]
    );
}

#[tokio::test(start_paused = true)]
async fn delivering_again_is_not_tried_twice() {
    let clock = Clock::new();
    let server = StandIn::start().await;
    server.state().sent = vec![Sent::new(1, "a", 1)];
    let mut hook = hook(&server, &clock);
    let deliveries = Delivery::group(hook.attempts(|_| false).await.unwrap());
    server.state().faults = [Fault::status(502)].into();
    let error = hook.redeliver(&deliveries[0]).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert_eq!((server.targets().len(), clock.pauses().len()), (2, 0));
}

#[tokio::test]
async fn a_refusal_is_told_at_once_with_its_reason() {
    let server = StandIn::start().await;
    let token = Credential::Token("another".to_owned());
    let api = Api::new(Provider::Github, &server.url(), token).unwrap();
    let mut hook = Hook::new(api, Account::on_github("acme/site").unwrap(), Some(7));
    let error = hook.attempts(|_| false).await.unwrap_err();
    assert!(!error.is_of_one_delivery());
    let text = error.to_string();
    assert!(text.contains("401 Unauthorized: Bad credentials"), "{text}");
    assert!(
        text.contains("/repos/acme/site/hooks/7/deliveries"),
        "{text}"
    );
    assert_eq!(server.targets().len(), 1);
}

#[tokio::test]
async fn what_is_not_as_documented_is_named() {
    let server = StandIn::start().await;
    let answer = |body: &str| Fault::Answer(200, Vec::new(), body.to_owned());
    for body in ["", "<html>", "{}", r#"[{"id":"x"}]"#] {
        server.state().faults = [answer(body)].into();
        let mut hook = Hook::new(api(&server), Account::on_github("acme").unwrap(), Some(7));
        let error = hook.attempts(|_| false).await.unwrap_err();
        assert!(
            matches!(error, Error::Malformed { .. }),
            "{body}: {error:?}"
        );
    }
}

#[tokio::test]
async fn no_token_is_printed_even_if_it_comes_back() {
    let server = StandIn::start().await;
    server.state().faults = [Fault::Echo].into();
    let mut hook = Hook::new(api(&server), Account::on_github("acme").unwrap(), Some(7));
    let error = hook.attempts(|_| false).await.unwrap_err();
    for shown in [error.to_string(), format!("{error:?}"), format!("{hook:?}")] {
        assert!(
            !shown.contains(TOKEN) && !shown.contains('\u{1b}'),
            "{shown}"
        );
    }
    assert!(error.to_string().contains("not with Bearer ***"), "{error}");
}

#[test]
fn a_token_that_others_could_read_on_its_way_is_told() {
    for (url, is_exposed) in [
        ("https://github.example.com/api/v3", false),
        ("http://github.example.com/api/v3", true),
        ("http://127.0.0.1:8080", false),
        ("http://[::1]/", false),
        ("http://localhost/", false),
        ("http://192.168.0.1/", true),
    ] {
        let api = Api::new(Provider::Github, url, Credential::Token("t".to_owned()));
        assert_eq!(api.unwrap().is_exposed(), is_exposed, "{url}");
    }
}

#[test]
fn what_is_no_api_or_no_token_is_refused_without_being_repeated() {
    let new = |url: &str, token: &str| {
        Api::new(Provider::Github, url, Credential::Token(token.to_owned())).unwrap_err()
    };
    for url in [
        "",
        "ftp://x/",
        "api.github.com",
        "https://s3cret@x/",
        "https://x/?s3cret",
        "https://",
    ] {
        let error = new(url, "t");
        assert!(matches!(error, Error::Url(_)), "{url}: {error:?}");
        assert!(!error.to_string().contains("s3cret"));
    }
    for token in ["", "s3cret\n", "s3 cret", "s3cr\u{e9}t"] {
        let error = new("https://x", token);
        assert!(matches!(error, Error::Token), "{token:?}: {error:?}");
    }
}

//! Limits are waited out, as long as the provider says.

use std::time::Duration;

use hookbot_backfill::{Account, Error, Hook};

use crate::clock::Clock;
use crate::github::api;
use crate::stand_in::{Fault, Sent, StandIn};

/// The moment of the stand-in's answers, and 90 s later.
const NOW: &str = "Thu, 26 Nov 2026 10:00:00 GMT";
const RESET: &str = "1795687290";

fn hook(server: &StandIn, clock: &Clock) -> Hook {
    let account = Account::on_github("acme/site").unwrap();
    Hook::new(clock.of(api(server)), account, Some(7))
}

fn limited(status: u16, headers: &[(&'static str, &str)], message: &str) -> Fault {
    let headers = headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    Fault::Answer(
        status,
        headers.collect(),
        format!(r#"{{"message":"{message}"}}"#),
    )
}

const SECONDARY: &str = "You have exceeded a secondary rate limit.";

#[tokio::test(start_paused = true)]
async fn each_kind_of_limit_is_waited_out_and_told() {
    let clock = Clock::new();
    let server = StandIn::start().await;
    server.state().sent = vec![Sent::new(1, "a", 1)];
    let used_up = [
        ("date", NOW),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", RESET),
    ];
    server.state().faults = [
        limited(403, &used_up, "API rate limit exceeded"),
        limited(429, &[("retry-after", "7")], ""),
        limited(403, &[("retry-after", "30")], SECONDARY),
        limited(403, &[], SECONDARY),
        limited(429, &[], ""),
    ]
    .into();
    let began = tokio::time::Instant::now();
    let found = hook(&server, &clock).attempts(|_| false).await.unwrap();
    assert_eq!(found.len(), 1);
    // Without a time it is a minute, and twice as long with each limit before.
    assert_eq!(clock.pauses(), [91, 7, 30, 8 * 60, 16 * 60]);
    assert!(began.elapsed() >= Duration::from_secs(clock.pauses().iter().sum()));
    assert!(
        clock.told()[1].contains("GitHub: no more requests for now (429"),
        "{:?}",
        clock.told()
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_once_the_limit_is_used_up() {
    let clock = Clock::new();
    let server = StandIn::start().await;
    server.state().sent = (1..=150)
        .map(|n| Sent::new(n, &format!("d{n}"), n))
        .collect();
    server.state().headers = vec![
        ("date", NOW.to_owned()),
        ("x-ratelimit-remaining", "0".to_owned()),
        ("x-ratelimit-reset", RESET.to_owned()),
    ];
    let began = tokio::time::Instant::now();
    let found = hook(&server, &clock).attempts(|_| false).await.unwrap();
    assert_eq!((found.len(), server.targets().len()), (150, 2));
    assert_eq!(clock.pauses(), [91]);
    assert!(clock.told()[0].contains("the limit of requests is used up"));
    assert!(began.elapsed() >= Duration::from_secs(91));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_goes_on_for_too_long_is_an_error() {
    let clock = Clock::new();
    let server = StandIn::start().await;
    server.state().faults = [limited(429, &[("retry-after", "86400")], "")].into();
    let error = hook(&server, &clock).attempts(|_| false).await.unwrap_err();
    assert!(matches!(error, Error::Limited { wait, .. } if wait.as_secs() == 86_400));

    server.state().faults = (0..20)
        .map(|_| limited(429, &[("retry-after", "5")], ""))
        .collect();
    let error = hook(&server, &clock).attempts(|_| false).await.unwrap_err();
    assert!(matches!(error, Error::Limited { .. }));
    assert_eq!(clock.pauses(), [5; 6]);
}

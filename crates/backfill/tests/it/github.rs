//! GitHub's lists and deliveries.

use hookbot_backfill::{
    Account, Api, Credential, Delivery, Error, Hook, HookEntry, Provider, Signing,
};
use jiff::Timestamp;
use tokio::net::TcpListener;

use crate::stand_in::{Fault, Sent, StandIn, TOKEN};

pub(crate) fn api(server: &StandIn) -> Api {
    Api::new(
        Provider::Github,
        &server.url(),
        Credential::Token(TOKEN.to_owned()),
    )
    .unwrap()
}

fn hook(server: &StandIn) -> Hook {
    Hook::new(
        api(server),
        Account::on_github("acme/site").unwrap(),
        Some(7),
    )
}

async fn deliveries(hook: &mut Hook) -> Vec<Delivery> {
    Delivery::group(hook.attempts(|_| false).await.unwrap())
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(Delivery::id).collect()
}

/// So many, each in its own second.
fn sent(number: u64) -> Vec<Sent> {
    (1..=number)
        .map(|n| Sent::new(n, &format!("d{n}"), n))
        .collect()
}

#[tokio::test]
async fn every_page_is_read_and_each_delivery_comes_once_oldest_first() {
    let server = StandIn::start().await;
    let mut all = sent(250);
    // Delivered again two days of pages later.
    all.push(Sent {
        is_repeated: true,
        ..Sent::new(251, "d3", 251)
    });
    server.state().sent = all;
    let found = deliveries(&mut hook(&server)).await;
    let expected: Vec<_> = (1..=250).map(|n| format!("d{n}")).collect();
    assert_eq!(ids(&found), expected);
    assert_eq!(found[2].last().id, 251);

    let state = server.state();
    assert_eq!(state.asked.len(), 3);
    for asked in &state.asked {
        assert_eq!(asked.headers["accept"], "application/vnd.github+json");
        assert_eq!(asked.headers["x-github-api-version"], "2022-11-28");
        assert_eq!(asked.headers["host"], server.address.to_string());
    }
    assert_eq!(
        state.asked[0].target,
        "/repos/acme/site/hooks/7/deliveries?per_page=100"
    );
}

#[tokio::test]
async fn what_comes_while_pages_are_read_moves_nothing_and_is_there_the_next_time() {
    let server = StandIn::start().await;
    server.state().sent = sent(250);
    server.state().meanwhile = Some(Box::new(|sent| {
        for _ in 0..60 {
            let n = sent.len() as u64 + 1;
            sent.push(Sent::new(n, &format!("d{n}"), n));
        }
    }));
    let mut hook = hook(&server);
    let mut known = std::collections::HashSet::new();
    let first = hook.attempts(|_| false).await.unwrap();
    known.extend(first.iter().map(|attempt| attempt.id));
    assert_eq!(known, (1..=250).collect());

    server.state().meanwhile = None;
    let second = hook
        .attempts(|attempt| known.contains(&attempt.id))
        .await
        .unwrap();
    let new: Vec<_> = second.iter().rev().map(|attempt| attempt.id).collect();
    assert_eq!(new, (251..=430).collect::<Vec<_>>());
}

#[tokio::test]
async fn reading_ends_with_the_first_page_that_is_old_altogether() {
    let server = StandIn::start().await;
    server.state().sent = sent(1_000);
    let since: Timestamp = "2026-01-31T00:14:10Z".parse().unwrap();
    let found = hook(&server)
        .attempts(|attempt| attempt.at.unwrap() < since)
        .await
        .unwrap();
    assert_eq!(found.len(), 151);
    assert_eq!(server.targets().len(), 3);
}

#[tokio::test]
async fn what_was_sent_is_told_with_its_headers_and_its_very_text() {
    let server = StandIn::start().await;
    let payload = r#"{"z":1.50,"a":"<&> \u003c \"x, y\"","big":12345678901234567890123}"#;
    let signature = ("X-Hub-Signature-256".to_owned(), "sha256=00".to_owned());
    server.state().sent = vec![Sent {
        payload: payload.to_owned(),
        headers: vec![signature],
        ..Sent::new(9_007_199_254_740_993, "d", 1)
    }];
    let mut hook = hook(&server);
    let delivery = &deliveries(&mut hook).await[0];
    let content = hook.content(delivery).await.unwrap();
    let resent = content
        .resent(Provider::Github, delivery, &Signing::default(), 0)
        .unwrap();
    assert_eq!(resent.message.payload, payload);
    let header = |name| resent.message.header(name);
    assert_eq!(header("x-github-delivery").as_deref(), Some("d"));
    assert_eq!(header("x-hub-signature-256").as_deref(), Some("sha256=00"));
    assert_eq!(
        header("user-agent").as_deref(),
        Some("GitHub-Hookshot/044aadd")
    );
    assert_eq!(resent.message.event_type().as_deref(), Some("push"));
}

#[tokio::test]
async fn a_delivery_that_is_gone_when_asked_for_has_other_attempts_or_is_lost() {
    let server = StandIn::start().await;
    let taken = Sent::new(1, "a", 1);
    let again = |id, delivery| Sent {
        status: 500,
        is_repeated: true,
        ..Sent::new(id, delivery, id)
    };
    let blank = Sent {
        payload: "null".to_owned(),
        ..Sent::new(5, "c", 5)
    };
    server.state().sent = vec![taken, again(2, "a"), again(3, "b"), again(4, "b"), blank];
    server.state().gone = [1, 3, 4].into();
    let mut hook = hook(&server);
    let found = deliveries(&mut hook).await;
    assert!(
        hook.content(&found[0])
            .await
            .unwrap()
            .payload
            .starts_with(br#"{"n":2"#)
    );
    let asked = server.targets();
    let path = |id| format!("/repos/acme/site/hooks/7/deliveries/{id}");
    // The one that was taken comes first.
    assert_eq!(asked[1..], [path(1), path(2)]);
    for lost in &found[1..] {
        assert!(matches!(hook.content(lost).await, Err(Error::Lost(_))));
    }
}

#[tokio::test]
async fn a_server_of_ones_own_has_its_api_below_a_path() {
    let server = StandIn::start().await;
    server.state().prefix = "/api/v3".to_owned();
    server.state().sent = sent(120);
    let api = Api::new(
        Provider::Github,
        &format!("{}/", server.url()),
        Credential::Token(TOKEN.to_owned()),
    );
    let mut hook = Hook::new(api.unwrap(), Account::Organisation("acme".into()), Some(7));
    let found = deliveries(&mut hook).await;
    assert_eq!(found.len(), 120);
    assert!(hook.content(&found[0]).await.is_ok());
    let asked = server.targets();
    assert!(
        asked
            .iter()
            .all(|target| target.starts_with("/api/v3/orgs/acme/hooks/7/"))
    );
}

#[tokio::test]
async fn a_link_to_another_host_gets_no_request_and_so_no_token() {
    let stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = StandIn::start().await;
    server.state().sent = sent(150);
    let origin = format!("http://{}", stranger.local_addr().unwrap());
    server.state().link_origin = Some(origin.clone());
    // Its query is believed, and asked of the server that said so.
    assert_eq!(deliveries(&mut hook(&server)).await.len(), 150);

    for place in [
        format!("{origin}/x"),
        origin.replace("http:", ""),
        "x".to_owned(),
    ] {
        let moved = Fault::Answer(307, vec![("location", place)], String::new());
        server.state().faults.push_back(moved);
        let error = hook(&server).attempts(|_| false).await.unwrap_err();
        assert!(
            error.to_string().contains("moved to another server"),
            "{error}"
        );
    }
    let nobody = tokio::select! {
        biased;
        _ = stranger.accept() => false,
        () = tokio::task::yield_now() => true,
    };
    assert!(nobody, "the stranger was connected to");
}

#[tokio::test]
async fn a_repository_that_was_renamed_is_found() {
    let server = StandIn::start().await;
    server.state().sent = sent(3);
    let place = format!(
        "{}/repos/acme/site/hooks/7/deliveries?per_page=100",
        server.url()
    );
    let moved = Fault::Answer(301, vec![("location", place)], String::new());
    server.state().faults.push_back(moved);
    let account = Account::on_github("acme/oldname").unwrap();
    let mut hook = Hook::new(api(&server), account, Some(7));
    assert_eq!(deliveries(&mut hook).await.len(), 3);
}

#[tokio::test]
async fn pages_without_an_end_are_left() {
    let server = StandIn::start().await;
    let link = r#"<https://api.github.com/?per_page=100>; rel="next""#;
    server.state().headers = vec![("link", link.to_owned())];
    server.state().hooks = Vec::new();
    let error = hook(&server).siblings().await.unwrap_err();
    assert!(error.to_string().contains("no end"), "{error}");
}

#[tokio::test]
async fn webhooks_are_listed_with_what_they_are_sent() {
    let server = StandIn::start().await;
    server.state().hooks = vec![serde_json::json!({
        "type": "Repository", "id": 7, "name": "web", "active": false, "events": ["push"],
        "config": { "content_type": "json", "insecure_ssl": "0", "secret": "********",
                    "url": "https://hooks.example.com/pub/site" },
        "last_response": { "code": null, "status": "unused", "message": null },
    })];
    let found = hook(&server).siblings().await.unwrap();
    let entry = HookEntry {
        id: Some(7),
        url: "https://hooks.example.com/pub/site".to_owned(),
        events: vec!["push".to_owned()],
        is_active: false,
    };
    assert_eq!(found, [entry]);
}

#[tokio::test]
async fn github_is_asked_once_to_deliver_again() {
    let server = StandIn::start().await;
    server.state().sent = vec![Sent::new(1, "a", 1), Sent::new(2, "a", 2)];
    let mut hook = hook(&server);
    let delivery = &deliveries(&mut hook).await[0];
    hook.redeliver(delivery).await.unwrap();
    let state = server.state();
    let [_, asked] = &state.asked[..] else {
        panic!("two requests: {:?}", state.asked);
    };
    assert_eq!(
        (asked.method.as_str(), &*asked.target),
        ("POST", "/repos/acme/site/hooks/7/deliveries/2/attempts")
    );
}

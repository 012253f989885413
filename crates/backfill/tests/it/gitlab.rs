//! GitLab's events, which are lists and deliveries in one.

use hookbot_backfill::{Account, Api, Credential, Delivery, Error, Hook, Provider, Signing};

use crate::stand_in::{Sent, StandIn, TOKEN};

fn hook(server: &StandIn) -> Hook {
    let api = Api::new(
        Provider::Gitlab,
        &server.url(),
        Credential::Token(TOKEN.to_owned()),
    );
    Hook::new(
        api.unwrap(),
        Account::Project("acme/web/site".into()),
        Some(7),
    )
}

fn sent(number: u64) -> Vec<Sent> {
    (1..=number)
        .map(|n| Sent::new(n, &format!("d{n}"), n))
        .collect()
}

#[tokio::test]
async fn pages_that_move_while_they_are_read_hide_nothing_and_repeat_nothing() {
    let server = StandIn::start().await;
    server.state().sent = sent(70);
    // More than a page comes between two pages, so that one has nothing new at all.
    server.state().meanwhile = Some(Box::new(|sent| {
        if sent.len() < 150 {
            for _ in 0..25 {
                let n = sent.len() as u64 + 1;
                sent.push(Sent::new(n, &format!("d{n}"), n));
            }
        }
    }));
    let attempts = hook(&server).attempts(|_| false).await.unwrap();
    assert_eq!(attempts.len(), 70);
    let found = Delivery::group(attempts);
    let ids: Vec<_> = found.iter().map(Delivery::id).collect();
    let expected: Vec<_> = (1..=70).map(|n| format!("d{n}")).collect();
    assert_eq!(ids, expected);
    let first = &server.targets()[0];
    assert_eq!(
        first,
        "/projects/acme%2Fweb%2Fsite/hooks/7/events?per_page=20"
    );
}

#[tokio::test]
async fn an_event_is_a_delivery_without_what_gitlab_withholds() {
    let server = StandIn::start().await;
    let payload = r#"{"object_kind":"push","user_email":"[REDACTED]"}"#;
    let large = Sent {
        payload: r#"{"oversize":true}"#.to_owned(),
        ..Sent::new(2, "b", 2)
    };
    let failed = Sent {
        status: 500,
        payload: payload.to_owned(),
        ..Sent::new(1, "a", 1)
    };
    server.state().sent = vec![failed, large];
    let mut hook = hook(&server);
    let found = Delivery::group(hook.attempts(|_| false).await.unwrap());
    let content = hook.content(&found[0]).await.unwrap();
    let resent = content
        .resent(Provider::Gitlab, &found[0], &Signing::default(), 0)
        .unwrap();
    assert_eq!(resent.message.payload, payload);
    assert_eq!(resent.withheld, ["x-gitlab-token"]);
    assert_eq!(resent.message.delivery_id().as_deref(), Some("a"));
    assert!(!found[0].succeeded() && found[1].succeeded());
    assert_eq!(found[0].event(), "Push Hook");
    assert!(matches!(hook.content(&found[1]).await, Err(Error::Lost(_))));
    assert_eq!(server.targets().len(), 1);
}

#[tokio::test]
async fn before_gitlab_told_the_time_the_receivers_counts() {
    let server = StandIn::start().await;
    server.state().sent = vec![Sent {
        at: String::new(),
        ..Sent::new(1, "a", 1)
    }];
    let found = hook(&server).attempts(|_| false).await.unwrap();
    assert_eq!(found[0].at, "2026-11-26T09:00:00Z".parse().ok());
}

#[tokio::test]
async fn a_groups_webhooks_are_listed_and_asked_to_send_again() {
    let server = StandIn::start().await;
    server.state().hooks = vec![serde_json::json!({
        "id": 7, "url": "https://hooks.example.com/", "group_id": 3, "push_events": true,
        "note_events": false, "tag_push_events": true, "enable_ssl_verification": true,
        "alert_status": "disabled",
    })];
    server.state().sent = sent(1);
    let api = Api::new(
        Provider::Gitlab,
        &server.url(),
        Credential::Token(TOKEN.to_owned()),
    );
    let mut hook = Hook::new(api.unwrap(), Account::Group("acme".into()), Some(7));
    let found = hook.siblings().await.unwrap();
    assert_eq!((found[0].id, found[0].is_active), (Some(7), false));
    assert_eq!(found[0].events, ["push", "tag_push"]);
    let deliveries = Delivery::group(hook.attempts(|_| false).await.unwrap());
    hook.redeliver(&deliveries[0]).await.unwrap();
    assert_eq!(server.targets()[2], "/groups/acme/hooks/7/events/1/resend");
}

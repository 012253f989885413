//! Where deliveries may go.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use hookbot::config::DeliverTable;
use hookbot::server::Delivery;
use hookbot_forward::Message;

use super::{deliver, has, publish, reload, wait_for, with};
use crate::target::Target;

#[tokio::test]
async fn nothing_is_reached_that_is_not_allowed_however_it_is_written() {
    let mut canary = Target::start().await;
    let port = canary.address.port();
    // Names that this machine's resolver has without any network; what it makes of the spellings
    // of numbers is its own business, and is looked at all the same.
    let hosts = [
        "0x7f.1",
        "2130706433",
        "017700000001",
        "127.1",
        "localhost.",
        "0",
    ];
    let config = |allow: &str| -> String {
        let deliveries = hosts.iter().enumerate().map(|(number, host)| {
            let url = format!("http://{host}:{port}/{number}");
            deliver(&format!("d{number}"), "in/", &url, "").replace("'127.0.0.1'", allow)
        });
        deliveries.collect()
    };
    let (folder, server) = with(&config("'10.0.0.0/8'")).await;
    publish(&server, "in/x", 0..1).await;
    for number in 0..hosts.len() {
        let failures = format!("hookbot_delivery_failures_total{{delivery=\"d{number}\"}}");
        wait_for(&server, &failures, 2.0).await;
    }
    assert!(canary.try_next().is_none(), "the canary was reached");
    let reports = server.control.deliveries();
    let refused = reports.iter().filter(|report| report.forbidden >= 2);
    let refused: Vec<_> = refused.map(|report| &report.name).collect();
    assert!(refused.len() >= 4, "{reports:#?}");
    for report in reports.iter().filter(|report| report.forbidden > 0) {
        let error = report.last_error.as_ref().unwrap();
        assert!(error.contains("add it to `allow`"), "{error}");
    }

    // It was the guard: allowed, all of these are reached.
    reload(
        &server,
        folder.path(),
        &config("['127.0.0.0/8', '0.0.0.0', '::1']"),
    )
    .await;
    for _ in &refused {
        has(&canary.next().await, 0);
    }
}

#[tokio::test]
async fn an_address_is_checked_when_it_is_connected_to_and_no_name_is_looked_up_again() {
    let mut canary = Target::start().await;
    let delivery: Delivery =
        toml::from_str::<DeliverTable>("topic = 'a'\nurl = 'http://rebound.example.com/'")
            .unwrap()
            .delivery()
            .unwrap();
    // `localhost` stands for a name that leads to several addresses. What the guard has let
    // through is connected to, and nothing that it was not asked about.
    let url = canary.url("/").replace("127.0.0.1", "localhost");
    let delivery = Delivery { url, ..delivery };
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let allows_second = move |address: IpAddr| {
        let mut seen = seen.lock().unwrap();
        seen.push(address);
        match seen.len() {
            1 => Err("the first one is not for us".to_owned()),
            _ => Ok(()),
        }
    };
    let target = delivery.target(Arc::new(allows_second)).unwrap();
    let message = Message {
        event: serde_json::from_value(serde_json::json!({
            "cursor": "", "topic": "a", "time": "", "method": "POST", "query": "", "address": "",
            "headers": [],
        }))
        .unwrap(),
        payload: "0".into(),
    };
    let _ = target.send(&message, 1).await;
    let asked = asked.lock().unwrap().clone();
    // Each address once, and the refused one was not connected to.
    let mut once = asked.clone();
    once.dedup();
    assert_eq!(asked, once);
    let reached = canary.try_next().is_some();
    assert_eq!(
        reached,
        asked[1..].contains(&canary.address.ip()),
        "{asked:?}"
    );
}

//! Services that take messages, fail, are slow, or want no more.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hookbot::server::DeliveryState;
use hookbot_protocol::{Filter, Publication, Topic};
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use super::{deliver, has, publish, reload, wait_for, wait_until, with, with_log};
use crate::canaries::Kept;
use crate::metrics::{metrics, value};
use crate::support::{Options, PATIENCE, TestServer, token};
use crate::target::{Answer, Target, nowhere};
use crate::tls::Authority;

#[tokio::test]
async fn what_arrives_is_what_was_sent() {
    let mut target = Target::start().await;
    let url = target.url("/hook?key=1").replace("://", "://ada:pw@");
    let config = deliver("d", "in/", &url, "headers = { X-Team = 'infra' }");
    let (_folder, server) = with(&config).await;
    let body = b"{\"a\": \xff}".as_slice();
    let line = "PUT /pub/in/x?b=%2F";
    let bearer = format!("Bearer {}", token("/"));
    let headers = [
        ("Authorization", &*bearer),
        ("X-Hub-Signature-256", "sha256=00"),
        ("X-A", "1"),
        ("X-A", "2"),
        ("X-Team", "theirs"),
        ("Connection", "x-hop, close"),
        ("X-Hop", "1"),
    ];
    assert_eq!(server.request(line, &headers, body).await.status, 200);
    let asked = target.next().await;
    assert_eq!(asked.line, "PUT /hook?key=1&b=%2F HTTP/1.1");
    assert_eq!(asked.body, body);
    assert_eq!(asked.header("host"), Some(&*target.address.to_string()));
    assert_eq!(asked.header("x-hub-signature-256"), Some("sha256=00"));
    assert_eq!(asked.header("x-team"), Some("infra"));
    assert_eq!(asked.header("hookbot-topic"), Some("in/x"));
    assert_eq!(asked.header("hookbot-attempt"), Some("1"));
    assert_eq!(asked.header("x-hop"), None);
    // Neither our token nor anything but the URL's own password.
    assert_eq!(asked.header("authorization"), Some("Basic YWRhOnB3"));
    let repeats = asked.headers.iter().filter(|(name, _)| *name == "x-a");
    assert_eq!(repeats.count(), 2);
}

#[tokio::test]
async fn a_delivery_is_logged_without_the_id_of_its_channel() {
    let lines = Kept::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(lines.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let id = format!("hbc_{}", "a1".repeat(20));
    let (topic, mut target) = (format!("/unsafe/smee/{id}"), Target::start().await);
    let config = deliver("d", &topic, &target.url("/"), "unverified = true");
    let (_folder, server) = with(&config).await;
    publish(&server, &topic, 0..1).await;
    has(&target.next().await, 0);
    wait_for(&server, "hookbot_delivered_total{delivery=\"d\"}", 1.0).await;
    let log = lines.text();
    assert!(log.contains("delivered") && log.contains("/unsafe/smee/hbc_***"));
    assert!(!log.contains(&id[4..]));
}

/// What a service answers that fails in 45 of 100 cases, in every way there is.
fn unreliable(asks: &AtomicUsize) -> Answer {
    match asks.fetch_add(1, Ordering::Relaxed) * 7 % 20 {
        0..=3 => Answer::Reply(500, ""),
        4 => Answer::Reply(429, ""),
        5 => Answer::Reply(503, "Retry-After: 0\r\n"),
        6..=8 => Answer::Reset,
        _ => Answer::OK,
    }
}

#[tokio::test]
async fn a_service_that_fails_at_random_gets_everything_in_order_and_nothing_twice() {
    let asks = AtomicUsize::new(0);
    let mut target = Target::with(move |_| unreliable(&asks)).await;
    let (_folder, server) = with(&deliver("d", "in/", &target.url("/"), "")).await;
    publish(&server, "in/x", 0..300).await;
    let (mut number, mut attempt) = (0, 0);
    while number < 300 {
        let asked = target.next().await;
        has(&asked, number);
        attempt += 1;
        assert_eq!(asked.header("hookbot-attempt"), Some(&*attempt.to_string()));
        if asked.is_taken {
            (number, attempt) = (number + 1, 0);
        }
    }
    wait_for(&server, r#"hookbot_delivered_total{delivery="d"}"#, 300.0).await;
    let metrics = metrics(&server).await;
    let count = |name: &str| value(&metrics, &format!("hookbot_{name}{{delivery=\"d\"}}"));
    assert_eq!(count("delivery_parked_total"), Some(0.0));
    assert!(count("delivery_failures_total") > Some(100.0));
    assert_eq!(count("delivery_lag_seconds"), Some(0.0));
    assert!(target.try_next().is_none());
}

#[tokio::test]
async fn one_that_is_down_delays_neither_the_others_nor_a_publisher() {
    let mut target = Target::start().await;
    let down = format!("http://{}/", nowhere().await);
    let silent = Target::with(|_| Answer::Silence).await;
    let config = deliver("down", "in/", &down, "")
        + &deliver("silent", "in/", &silent.url("/"), "timeout = '1h'")
        + &deliver("up", "in/", &target.url("/"), "");
    let (folder, server) = with(&config).await;
    publish(&server, "in/x", 0..500).await;
    for number in 0..500 {
        has(&target.next().await, number);
    }
    let down_is_up = r#"hookbot_delivery_up{delivery="down"}"#;
    wait_until(&server, down_is_up, |value| value == 0.0).await;
    let up = value(
        &metrics(&server).await,
        r#"hookbot_delivery_up{delivery="up"}"#,
    );
    assert_eq!(up, Some(1.0));

    // Once it is there, it gets everything.
    let mut late = Target::start().await;
    let config = config.replace(&down, &late.url("/"));
    reload(&server, folder.path(), &config).await;
    for number in 0..500 {
        has(&late.next().await, number);
    }
}

#[tokio::test]
async fn a_slow_service_holds_a_bounded_part_of_what_waits_for_it() {
    let silent = Target::with(|_| Answer::Silence).await;
    let config = deliver("d", "in/", &silent.url("/"), "timeout = '1h'");
    let (_folder, server) = with(&config).await;
    let body = "x".repeat(1 << 20);
    for _ in 0..64 {
        let topic = Topic::parse("in/x").unwrap();
        let publication = Publication::new(topic, body.clone());
        server.broker.publish(publication).await.unwrap();
    }
    let mut silent = silent;
    silent.next().await;
    // What was read and not dealt with: 4 MiB and the message that goes beyond.
    let reports = server.control.deliveries();
    assert!(reports[0].waiting <= 5, "{reports:?}");
}

#[tokio::test]
async fn what_the_service_does_not_want_is_put_aside_and_the_next_is_delivered() {
    let mut target = Target::with(|asked| match &*asked.text() {
        "0" => Answer::Reply(400, ""),
        "1" => Answer::Reply(302, "Location: http://169.254.169.254/latest/meta-data\r\n"),
        "2" => Answer::Reply(500, ""),
        _ => Answer::OK,
    })
    .await;
    let config = deliver("d", "in/", &target.url("/"), "retries = 2");
    let (folder, server) = with(&config).await;
    publish(&server, "in/x", 0..4).await;
    // A redirection is asked once, and not followed.
    for number in [0, 1, 2, 2, 2, 3] {
        has(&target.next().await, number);
    }
    wait_for(
        &server,
        r#"hookbot_delivery_parked_total{delivery="d"}"#,
        3.0,
    )
    .await;
    let dead = folder.path().join("data/deliveries/d/dead");
    assert_eq!(fs::read_dir(dead).unwrap().count(), 3);
}

#[tokio::test]
async fn a_service_that_is_gone_is_left_alone_until_its_delivery_changes() {
    let mut target = Target::with(|asked| match asked.line.contains("/old") {
        true => Answer::Reply(410, ""),
        false => Answer::OK,
    })
    .await;
    let config = deliver("d", "in/", &target.url("/old"), "");
    let (folder, server) = with(&config).await;
    publish(&server, "in/x", 0..2).await;
    has(&target.next().await, 0);
    let state = || server.control.deliveries()[0].state;
    let gone = async {
        while state() != DeliveryState::Gone {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, gone).await.unwrap();
    reload(&server, folder.path(), &config.replace("/old", "/new")).await;
    for number in 0..2 {
        has(&target.next().await, number);
    }
    assert_eq!(state(), DeliveryState::Running);
}

#[tokio::test]
async fn what_is_dropped_before_its_turn_is_told_of() {
    let down = nowhere().await;
    let config = deliver("d", "in/", &format!("http://{down}/"), "");
    let (_folder, server) = with_log(&config, 4 << 20).await;
    let body = "x".repeat(100 << 10);
    for _ in 0..200 {
        let topic = Topic::parse("in/x").unwrap();
        let publication = Publication::new(topic, body.clone());
        server.broker.publish(publication).await.unwrap();
    }
    let mut target = Target::at(down, |_| Answer::OK).await;
    wait_for(&server, r#"hookbot_delivery_gaps_total{delivery="d"}"#, 1.0).await;
    // What it had read, and what there still is.
    let last = server.broker.bounds().next.before().0;
    loop {
        let asked = target.next().await;
        let cursor = asked.header("hookbot-cursor").unwrap();
        if cursor.ends_with(&format!(".{last}")) {
            break;
        }
    }
}

#[tokio::test]
async fn an_answer_without_an_end_is_cut_off() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut target = Target::with(move |_| Answer::Endless(tell.clone())).await;
    let (_folder, server) = with(&deliver("d", "in/", &target.url("/"), "")).await;
    publish(&server, "in/x", 0..1).await;
    target.next().await;
    let taken = timeout(PATIENCE, told.recv()).await.unwrap().unwrap();
    // 64 KiB, and what the two systems hold in between.
    assert!(taken < 16 << 20, "{taken}");
    wait_for(&server, r#"hookbot_delivered_total{delivery="d"}"#, 1.0).await;
}

#[tokio::test]
async fn what_is_on_its_way_is_finished_when_the_server_stops() {
    let (free, has_stopped) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let held = free.clone();
    let mut target = Target::with(move |_| Answer::Held(held.clone())).await;
    let config = deliver("d", "in/", &target.url("/"), "");
    let (folder, mut server) = with(&config).await;
    publish(&server, "in/x", 0..2).await;
    has(&target.next().await, 0);
    server.stop.cancel();
    // Nothing more is begun; what was is waited for.
    let running = std::mem::replace(&mut server.running, tokio::spawn(async {}));
    let stopped = has_stopped.clone();
    let running = tokio::spawn(async move {
        running.await.unwrap();
        stopped.store(true, Ordering::Relaxed);
    });
    tokio::task::yield_now().await;
    assert!(!has_stopped.load(Ordering::Relaxed));
    free.notify_one();
    timeout(PATIENCE, running).await.unwrap().unwrap();
    assert!(target.try_next().is_none());
    let place = folder.path().join("data/deliveries/d/place");
    let place = fs::read_to_string(place).unwrap();
    assert!(place.trim_end().ends_with(".1"), "{place}");
}

#[tokio::test]
async fn a_service_proves_who_it_is_before_it_gets_anything() {
    let authority = Authority::new();
    let files = authority.install(authority.issue(1));
    let target = TestServer::start_with(Options::settings(|settings| settings.tls = Some(files)));
    let target = target.await;
    let mut out = target.broker.subscribe(Filter::parse("out").unwrap());
    let (port, token) = (target.address.port(), token("/pub/out"));
    let url = format!("https://{token}@localhost:{port}/pub/out");
    let (folder, server) = with(&deliver("d", "in/", &url, "")).await;
    publish(&server, "in/x", 0..1).await;
    let failures = r#"hookbot_delivery_failures_total{delivery="d"}"#;
    wait_for(&server, failures, 1.0).await;
    let error = server.control.deliveries()[0].last_error.clone().unwrap();
    assert!(error.contains("certificate"), "{error}");
    assert!(!error.contains(&token));

    let mut arrives = async |number: u32| {
        let next = timeout(PATIENCE, out.next()).await.unwrap().unwrap();
        assert_eq!(next.payload(), &number.to_string());
    };
    let ca = format!("ca = '{}'", authority.path("ca.pem").display());
    reload(&server, folder.path(), &deliver("d", "in/", &url, &ca)).await;
    arrives(0).await;
    let insecure = deliver("d", "in/", &url, "insecure = true");
    reload(&server, folder.path(), &insecure).await;
    publish(&server, "in/x", 1..2).await;
    arrives(1).await;
}

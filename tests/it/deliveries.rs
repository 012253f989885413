//! Messages that are pushed to services, in this process.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use hookbot::server::{Delivery, DeliveryState};
use hookbot_protocol::{Headers, Publication, Topic};
use hookbot_signatures::{Provider, Request, Scheme, Secret};
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use crate::metrics::{metrics, value};
use crate::support::{Options, PATIENCE, TestServer};
use crate::target::{Answer, Asked, Target, nowhere};

/// A folder with a configuration, and a server that does what it says.
async fn with(config: &str) -> (tempfile::TempDir, TestServer) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hookbot.toml");
    fs::write(&file, config).unwrap();
    let data = folder.path().join("data");
    let options = Options {
        config: Some(file),
        settings: Some(Box::new(|settings| settings.data_dir = Some(data))),
        ..Options::default()
    };
    fs::create_dir(folder.path().join("data")).unwrap();
    let server = TestServer::start_with(options).await;
    // Whoever is answered comes after the deliveries have begun.
    assert_eq!(server.request("GET /status", &[], b"").await.status, 200);
    (folder, server)
}

async fn reload(server: &TestServer, folder: &Path, config: &str) {
    fs::write(folder.join("hookbot.toml"), config).unwrap();
    server.configuration.as_ref().unwrap().reload().await;
}

/// A delivery of `topic` that tries again soon.
fn deliver(name: &str, topic: &str, url: &str, more: &str) -> String {
    format!(
        "[[deliver]]\nname = '{name}'\ntopic = '{topic}'\nurl = '{url}'\nallow = '127.0.0.1'\n\
         pause = '1ms'\nmax_pause = '5ms'\n{more}\n"
    )
}

/// Publishes numbers, as fast as the log takes them.
async fn publish(server: &TestServer, topic: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let topic = Topic::parse(topic).unwrap();
        let publication = Publication::new(topic, number.to_string());
        server.broker.publish(publication).await.unwrap();
    }
}

/// Waits until a metric has at least this value.
async fn wait_for(server: &TestServer, metric: &str, least: f64) {
    let waiting = async {
        while value(&metrics(server).await, metric).is_none_or(|value| value < least) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "{metric} does not become {least}");
}

fn has(asked: &Asked, number: u32) {
    assert_eq!(asked.text(), number.to_string());
}

#[tokio::test]
async fn what_arrives_is_what_was_sent() {
    let mut target = Target::start().await;
    let url = target.url("/hook?key=1").replace("://", "://ada:pw@");
    let config = deliver("d", "in/", &url, "headers = { X-Team = 'infra' }");
    let (_folder, server) = with(&config).await;
    let body = b"{\"a\": \xff}".as_slice();
    let line = "PUT /pub/in/x?b=%2F";
    let bearer = format!("Bearer {}", crate::support::token("/"));
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
    wait_for(
        &server,
        r#"hookbot_delivery_failures_total{delivery="down"}"#,
        6.0,
    )
    .await;
    let text = metrics(&server).await;
    let up = |name| {
        value(
            &text,
            &format!("hookbot_delivery_up{{delivery=\"{name}\"}}"),
        )
    };
    assert_eq!((up("down"), up("up")), (Some(0.0), Some(1.0)));

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_under_load_loses_nothing_repeats_nothing_and_leaves_the_others_alone() {
    let (mut changing, mut same) = (Target::start().await, Target::start().await);
    let (first, second) = (changing.url("/"), same.url("/"));
    let both = |number: u32| {
        let more = format!("headers = {{ X-Number = '{number}' }}");
        deliver("changing", "in/", &first, &more) + &deliver("same", "in/", &second, "")
    };
    let (folder, server) = with(&both(0)).await;
    let broker = server.broker.clone();
    let publishing = tokio::spawn(async move {
        for number in 0..1_000 {
            let topic = Topic::parse("in/x").unwrap();
            let publication = Publication::new(topic, number.to_string());
            broker.publish(publication).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    for number in 1..=15 {
        reload(&server, folder.path(), &both(number)).await;
    }
    publishing.await.unwrap();
    reload(&server, folder.path(), &both(99)).await;
    publish(&server, "in/x", 1_000..1_001).await;
    let mut last = 0;
    for number in 0..=1_000 {
        let asked = changing.next().await;
        has(&asked, number);
        let own: u32 = asked.header("x-number").unwrap().parse().unwrap();
        assert!(own >= last);
        last = own;
        has(&same.next().await, number);
    }
    assert_eq!(last, 99);
    assert!(changing.try_next().is_none() && same.try_next().is_none());
}

#[tokio::test]
async fn one_that_is_taken_out_and_put_back_goes_on_where_it_was() {
    let mut target = Target::start().await;
    let config = deliver("d", "in/", &target.url("/"), "");
    let (folder, server) = with(&config).await;
    publish(&server, "in/x", 0..3).await;
    for number in 0..3 {
        has(&target.next().await, number);
    }
    reload(&server, folder.path(), "").await;
    publish(&server, "in/x", 3..6).await;
    reload(&server, folder.path(), "[[deliver]]").await;
    reload(&server, folder.path(), &config).await;
    for number in 3..6 {
        has(&target.next().await, number);
    }
    // Another name begins anew, with what is published from now on or with everything.
    let others = deliver("now", "in/", &target.url("/now"), "")
        + &deliver("start", "in/", &target.url("/start"), "from = 'start'");
    reload(&server, folder.path(), &others).await;
    publish(&server, "in/x", 6..7).await;
    let mut lines = Vec::new();
    while lines.len() < 8 {
        let asked = target.next().await;
        lines.push(format!("{} {}", asked.line, asked.text()));
    }
    lines.sort();
    let expected = (0..7).map(|number| format!("POST /start HTTP/1.1 {number}"));
    let mut expected: Vec<_> = expected.collect();
    expected.insert(0, "POST /now HTTP/1.1 6".to_owned());
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_wrong_file_changes_nothing() {
    let mut target = Target::start().await;
    let config = deliver("d", "in/", &target.url("/old"), "");
    let (folder, server) = with(&config).await;
    let new = config.replace("/old", "/new");
    for wrong in [
        new.replace("allow", "alow"),
        new.replace("127.0.0.1'\npause", "10.0.0.1'\npause"),
        format!("{new}secrets = 'env:HOOKBOT_NO_SUCH_SECRET'"),
        format!("{new}when = '{{'"),
        format!("{new}ca = '/no/such.pem'"),
    ] {
        reload(&server, folder.path(), &wrong).await;
        publish(&server, "in/x", 0..1).await;
        assert!(target.next().await.line.contains("/old"), "{wrong}");
    }
    let failures = "hookbot_config_reload_failures_total";
    assert_eq!(value(&metrics(&server).await, failures), Some(5.0));
    reload(&server, folder.path(), &new).await;
    publish(&server, "in/x", 0..1).await;
    assert!(target.next().await.line.contains("/new"));
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
async fn conditions_and_templates_choose_and_change_and_their_failures_are_put_aside() {
    let mut target = Target::start().await;
    let more = "when = 'body.n is not odd'\ntransform = '{\"more\":{{ body.n + 2 }}}'";
    let config = deliver("d", "in/", &target.url("/"), more);
    let (_folder, server) = with(&config).await;
    for body in [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":"x"}"#, r#"{"n":4}"#] {
        server.publish("in/x", body).await;
    }
    assert_eq!(target.next().await.text(), r#"{"more":4}"#);
    assert_eq!(target.next().await.text(), r#"{"more":6}"#);
    wait_for(&server, r#"hookbot_delivered_total{delivery="d"}"#, 2.0).await;
    let metrics = metrics(&server).await;
    let count = |name: &str| value(&metrics, &format!("hookbot_{name}{{delivery=\"d\"}}"));
    assert_eq!(count("delivery_skipped_total"), Some(1.0));
    assert_eq!(count("delivery_parked_total"), Some(1.0));
}

#[tokio::test]
async fn nothing_unverified_is_delivered_unless_that_is_said() {
    let mut target = Target::start().await;
    let config = format!(
        "[[source]]\ntopic = '/unsafe/signed/'\nprovider = 'github'\nsecrets = ['s']\n\
         on_fail = 'quarantine'\n{}{}",
        deliver("verified", "/unsafe/", &target.url("/verified"), ""),
        deliver("all", "/unsafe/", &target.url("/all"), "unverified = true"),
    );
    let (folder, server) = with("").await;
    reload(&server, folder.path(), &config).await;
    let (scheme, secret) = (Scheme::from(Provider::Github), Secret::new("s").unwrap());
    let request = Request {
        method: "POST",
        url: "",
        headers: &Headers::default(),
        body: b"signed",
    };
    let signed = scheme.sign(&secret, &request, 0).unwrap();
    let signed: Vec<_> = signed
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    for (line, headers, body) in [
        ("POST /unsafe/pub/open", &[][..], &b"open"[..]),
        ("POST /unsafe/pub/signed/x", &[], b"forged"),
        ("POST /unsafe/pub/signed/x", &signed, b"signed"),
    ] {
        assert_eq!(server.request(line, headers, body).await.status, 200);
    }
    let mut all = Vec::new();
    for _ in 0..3 {
        let asked = target.next().await;
        all.push(format!("{} {}", asked.line, asked.text()));
    }
    all.sort();
    // Neither gets what is in quarantine.
    assert_eq!(
        all,
        [
            "POST /all HTTP/1.1 open",
            "POST /all HTTP/1.1 signed",
            "POST /verified HTTP/1.1 signed",
        ]
    );
}

const SECRETS: [&str; 2] = [
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "whsec_c2Vjb25kc2VjcmV0",
];

/// Which of the secrets a delivery is signed with, now.
fn signers(asked: &Asked) -> Vec<&'static str> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let request = Request {
        method: "POST",
        url: "",
        headers: &asked.headers,
        body: &asked.body,
    };
    let scheme = Scheme::from(Provider::StandardWebhooks);
    let signs = |text: &&str| {
        let secret = [Secret::new(*text).unwrap()];
        scheme.verify(&secret, &request, now.as_secs()).is_ok()
    };
    SECRETS.into_iter().filter(signs).collect()
}

#[tokio::test]
async fn deliveries_are_signed_with_every_secret_and_a_message_has_one_id() {
    let mut target = Target::with(|asked| match asked.header("hookbot-attempt") {
        Some("1") => Answer::Reply(503, ""),
        _ => Answer::OK,
    })
    .await;
    let config = |secrets: &[&str]| {
        deliver(
            "d",
            "in/",
            &target.url("/"),
            &format!("secrets = {secrets:?}"),
        )
    };
    let (old, both, new) = (
        config(&SECRETS[..1]),
        config(&SECRETS),
        config(&SECRETS[1..]),
    );
    let (folder, server) = with(&old).await;
    let mut ids = Vec::new();
    for (config, expected) in [(old, &SECRETS[..1]), (both, &SECRETS), (new, &SECRETS[1..])] {
        reload(&server, folder.path(), &config).await;
        publish(&server, "in/x", 0..1).await;
        let attempts = [target.next().await, target.next().await];
        for asked in &attempts {
            assert_eq!(signers(asked), expected);
        }
        let [first, second] = attempts.each_ref().map(|asked| asked.header("webhook-id"));
        assert!(first.is_some() && first == second);
        ids.push(first.unwrap().to_owned());
    }
    ids.dedup();
    assert_eq!(ids.len(), 3);
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
    use std::net::IpAddr;
    use std::sync::Mutex;
    let mut canary = Target::start().await;
    let delivery: Delivery = toml::from_str::<hookbot::config::DeliverTable>(
        "topic = 'a'\nurl = 'http://rebound.example.com/'",
    )
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
    let message = hookbot_forward::Message {
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

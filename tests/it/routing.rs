use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use hookbot_protocol::{Filter, Message, Publication, Topic};
use hookbot_routers::{Github, Outcome, RouteError, Router};
use sha2::Sha256;

use crate::support::{Options, PATIENCE, TestServer};

const PUSH: &[u8] = include_bytes!("../../crates/routers/tests/data/push.json");

fn signature(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"github's secret").unwrap();
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

async fn with(router: impl Router + 'static) -> TestServer {
    TestServer::start_with(Options {
        routers: vec![Arc::new(router)],
        // What is not over when the server stops ends by itself, however long the machine takes.
        ..Options::settings(|settings| settings.grace = 3 * PATIENCE)
    })
    .await
}

#[tokio::test]
async fn a_push_that_github_signed_reaches_its_branch_and_others_reach_nobody() {
    let server = with(Github::new(b"github's secret").unwrap()).await;
    let mut branch = server
        .subscribe("/sub/github.com/repo/acme/site/branch/main")
        .await;
    for (line, body, signed) in [
        ("POST /unsafe/pub/github.com/org/acme", &b"{}"[..], PUSH),
        (
            "POST /unsafe/pub/github.com/org/acme?extra-metadata=github",
            PUSH,
            b"{}",
        ),
        // The two that are right, with the metadata and without.
        (
            "POST /unsafe/pub/github.com/org/acme?extra-metadata=github",
            PUSH,
            PUSH,
        ),
        ("POST /unsafe/pub/github.com/org/acme", PUSH, PUSH),
    ] {
        let signature = signature(signed);
        let headers = [
            ("X-GitHub-Event", "push"),
            ("X-Hub-Signature-256", signature.as_str()),
        ];
        assert_eq!(server.request(line, &headers, body).await.status, 200);
    }
    for _ in 0..2 {
        assert_eq!(
            branch.next().await,
            r#"{"Type":"push","Repo":"acme/site","Branch":"main","SHA":"c0ffee1234567890abcdef1234567890abcdef12","Who":"runner-example"}"#
        );
    }
    server
        .publish("github.com/repo/acme/site/branch/main", "the end")
        .await;
    assert_eq!(branch.next().await, "the end");
}

/// Copies what it gets, and does not survive everything.
struct Clumsy;

impl Router for Clumsy {
    fn name(&self) -> &str {
        "clumsy"
    }

    fn topics(&self) -> Vec<Filter> {
        vec![Filter::parse("in/").unwrap()]
    }

    fn route(&self, message: &Message) -> Outcome {
        assert_ne!(message.payload(), "panic");
        if message.topic().as_str() == "in/slow" {
            std::thread::sleep(Duration::from_micros(100));
        }
        if message.payload() == "fail" {
            return Outcome::Refused(RouteError::Unsigned);
        }
        Outcome::Published(vec![Publication::new(
            Topic::parse("out").unwrap(),
            message.payload().clone(),
        )])
    }
}

#[tokio::test]
async fn a_router_that_fails_or_panics_stops_nothing() {
    let server = with(Clumsy).await;
    let mut out = server.subscribe("/sub/out").await;
    for body in ["1", "panic", "fail", "2"] {
        assert_eq!(server.publish("in/x", body).await.status, 200);
    }
    assert_eq!(out.next().await, "1");
    assert_eq!(out.next().await, "2");
}

#[tokio::test]
async fn what_was_acknowledged_is_routed_and_delivered_before_the_server_stops() {
    let server = with(Clumsy).await;
    let mut out = server.subscribe("/sub/out").await;
    for number in 0..100 {
        server.publish("in/x", &number.to_string()).await;
    }
    server.stop.cancel();
    for number in 0..100 {
        assert_eq!(out.next().await, number.to_string());
    }
    assert_eq!(out.close_code().await, 1001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_is_still_reading_the_log_is_waited_for() {
    let server = with(Clumsy).await;
    let mut out = server.subscribe("/sub/out").await;
    // More than its queue holds, and then few among many: it looks for them page by page.
    let (queued, others) = (2_000, 5_000);
    for number in 0..=queued + others {
        let is_its_own = number < queued || number == queued + others;
        let topic = Topic::parse(if is_its_own { "in/slow" } else { "elsewhere" }).unwrap();
        let publication = Publication::new(topic, number.to_string());
        server.broker.publish(publication).await.unwrap();
    }
    server.stop.cancel();
    for number in (0..queued).chain([queued + others]) {
        assert_eq!(out.next().await, number.to_string());
    }
    assert_eq!(out.close_code().await, 1001);
}

/// Copies what it gets to a topic of its own, and takes its time.
struct Leisurely {
    name: &'static str,
    pause: Duration,
    begun: OnceLock<()>,
    asked: AtomicUsize,
}

impl Leisurely {
    fn new(name: &'static str, pause: Duration) -> Arc<Self> {
        Arc::new(Self {
            name,
            pause,
            begun: OnceLock::from(()),
            asked: AtomicUsize::new(0),
        })
    }

    /// One that answers only once somebody has it begin.
    fn asleep(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name,
            pause: Duration::ZERO,
            begun: OnceLock::new(),
            asked: AtomicUsize::new(0),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Router for Leisurely {
    fn name(&self) -> &str {
        self.name
    }

    fn topics(&self) -> Vec<Filter> {
        vec![Filter::parse("in/").unwrap()]
    }

    fn route(&self, message: &Message) -> Outcome {
        self.begun.wait();
        self.asked.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(self.pause);
        Outcome::Published(vec![Publication::new(
            Topic::parse(&format!("out/{}", self.name)).unwrap(),
            message.payload().clone(),
        )])
    }
}

/// Has it begin, at the latest when the test fails.
struct Begin(Arc<Leisurely>);

impl Drop for Begin {
    fn drop(&mut self) {
        let _ = self.0.begun.set(());
    }
}

async fn publish(server: &TestServer, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let topic = Topic::parse("in/x").unwrap();
        let publication = Publication::new(topic, number.to_string());
        server.broker.publish(publication).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_is_slow_does_not_hold_up_those_that_read_the_same() {
    let server = TestServer::start().await;
    let slow = Leisurely::new("slow", Duration::from_millis(20));
    let quick = Leisurely::new("quick", Duration::ZERO);
    server.routing.replace(vec![slow.clone(), quick]).await;
    let mut out = server.subscribe("/sub/out/quick").await;
    let mut slow_out = server.subscribe("/sub/out/slow").await;
    let total = 2_000;
    publish(&server, 0..total).await;
    for number in 0..total {
        assert_eq!(out.next().await, number.to_string());
    }
    assert!(slow.asked() < total, "{}", slow.asked());
    // It has not lost its place, wherever it reads.
    for number in 0..slow.asked() {
        assert_eq!(slow_out.next().await, number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_new_router_begins_now_while_old_ones_go_on_far_behind() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_owned();
    let options = Options::settings(|settings| settings.data_dir = Some(data));
    let server = TestServer::start_with(options).await;
    let old = Leisurely::asleep("old");
    let begin = Begin(old.clone());
    server.routing.replace(vec![old.clone()]).await;
    server.routing.replace(Vec::new()).await;
    let total = 2_000;
    publish(&server, 0..total).await;
    let mut old_out = server.subscribe("/sub/out/old").await;
    let mut new_out = server.subscribe("/sub/out/new").await;
    let new = Leisurely::new("new", Duration::ZERO);
    server.routing.replace(vec![old.clone(), new]).await;
    publish(&server, total..total + 1).await;
    assert_eq!(new_out.next().await, total.to_string());
    assert_eq!(old.asked(), 0);
    drop(begin);
    // Whoever comes then disturbs neither.
    let newest = Leisurely::new("newest", Duration::ZERO);
    let new = Leisurely::new("new", Duration::ZERO);
    server.routing.replace(vec![newest, old, new]).await;
    publish(&server, total + 1..total + 2).await;
    assert_eq!(new_out.next().await, (total + 1).to_string());
    for number in 0..total + 2 {
        assert_eq!(old_out.next().await, number.to_string());
    }
}

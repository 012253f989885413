//! The functions that every message or every delivery goes through, one by one:
//! `cargo bench --bench hot`, or `cargo bench --bench hot -- token` for those with that in their
//! name.

use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hookbot_broker::{Broker, Subscription};
use hookbot_log::{DiskLog, Log, MemoryLog, Options};
use hookbot_protocol::{
    Cursor, Epoch, Filter, Form, Key, Keys, Message, Offset, Path, Publication, Scope, Topic,
};
use tokio::runtime::Runtime;

const TOPIC: &str = "github.com/repo/acme/site/branch/main";

fn publication() -> Publication {
    let topic = Topic::parse(TOPIC).expect("it is a topic");
    let mut publication = Publication::new(topic, vec![b'x'; 1_024]);
    for (name, value) in [
        ("host", "hooks.example.com"),
        ("user-agent", "GitHub-Hookshot/0a1b2c3"),
        ("content-type", "application/json"),
        ("x-github-event", "push"),
        ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
    ] {
        publication.headers.push(name, value.as_bytes());
    }
    publication
}

fn message() -> Message {
    Message::new(publication(), Offset(1), SystemTime::now())
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn requests(criterion: &mut Criterion) {
    let path = format!("/pub/{TOPIC}");
    criterion.bench_function("parse a path", |bench| {
        bench.iter(|| Path::parse(black_box(&path)));
    });

    let key = Key::new(b"a key for benchmarks alone").expect("it is not empty");
    let parsed = Path::parse(&path).expect("it is a path");
    let candidates = parsed.granting().count() as u64;
    let token = key.mint(&Scope::parse("/pub/github.com/").expect("it is a scope"));
    let keys = Keys::new(key);
    let mut group = criterion.benchmark_group("verify a token");
    // One HMAC for each path that a token could have been made for.
    group.throughput(Throughput::Elements(candidates));
    group.bench_function("on seven segments", |bench| {
        bench.iter(|| keys.grants(black_box(&parsed), &token, 0));
    });
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let epoch = Epoch(1);
    let mut group = criterion.benchmark_group("encode a message of 1 KiB");
    for (name, form) in [
        ("plain", Form::Plain),
        ("with its topic", Form::Prefixed),
        ("as an event", Form::Event(epoch)),
    ] {
        // A message keeps what was encoded.
        group.bench_function(name, |bench| {
            bench.iter_batched_ref(
                message,
                |message| message.frame(form)[0].len(),
                BatchSize::SmallInput,
            );
        });
    }
    group.bench_function("for an event stream", |bench| {
        bench.iter_batched_ref(
            message,
            |message| message.server_sent(epoch),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Finding the subscriptions of a message, and handing it from the hub to one of them.
fn fan_out(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("publish to one subscriber");
    for others in [0, 1_000, 100_000] {
        let (broker, fan_out) = Broker::new(Arc::new(MemoryLog::new(64 << 20)));
        let running = runtime.spawn(fan_out.run());
        let filter = |text: &str| Filter::parse(text).expect("it is a filter");
        let others: Vec<Subscription> = (0..others)
            .map(|number| broker.subscribe(filter(&format!("other/{number}"))))
            .collect();
        let mut subscription = broker.subscribe(filter("github.com/repo/acme/"));
        group.bench_function(
            format!("beside {} to other topics", others.len()),
            |bench| {
                bench.iter(|| {
                    runtime.block_on(async {
                        let published = broker.publish(publication()).await;
                        published.expect("there is room");
                        subscription.next().await.expect("nothing is missing")
                    })
                });
            },
        );
        running.abort();
    }
    group.finish();

    let mut group = criterion.benchmark_group("hand 256 messages over");
    group.throughput(Throughput::Elements(256));
    let (broker, fan_out) = Broker::new(Arc::new(MemoryLog::new(64 << 20)));
    runtime.spawn(fan_out.run());
    let mut subscription = broker.subscribe(Filter::parse(TOPIC).expect("it is a filter"));
    group.bench_function("from the log to a subscriber", |bench| {
        bench.iter_batched(
            || {
                runtime.block_on(async {
                    for _ in 0..256 {
                        let published = broker.publish(publication()).await;
                        published.expect("there is room");
                    }
                });
            },
            |()| {
                runtime.block_on(broker.flushed());
                let mut context = Context::from_waker(Waker::noop());
                let mut count = 0;
                while let Poll::Ready(next) = subscription.poll_next(&mut context) {
                    count += usize::from(next.is_ok());
                }
                count
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn appends(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("append a message of 1 KiB");
    let memory: Arc<dyn Log> = Arc::new(MemoryLog::new(64 << 20));
    let folder = std::env::temp_dir().join(format!("hookbot-bench-{}", std::process::id()));
    let disk = DiskLog::open(&folder, Options::default()).expect("a folder for a log");
    let disk: Arc<dyn Log> = Arc::new(disk);
    for (name, log) in [("in memory", &memory), ("on disk, synced", &disk)] {
        group.bench_function(name, |bench| {
            bench.iter(|| runtime.block_on(log.append(publication(), None)));
        });
    }
    group.finish();
    drop(disk);
    // It is in a folder for what is temporary.
    let _ = std::fs::remove_dir_all(folder);
}

fn cursors(criterion: &mut Criterion) {
    let cursor = Cursor {
        epoch: Epoch(0x0123_4567_89ab_cdef),
        offset: Offset(1_234_567),
    };
    criterion.bench_function("print and parse a cursor", |bench| {
        bench.iter(|| black_box(cursor).to_string().parse::<Cursor>());
    });
}

criterion_group!(hot, requests, frames, fan_out, appends, cursors);
criterion_main!(hot);

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hookbot_protocol::event::{EventFrame, GapReason};
use hookbot_protocol::{Publication, Topic};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::{Options, Socket, TestServer, UNSAFE_IS_OK, token};

const EVENTS: (&str, &str) = ("Sec-WebSocket-Protocol", "hookbot.events.v1");

async fn subscribe(server: &TestServer, path: &str) -> Socket {
    let bearer = format!("Bearer {}", token("/"));
    let headers = [("Authorization", bearer.as_str()), UNSAFE_IS_OK, EVENTS];
    server.try_subscribe(path, &headers).await.unwrap()
}

/// The next event, passing over pings.
async fn next(socket: &mut Socket) -> EventFrame {
    loop {
        match socket.receive().await.unwrap() {
            Message::Binary(frame) => return EventFrame::parse(&frame).unwrap(),
            Message::Ping(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

/// The next message's cursor and body, passing over places.
async fn message(socket: &mut Socket) -> (String, String) {
    loop {
        match next(socket).await {
            EventFrame::Message(event, body) => {
                return (event.cursor, String::from_utf8(body.to_vec()).unwrap());
            }
            EventFrame::At(_) => {}
            EventFrame::Gap(gap) => panic!("unexpected {gap:?}"),
        }
    }
}

async fn fill(server: &TestServer, topic: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let publication = Publication::new(Topic::parse(topic).unwrap(), number.to_string());
        server.broker.publish(publication).await.unwrap();
    }
}

#[tokio::test]
async fn an_event_tells_everything_and_its_body_is_what_was_sent() {
    let server = TestServer::start().await;
    let mut socket = subscribe(&server, "/unsafe/sub/a/").await;
    let headers = [("X-A", "1"), ("X-B", "2"), ("X-A", "3"), ("Cookie", "no")];
    // The envelope is for those who can't see headers.
    let line = "POST /unsafe/pub/a/b?x=%20&extra-metadata=github";
    server.request(line, &headers, b"\0body").await;
    let (event, body) = loop {
        if let EventFrame::Message(event, body) = next(&mut socket).await {
            break (event, body);
        }
    };
    assert_eq!(body, &b"\0body"[..]);
    assert_eq!(
        (event.topic.as_str(), event.method.as_str()),
        ("/unsafe/a/b", "POST")
    );
    assert_eq!(event.query, "x=%20&extra-metadata=github");
    let time: jiff::Timestamp = event.time.parse().unwrap();
    assert!(
        event.time.ends_with('Z') && time <= jiff::Timestamp::now(),
        "{}",
        event.time
    );
    let own: Vec<_> = event
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with("x-"))
        .collect();
    assert_eq!(
        serde_json::to_string(&own).unwrap(),
        r#"[["x-a","1"],["x-a","3"],["x-b","2"]]"#
    );
    assert!(event.headers.iter().all(|(name, _)| name != "cookie"));
}

#[tokio::test]
async fn a_subscriber_goes_on_where_it_was() {
    let server = TestServer::start().await;
    fill(&server, "t", 0..10).await;
    let mut socket = subscribe(&server, "/sub/t?after=start").await;
    let mut cursors = Vec::new();
    for number in 0..10 {
        let (cursor, body) = message(&mut socket).await;
        assert_eq!(body, number.to_string());
        cursors.push(cursor);
    }
    let mut socket = subscribe(&server, &format!("/sub/t?after={}", cursors[6])).await;
    fill(&server, "t", 10..12).await;
    for number in 7..12 {
        assert_eq!(message(&mut socket).await.1, number.to_string());
    }
    let mut socket = subscribe(&server, "/sub/t?since=1h").await;
    assert_eq!(message(&mut socket).await.1, "0");
    for (path, status) in [("/sub/t?after=7", 400), ("/sub/t?since=once", 400)] {
        let bearer = format!("Bearer {}", token("/"));
        let Err(Error::Http(reply)) = server
            .try_subscribe(path, &[("Authorization", &bearer)])
            .await
        else {
            panic!("{path} is refused");
        };
        assert_eq!(reply.status(), status);
    }
}

#[tokio::test]
async fn what_is_missing_is_said_and_where_it_cannot_be_said_refused() {
    let options = Options {
        log_bytes: Some(4_000),
        ..Options::default()
    };
    let server = TestServer::start_with(options).await;
    let mut socket = subscribe(&server, "/sub/t").await;
    fill(&server, "t", 0..1).await;
    let (first, _) = message(&mut socket).await;
    fill(&server, "t", 1..100).await;
    server.broker.flushed().await;

    let path = format!("/sub/t?after={first}");
    let mut socket = subscribe(&server, &path).await;
    let EventFrame::Gap(gap) = next(&mut socket).await else {
        panic!("the gap comes first");
    };
    assert_eq!((gap.asked, gap.reason), (first.clone(), GapReason::Trimmed));
    let (cursor, body) = message(&mut socket).await;
    let mut again = subscribe(&server, &format!("/sub/t?after={}", gap.oldest)).await;
    assert_eq!(message(&mut again).await, (cursor, body.clone()));
    for number in body.parse::<usize>().unwrap() + 1..100 {
        assert_eq!(message(&mut socket).await.1, number.to_string());
    }

    let bearer = format!("Bearer {}", token("/"));
    let plain = server
        .try_subscribe(&path, &[("Authorization", &bearer)])
        .await;
    let Err(Error::Http(reply)) = plain else {
        panic!("there is no room to tell")
    };
    assert_eq!(reply.status(), 410);
    let mut skipping = server.subscribe(&format!("{path}&gap=skip")).await;
    assert_eq!(skipping.next().await, body);
    // The start is never a gap.
    let mut start = server.subscribe("/sub/t?after=start").await;
    assert_eq!(start.next().await, body);

    let epoch = if first.starts_with('0') { "1" } else { "0" };
    let other_log = format!("{epoch}{}", &first[1..]);
    let beyond = format!("{}9999", first);
    for (cursor, reason) in [(other_log, GapReason::Epoch), (beyond, GapReason::Ahead)] {
        let mut socket = subscribe(&server, &format!("/sub/t?after={cursor}")).await;
        let EventFrame::Gap(gap) = next(&mut socket).await else {
            panic!("{cursor} is no place in this log");
        };
        assert_eq!((gap.asked, gap.reason), (cursor, reason));
        assert_eq!(message(&mut socket).await.1, body);
    }
}

#[tokio::test]
async fn an_idle_subscriber_is_told_where_to_go_on() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.ping_interval = std::time::Duration::from_millis(20);
    }))
    .await;
    let mut socket = subscribe(&server, "/sub/t").await;
    let EventFrame::At(first) = next(&mut socket).await else {
        panic!("the place comes first");
    };
    fill(&server, "elsewhere", 0..5).await;
    let place = loop {
        if let EventFrame::At(place) = next(&mut socket).await
            && place != first
        {
            break place;
        }
    };
    fill(&server, "t", 0..3).await;
    let mut socket = subscribe(&server, &format!("/sub/t?after={place}")).await;
    for number in 0..3 {
        assert_eq!(message(&mut socket).await.1, number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnecting_all_the_time_under_load_misses_and_repeats_nothing() {
    // HOOKBOT_RECONNECTS makes it long.
    let reconnects =
        std::env::var("HOOKBOT_RECONNECTS").map_or(500, |count| count.parse().unwrap());
    let server = TestServer::start().await;
    let broker = server.broker.clone();
    let taken = Arc::new(AtomicUsize::new(0));
    let publisher = tokio::spawn({
        let taken = taken.clone();
        async move {
            for number in 0.. {
                let topic = Topic::parse(if number % 2 == 0 { "t/even" } else { "t/odd" }).unwrap();
                let publication = Publication::new(topic, number.to_string());
                broker.publish(publication).await.unwrap();
                // Always ahead of the reader, and never so far that messages are trimmed.
                while number > taken.load(Ordering::Relaxed) + 1_000 {
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    let (mut place, mut expected) = ("start".to_owned(), 0);
    for _ in 0..reconnects {
        let mut socket = subscribe(&server, &format!("/sub/t/?after={place}")).await;
        for _ in 0..fastrand::usize(1..50) {
            let (cursor, body) = message(&mut socket).await;
            assert_eq!(body, expected.to_string());
            (place, expected) = (cursor, expected + 1);
            taken.store(expected, Ordering::Relaxed);
        }
    }
    println!("{reconnects} reconnects, {expected} messages: no gap, no repeat");
    publisher.abort();
}

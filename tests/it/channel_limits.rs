//! What strangers may do with channels, and what nobody gets to see of them.

use std::num::NonZeroU32;
use std::time::Instant;

use hookbot::server::{Networks, Rate};
use hookbot_log::Limit;
use hookbot_protocol::{Filter, Key, Keys, Offset};
use tokio::io::AsyncWriteExt;

use crate::canaries::Kept;
use crate::channel_calls;
use crate::channels::{mint, open};
use crate::stream::Stream;
use crate::support::{Reply, TestServer, UNSAFE_IS_OK, key, read_to_end, token};

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

async fn post(server: &TestServer, id: &str) -> Reply {
    let line = format!("POST /smee/{id}");
    server.request(&line, &[], b"x").await
}

/// How many messages the log has, of either kind.
async fn stored(server: &TestServer) -> usize {
    let mut number = 0;
    for filter in ["/", "/unsafe/"] {
        let filter = Filter::parse(filter).unwrap();
        let limit = Limit {
            messages: 1_000,
            bytes: 1 << 20,
        };
        let page = server.broker.log().read(filter, Offset(0), limit).await;
        number += page.unwrap().messages.len();
    }
    number
}

#[tokio::test]
async fn an_id_with_any_byte_changed_is_refused_at_every_door() {
    let server = open(|settings| {
        // Each address has a number of guesses.
        settings.rules.proxies.networks = Networks::parse(["127.0.0.1"]).unwrap();
    })
    .await;
    let (smee, calls) = (mint(&server).await, channel_calls::mint(&server).await);
    for at in 0..smee.len() {
        let bent = |id: &str| {
            let mut bytes = id.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            String::from_utf8(bytes).unwrap()
        };
        let (smee, calls) = (bent(&smee), bent(&calls));
        let address = format!("10.0.0.{at}");
        for line in [
            format!("POST /smee/{smee}"),
            format!("GET /smee/{smee}"),
            format!("GET /smee/events/{smee}"),
            format!("POST /smee/replay/{smee}?token={}", token("/")),
            format!("GET /ws/{calls}"),
            format!("POST /webhook/{calls}/a"),
        ] {
            let reply = server
                .request(&line, &[("X-Forwarded-For", &address)], b"x")
                .await;
            assert_eq!(reply.status, 404, "{line}");
        }
    }
    assert_eq!(stored(&server).await, 0);
}

#[tokio::test]
async fn nothing_is_read_of_a_body_for_a_channel_that_is_made_up() {
    let server = open(|_| {}).await;
    for path in ["/smee/made-up-by-somebody", "/webhook/made-up-by-somebody"] {
        let mut stream = server.connect().await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let reply = Reply::parse(&read_to_end(&mut stream).await);
        assert_eq!(
            (reply.status, reply.header("connection")),
            (404, Some("close"))
        );
    }
}

#[tokio::test]
async fn who_guesses_is_told_to_wait_and_who_knows_is_not() {
    let server = open(|_| {}).await;
    let id = mint(&server).await;
    let mut guesses = 1;
    let refused = loop {
        let made_up = format!("made-up-by-somebody-{guesses}");
        match post(&server, &made_up).await.status {
            404 => guesses += 1,
            other => break other,
        }
    };
    // More on a busy machine, where some are forgiven meanwhile.
    assert!(guesses >= 100, "{guesses}");
    assert_eq!(refused, 429);
    assert_eq!(post(&server, &id).await.status, 200);
}

#[tokio::test]
async fn an_address_has_so_many_new_channels() {
    let server = open(|settings| {
        settings.rules.new_channel_rate = rate("2/h");
        settings.rules.proxies.networks = Networks::parse(["127.0.0.1"]).unwrap();
    })
    .await;
    let ask = async |line: &str, address: &str| {
        let from = [("X-Forwarded-For", address)];
        server.request(line, &from, b"").await
    };
    assert_eq!(ask("GET /smee/new", "10.0.0.1").await.status, 200);
    assert_eq!(ask("GET /new", "10.0.0.1").await.status, 200);
    for line in ["GET /smee/new", "HEAD /smee/new", "GET /new"] {
        let reply = ask(line, "10.0.0.1").await;
        assert_eq!(reply.status, 429);
        assert!(reply.header("retry-after").is_some());
    }
    assert_eq!(ask("GET /new", "10.0.0.2").await.status, 200);
}

#[tokio::test]
async fn a_channel_is_sent_to_so_often() {
    let server = open(|settings| settings.rules.channel_rate = rate("2/h")).await;
    let (one, other) = (mint(&server).await, mint(&server).await);
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(post(&server, &one).await.status);
    }
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(post(&server, &other).await.status, 200);
    assert_eq!(stored(&server).await, 3);
}

#[tokio::test]
async fn channels_share_what_strangers_have() {
    let server = open(|settings| {
        settings.unsafe_rate = NonZeroU32::new(2).unwrap();
        settings.max_body = 10;
    })
    .await;
    let (one, other) = (mint(&server).await, channel_calls::mint(&server).await);
    let path = format!("/ws/{other}");
    let _client = server.try_subscribe(&path, &[]).await.unwrap();
    let lines = [
        format!("POST /smee/{one}"),
        format!("POST /webhook/{other}"),
        "POST /unsafe/pub/a".to_owned(),
    ];
    let began = Instant::now();
    let mut allowed = 0;
    for line in lines.iter().cycle().take(60) {
        // Too large, and counted all the same.
        let reply = server.request(line, &[], &[b'x'; 11]).await;
        assert!(matches!(reply.status, 413 | 429), "{line}: {reply:?}");
        allowed += u64::from(reply.status == 413);
    }
    // Half of two a second, twice that at once: not that for each door.
    let most = 2 + began.elapsed().as_secs() + 1;
    assert!((2..=most).contains(&allowed), "{allowed} of {most}");
    assert_eq!(stored(&server).await, 0);
}

#[tokio::test]
async fn so_many_channels_have_a_client_and_each_so_many() {
    let server = open(|settings| {
        settings.rules.max_channels = 2;
        settings.rules.max_subscribers_per_token = Some(2);
    })
    .await;
    let events = async |id: &str| Stream::open(&server, &format!("/smee/{id}"), "").await;
    let (one, two, calls) = (
        mint(&server).await,
        mint(&server).await,
        channel_calls::mint(&server).await,
    );
    let (_first, head) = events(&one).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let (second, _) = events(&one).await;
    let (_, head) = events(&one).await;
    assert!(head.starts_with("http/1.1 429"), "{head}");
    let client = server
        .try_subscribe(&format!("/ws/{calls}"), &[])
        .await
        .unwrap();
    let (_, head) = events(&two).await;
    assert!(head.starts_with("http/1.1 503"), "{head}");
    // Sending takes no place.
    assert_eq!(post(&server, &two).await.status, 200);
    drop((second, client));
    // There is a place again as soon as the server has noticed.
    while !events(&two).await.1.starts_with("http/1.1 200") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_address_that_is_refused_is_refused_here_as_well() {
    let server = open(|_| {}).await;
    let id = mint(&server).await;
    let (mut stream, _) = Stream::open(&server, &format!("/smee/{id}"), "").await;
    stream.next().await.unwrap();
    let calls = channel_calls::mint(&server).await;
    let mut client = server
        .try_subscribe(&format!("/ws/{calls}"), &[])
        .await
        .unwrap();
    let updated = server.control.update(|rules| {
        rules.refused = Networks::parse(["127.0.0.1"]).unwrap();
        Ok::<_, std::convert::Infallible>(())
    });
    updated.await.unwrap();
    assert_eq!(stream.next().await, None);
    assert_eq!(client.close_code().await, 1008);
    for line in ["GET /smee/new", "GET /new", &format!("POST /smee/{id}")] {
        assert_eq!(server.request(line, &[], b"").await.status, 403);
    }
}

#[tokio::test]
async fn no_id_is_found_in_anything_that_is_logged_or_counted() {
    let lines = Kept::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(lines.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let old = Key::new(b"the key before").unwrap();
    let server = open(|settings| {
        settings.rules.keys = Keys::new(key()).with_previous(vec![old]);
    })
    .await;
    let (id, calls) = (mint(&server).await, channel_calls::mint(&server).await);
    let encoded: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let (mut stream, _) = Stream::open(&server, &format!("/smee/{id}"), "").await;
    stream.next().await.unwrap();
    let listener = server.subscribe(&format!("/unsafe/sub/smee/{id}")).await;
    let client = server
        .try_subscribe(&format!("/ws/{calls}"), &[])
        .await
        .unwrap();
    let old = Key::new(b"the key before").unwrap();
    let path = format!("/smee/replay/{id}");
    let old = old
        .mint(&hookbot_protocol::Scope::parse(&path).unwrap())
        .expose();
    for line in [
        format!("POST /smee/{id}"),
        format!("POST /smee/{encoded}"),
        format!("GET /smee/{id}"),
        format!("DELETE /smee/{id}"),
        format!("POST /smee//{id}"),
        format!("POST /smee/{id}/"),
        format!("POST /SMEE/{id}"),
        format!("POST /smee/{id}x"),
        format!("POST /smee/../{id}"),
        format!("POST {path}?token={old}"),
        format!("GET /unsafe/sub/smee/{id}"),
        format!("POST /unsafe/pub/smee/{id}"),
        format!("POST /pub/{id}"),
        format!("GET /ws/{calls}"),
        format!("POST /ws/{calls}"),
        format!("CONNECT /webhook/{calls}"),
        format!("GET /{calls}"),
    ] {
        let reply = server.request(&line, &[UNSAFE_IS_OK], b"x").await;
        if reply.status >= 400 && reply.status != 426 {
            // Error pages are shown around. What one should have typed is not an error page.
            assert!(!reply.body.contains(&id[4..]), "{line}: {reply:?}");
        }
    }
    drop((stream, listener, client));
    let metrics = format!("GET /metrics?token={}", token("/metrics"));
    let metrics = server.request(&metrics, &[], b"").await;
    assert_eq!(metrics.status, 200);
    assert!(
        metrics.body.contains("hookbot_refusals_total"),
        "{metrics:?}"
    );
    let mut server = server;
    server.stop.cancel();
    (&mut server.running).await.unwrap();

    let log = lines.text();
    for control in [
        "subscriber gone",
        "event stream ended",
        "client of a channel gone",
    ] {
        assert!(log.contains(control), "{control}");
    }
    assert!(log.contains("a token of a previous key is still in use"));
    assert!(
        log.contains("/smee/hbc_***"),
        "paths are logged without ids"
    );
    for secret in [&id[4..], &calls[4..], &encoded] {
        assert!(!log.contains(secret), "{}", around(&log, secret));
        assert!(!metrics.body.contains(secret));
    }
}

/// Where in a log it is.
fn around<'a>(log: &'a str, secret: &str) -> &'a str {
    let line = log.lines().find(|line| line.contains(secret));
    line.unwrap_or_default()
}

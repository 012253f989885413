//! Channels of smee and gosmee servers, over real HTTP, as these servers write them.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use hookbot_forward::source::channel::{Channel, ChannelKind};
use hookbot_forward::{Given, Message, Source, TargetSettings, Trouble};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::PATIENCE;

/// What the next request is answered with.
pub(crate) struct Answer {
    head: &'static str,
    body: String,
    /// How many bytes are written at once.
    chunk: usize,
    /// What becomes of the connection behind it.
    then: Then,
}

pub(crate) enum Then {
    /// The response ends properly.
    End,
    /// The connection is cut in the middle of the response.
    Cut,
    /// Nothing ever follows.
    Silence,
}

pub(crate) const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
pub(crate) const NO_VERSION: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n";
pub(crate) const VERSION: &str = "HTTP/1.1 200 OK\r\nX-Gosmee-Version: 0.32.0\r\n";

impl Answer {
    pub(crate) fn new(head: &'static str, body: impl Into<String>, then: Then) -> Self {
        Self {
            head,
            body: body.into(),
            chunk: 4096,
            then,
        }
    }

    async fn write(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let head = format!(
            "{}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
            self.head
        );
        stream.write_all(head.as_bytes()).await?;
        for chunk in self.body.as_bytes().chunks(self.chunk) {
            stream
                .write_all(format!("{:x}\r\n", chunk.len()).as_bytes())
                .await?;
            stream.write_all(chunk).await?;
            stream.write_all(b"\r\n").await?;
        }
        match self.then {
            Then::End => stream.write_all(b"0\r\n\r\n").await,
            Then::Cut => Ok(()),
            Then::Silence => stream.read_u8().await.map(drop),
        }
    }
}

/// Answers one request after the other, and hands out their heads.
pub(crate) async fn serve(answers: Vec<Answer>) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, heads) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let _ = asked.send(String::from_utf8(head).unwrap());
            // The client may have heard enough.
            let _ = answer.write(&mut stream).await;
        }
    });
    (address, heads)
}

fn channel(address: SocketAddr, kind: ChannelKind) -> Channel {
    let url = format!("http://{address}/base/some-channel?x=1");
    let channel = Channel::new(&url, kind, TargetSettings::default()).unwrap();
    channel.retry_within(Duration::from_millis(5))
}

async fn next(stream: &mut BoxStream<'static, Given>) -> Given {
    loop {
        let given = timeout(PATIENCE, stream.next())
            .await
            .expect("nothing came")
            .unwrap();
        if given != Given::Heard {
            return given;
        }
    }
}

async fn message(stream: &mut BoxStream<'static, Given>) -> (Message, Option<String>) {
    match next(stream).await {
        Given::Message(message, place) => (*message, place),
        other => panic!("a message, not {other:?}"),
    }
}

async fn trouble(stream: &mut BoxStream<'static, Given>) -> Trouble {
    match next(stream).await {
        Given::Trouble(trouble) => trouble,
        other => panic!("trouble, not {other:?}"),
    }
}

/// As smee.io writes it, its counter of events included.
const SMEE: &str = "\
id: 0\nevent: ready\ndata: {}\n\n\
id: 1\ndata: {\"host\":\"smee.io\",\"x-github-event\":\"push\",\"content-type\":\"application/json\",\
\"body\":{\"n\":1.0,\"ü\":\"☃\"},\"query\":{\"a\":\"1\"},\"timestamp\":1769862600007}\n\n\
id: 2\nevent: ping\ndata: {}\n\n\
id: 3\nevent: message\ndata: {\"body\":[2],\"query\":{},\"timestamp\":1769862600008}\n\n";

#[tokio::test]
async fn smees_events_are_messages_however_they_are_cut() {
    for chunk in [1, 7, 4096] {
        for kind in [ChannelKind::Smee, ChannelKind::Auto] {
            let mut answers = vec![Answer {
                chunk,
                ..Answer::new(EVENTS, SMEE, Then::Silence)
            }];
            if kind == ChannelKind::Auto {
                answers.insert(0, Answer::new(NO_VERSION, "<html>", Then::End));
            }
            let (address, mut heads) = serve(answers).await;
            let mut stream = channel(address, kind).open(None);
            let (first, place) = message(&mut stream).await;
            assert_eq!(first.payload, "{\"n\":1.0,\"ü\":\"☃\"}");
            assert_eq!(first.event_type().as_deref(), Some("push"));
            assert_eq!((&*first.event.query, first.method()), ("a=1", "POST"));
            // A counter of one connection is no place to go on from.
            assert_eq!((place, &*first.event.cursor), (None, ""));
            assert_eq!(message(&mut stream).await.0.payload, "[2]");

            if kind == ChannelKind::Auto {
                assert!(
                    heads
                        .recv()
                        .await
                        .unwrap()
                        .starts_with("GET /base/version HTTP")
                );
            }
            let head = heads.recv().await.unwrap();
            assert!(
                head.starts_with("GET /base/some-channel?x=1 HTTP/1.1\r\n"),
                "{head}"
            );
            assert!(head.contains("accept: text/event-stream\r\n"), "{head}");
        }
    }
}

/// As a gosmee server with Redis writes it.
pub(crate) const GOSMEE: &str = "\
data: {\"message\":\"connected\"}\n\n\
data: {\"message\":\"ready\"}\n\n\
: keepalive\n\n\
id: 1769862600007-0\ndata: {\"content-type\":\"application/json\",\"body\":\"forged\",\
\"x-gitlab-event\":\"Push Hook\",\"timestamp\":\"1769862600007\",\"bodyB\":\"eyJuIjogMX0NCg==\"}\n\n";

#[tokio::test]
async fn gosmees_events_are_every_byte_and_go_on_where_they_were() {
    for chunk in [1, 7, 4096] {
        let (address, mut heads) = serve(vec![
            Answer::new("HTTP/1.1 503 Busy\r\n", "", Then::End),
            Answer::new(VERSION, "{}", Then::End),
            Answer {
                chunk,
                ..Answer::new(EVENTS, GOSMEE, Then::Cut)
            },
            Answer::new(
                EVENTS,
                "event: gosmee-gap\ndata: {\"error\":\"missed_history\",\
                 \"requested_id\":\"1769862600007-0\",\"oldest_id\":\"9-0\"}\n\n\
                 id: 9-1\ndata: {\"bodyB\":\"/w==\"}\n\n",
                Then::Silence,
            ),
        ])
        .await;
        let mut stream = channel(address, ChannelKind::Auto).open(None);
        // A server that is busy may be of either kind.
        assert_eq!(
            trouble(&mut stream).await,
            Trouble::Lost("the server refused with 503 Service Unavailable".to_owned())
        );
        let (first, place) = message(&mut stream).await;
        assert_eq!(first.payload, "{\"n\": 1}\r\n");
        assert_eq!(first.event_type().as_deref(), Some("Push Hook"));
        assert_eq!(place.as_deref(), Some("1769862600007-0"));
        assert!(matches!(trouble(&mut stream).await, Trouble::Lost(_)));
        let Trouble::Missing(text) = trouble(&mut stream).await else {
            panic!("it is told of the gap");
        };
        assert!(
            text.contains("1769862600007-0") && text.contains("9-0"),
            "{text}"
        );
        let (second, place) = message(&mut stream).await;
        assert_eq!(
            (&*second.payload, place.as_deref()),
            (&b"\xff"[..], Some("9-1"))
        );

        let mut lines = Vec::new();
        while let Ok(head) = heads.try_recv() {
            let resumes = head.contains("last-event-id: 1769862600007-0\r\n");
            lines.push((head.split(' ').nth(1).unwrap().to_owned(), resumes));
        }
        let line = |path: &str, resumes| (path.to_owned(), resumes);
        assert_eq!(
            lines,
            [
                line("/base/version", false),
                line("/base/version", false),
                line("/base/events/some-channel", false),
                line("/base/events/some-channel", true),
            ]
        );
    }
}

// Made with PyNaCl.
const KEY: &str = r#"{"public_key":"B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9/AsrhtHHw=",
    "private_key":"AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="}"#;
const SEALED: &str = r#"{"encrypted":true,"version":1,"epk":"VxR2nRFr92Q2rnS8eT0sMK0ZA8WaxSc4BcfiaYtBDDY=","nonce":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYX","ciphertext":"j2n67sSar/1ELKqa076eMXFzYhkrnPH52JMpMsQ5G64mRz+kgKaA9U4zKYKcQSUsb4FPKcPeLVpuQl01rla5DFYRebwShCmJeMxQlzI/h5+Z8ug232APID5eKM+KiD/DM2nuvUqznm45fg=="}"#;

#[tokio::test]
async fn an_encrypted_event_is_forwarded_with_its_key() {
    let events = format!("id: 1-0\ndata: {SEALED}\n\n");
    let (address, mut heads) = serve(vec![
        Answer::new(VERSION, "{}", Then::End),
        Answer::new(EVENTS, events, Then::Silence),
    ])
    .await;
    let folder = tempfile::tempdir().unwrap();
    let (key, saved) = (folder.path().join("key"), folder.path().join("saved"));
    std::fs::write(&key, KEY).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hookbot"))
        .args([
            "forward",
            "--no-state",
            "--count",
            "1",
            "--encryption-key-file",
        ])
        .arg(&key)
        .arg("--save")
        .arg(&saved)
        .arg(format!("http://{address}/some-channel"))
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, output)
        .await
        .expect("it does not end")
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let saved = hookbot_forward::saved::find([saved]).unwrap();
    assert_eq!(saved[0].read().unwrap().payload, "{\"n\": 1}\r\n");

    assert!(heads.recv().await.unwrap().starts_with("GET /version "));
    let head = heads.recv().await.unwrap();
    let line = "GET /events/some-channel?pubkey=B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9_AsrhtHHw HTTP";
    assert!(head.starts_with(line), "{head}");
}

#[tokio::test]
async fn a_place_that_was_kept_is_gone_on_from() {
    let (address, mut heads) = serve(vec![Answer::new(EVENTS, GOSMEE, Then::Silence)]).await;
    let mut stream = channel(address, ChannelKind::Gosmee).open(Some("7-7"));
    message(&mut stream).await;
    assert!(
        heads
            .recv()
            .await
            .unwrap()
            .contains("last-event-id: 7-7\r\n")
    );
}

#[tokio::test]
async fn a_silent_server_is_left_for_a_new_connection() {
    let (address, _heads) = serve(vec![
        Answer::new(EVENTS, "event: ready\ndata: {}\n\n", Then::Silence),
        Answer::new(EVENTS, SMEE, Then::Silence),
    ])
    .await;
    let channel = channel(address, ChannelKind::Smee).silent_after(Duration::from_millis(200));
    let mut stream = channel.open(None);
    let Trouble::Lost(text) = trouble(&mut stream).await else {
        panic!("it is lost");
    };
    assert!(text.contains("silent"), "{text}");
    message(&mut stream).await;
}

#[tokio::test]
async fn what_is_no_channel_is_refused_and_what_can_not_be_read_is_told() {
    let broken = "data: {\"bodyB\":\"?\"}\n\ndata: {\"encrypted\":true,\"version\":1,\
                  \"epk\":\"a\",\"nonce\":\"b\",\"ciphertext\":\"c\"}\n\n";
    let (address, _heads) = serve(vec![
        Answer::new("HTTP/1.1 404 Not Found\r\n", "", Then::End),
        Answer::new(NO_VERSION, "<html>", Then::End),
        Answer::new(EVENTS, broken, Then::End),
    ])
    .await;
    let mut stream = channel(address, ChannelKind::Gosmee).open(None);
    assert!(matches!(trouble(&mut stream).await, Trouble::Refused(_)));
    assert!(matches!(trouble(&mut stream).await, Trouble::Refused(_)));
    assert!(matches!(trouble(&mut stream).await, Trouble::Missing(_)));
    assert!(matches!(trouble(&mut stream).await, Trouble::Missing(_)));
    assert!(matches!(trouble(&mut stream).await, Trouble::Lost(_)));
}

#[tokio::test]
async fn an_event_without_an_end_does_not_take_all_memory() {
    let endless = format!("data: {}", "x".repeat((64 << 20) + 1));
    let (address, mut heads) = serve(vec![
        Answer {
            chunk: 1 << 20,
            ..Answer::new(EVENTS, endless, Then::Silence)
        },
        Answer::new(EVENTS, GOSMEE, Then::Silence),
    ])
    .await;
    let mut stream = channel(address, ChannelKind::Gosmee).open(Some("7-7"));
    assert!(matches!(trouble(&mut stream).await, Trouble::Missing(_)));
    message(&mut stream).await;
    assert!(heads.recv().await.unwrap().contains("last-event-id"));
    assert!(!heads.recv().await.unwrap().contains("last-event-id"));
}

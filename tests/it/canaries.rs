//! A token in every place that one can take, and then a search for it in everything that is kept
//! or shown.

use std::io::Write;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookbot::server::{OnFail, Source, SourceSecret, Sources};
use hookbot_log::Limit;
use hookbot_protocol::event::Event;
use hookbot_protocol::{DenyList, Filter, Keys, Offset, Scope};
use hookbot_signatures::Provider;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Options, TestServer, key, token};

/// Keeps every line of the log.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    /// What was logged so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Kept {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Everything that is kept of messages, as text.
async fn stored(server: &TestServer) -> String {
    let log = server.broker.log();
    let mut text = String::new();
    for filter in ["/", "/unsafe/"] {
        let limit = Limit {
            messages: 10_000,
            bytes: 100 << 20,
        };
        let filter = Filter::parse(filter).unwrap();
        let page = log.read(filter, Offset(0), limit).await.unwrap();
        for message in page.messages {
            let event = Event::new(&message, log.epoch());
            text += &event.to_json(&message.publication.body);
            text += &format!("{message:?}");
        }
    }
    text
}

const PROVIDER_SECRET: &str = "canary of the provider";

#[tokio::test]
async fn no_token_and_no_secret_is_found_in_anything_that_is_kept_or_shown() {
    let lines = Kept::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(lines.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);

    let old_key = hookbot_protocol::Key::new(b"canary of the old key").unwrap();
    let previous = old_key.clone();
    let server = TestServer::start_with(Options::settings(move |settings| {
        let secret = SourceSecret::new("literal 1", PROVIDER_SECRET.into()).unwrap();
        settings.rules.sources = Sources::new(vec![Source {
            scheme: Some(Provider::Gitlab.into()),
            secrets: vec![secret],
            on_fail: OnFail::Quarantine,
            ..Source::new(Filter::parse("/unsafe/gitlab").unwrap())
        }])
        .unwrap();
        settings.rules.keys = Keys::new(key()).with_previous(vec![previous]);
    }))
    .await;

    let scope = Scope::parse("/pub/a").unwrap();
    let named = key().mint_named(&scope, &"canary".parse().unwrap(), Some(u64::MAX));
    let good = [
        token("/pub/a"),
        named.expose(),
        key().mint_expiring(&scope, u64::MAX).expose(),
        old_key.mint(&scope).expose(),
    ];
    // Good elsewhere, so refused here.
    let elsewhere = [token("/pub/b"), token("/sub/a"), "0".repeat(64)];
    let mut shown = String::new();
    for own in good.iter().chain(&elsewhere) {
        let basic = STANDARD.encode(format!("{own}:"));
        let first = own.as_bytes()[0];
        let encoded = format!("%{first:02x}{}", &own[1..]);
        let (bearer, basic) = (format!("Bearer {own}"), format!("Basic {basic}"));
        let (digest, undecodable) = (format!("Digest {own}"), format!("Basic {own}"));
        let quoted = format!("Bearer \"{own}\"");
        let referer = format!("https://h/pub/a?token={own}");
        let mut all: Vec<(String, Vec<(&str, &str)>)> = Vec::new();
        for line in [
            "POST /pub/a",
            "GET /pub/a",
            "DELETE /pub/a",
            "POST /pub//a",
            "GET /sub/a",
        ] {
            for headers in [
                vec![("Authorization", &*bearer)],
                vec![("Authorization", &basic)],
                vec![("Hookbot-Token", own)],
                vec![("Hookbot-Token", own), ("Cookie", own)],
                vec![("Hookbot-Token", own), ("Referer", &referer)],
                vec![("Hookbot-Token", own), ("X-Forwarded-Uri", &referer)],
                vec![("Hookbot-Token", own), ("X-Original-Authorization", &basic)],
                vec![
                    ("Authorization", &basic),
                    ("Origin", "https://evil.example"),
                ],
                vec![("Proxy-Authorization", &*bearer)],
                vec![("Authorization", own)],
                vec![("Authorization", &*digest)],
                vec![("Authorization", &*undecodable)],
                vec![("Authorization", &*quoted)],
                vec![("Authorization", &*bearer), ("Authorization", &*bearer)],
            ] {
                all.push((line.to_owned(), headers));
            }
            // Where a token does not belong, once with one that is good and once alone.
            for name in [
                "Accept",
                "Content-Type",
                "Expect",
                "Forwarded",
                "Last-Event-ID",
                "Origin",
                "Sec-WebSocket-Key",
                "Sec-WebSocket-Protocol",
                "Transfer-Encoding",
                "Upgrade",
                "User-Agent",
                "X-Forwarded-For",
                "X-Forwarded-Host",
                "X-Forwarded-Proto",
            ] {
                all.push((line.to_owned(), vec![(name, own), ("Hookbot-Token", own)]));
                all.push((line.to_owned(), vec![(name, own)]));
            }
            for query in [
                format!("token={own}"),
                format!("token={encoded}"),
                format!("x=1&token={own}&token={own}"),
                format!("token={own}&next={own}"),
                format!("extra-metadata=no&token={own}"),
            ] {
                all.push((format!("{line}?{query}"), vec![]));
                let with_referer = vec![("Referer", &*referer)];
                all.push((format!("{line}?{query}"), with_referer));
            }
        }
        // A path is logged, and a `?` that was escaped on the way makes a path of a query.
        for line in [
            format!("GET /{own}"),
            format!("GET /{own}/pub/a"),
            format!("POST /pub/{own}"),
            format!("POST /pub/a/{own}"),
            format!("POST /pub/a%3Ftoken={own}"),
            format!("GET /sub/a%3ftoken%3d{encoded}"),
            format!("POST /pub/a&token={own}"),
            format!("POST /call/a%3Ftoken={own}"),
            format!("GET /answer/a%3Ftoken={own}"),
            format!("GET /sub/a?after={own}&token={own}"),
            format!("GET /answer/a?token={own}"),
            format!("POST http://{own}@h/pub/a"),
            format!("POST http://h/pub/a?token={own}"),
            format!("CONNECT {own}:443"),
            "OPTIONS *".to_owned(),
            format!("{own} /pub/a"),
        ] {
            all.push((line, vec![("Authorization", &*bearer)]));
        }
        for (line, headers) in all {
            let reply = server.request(&line, &headers, b"control in a body").await;
            shown += &format!("{}\n{}\n", reply.head, reply.body);
        }
        // Not a request at all.
        for broken in [
            format!("POST /pub/a?token={own} HTTP/1.1\nHost: h\n\n"),
            format!("{own}\r\n\r\n"),
            format!("POST /pub/a HTTP/1.1\r\nHost: h\r\nHost: {own}\r\n\r\n"),
            format!("POST /pub/a HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {own}\x01\r\n\r\n"),
            format!("POST /pub/a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{own}: x\r\n\r\n"),
            format!(
                "POST /pub/a HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {own}\r\n\r\n"
            ),
            format!("POST /pub/a?token={own} HTTP/9.9\r\nHost: h\r\n\r\n"),
            format!("PROXY TCP4 {own} 10.0.0.1 1 2\r\nPOST /pub/a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ] {
            shown += &server.raw(broken).await;
        }
        // No text at all.
        for (before, after) in [
            ("POST /pub/a?x=", " HTTP/1.1\r\n"),
            ("POST /pub/a HTTP/1.1\r\nHookbot-Token: ", "\r\n"),
            ("POST /pub/a HTTP/1.1\r\nReferer: ", "\r\n"),
        ] {
            let rest = format!("{own}{after}Host: h\r\nConnection: close\r\n\r\n");
            let broken = [before.as_bytes(), b"\xff\xc3", rest.as_bytes()].concat();
            shown += &server.raw(broken).await;
        }
    }
    let gitlab = [
        ("X-Gitlab-Token", PROVIDER_SECRET),
        ("X-Control", "control in a header"),
    ];
    let wrong = [("X-Gitlab-Token", "canary of a guess")];
    for headers in [&gitlab[..], &wrong] {
        let reply = server.request("POST /unsafe/pub/gitlab", headers, b"");
        assert_eq!(reply.await.status, 200);
    }
    // Whoever is revoked is not shown either.
    let revoked = DenyList::parse(&good.join("\n")).unwrap();
    server.control.revoke(revoked).await;
    for own in &good {
        let bearer = format!("Bearer {own}");
        let reply = server
            .request("POST /pub/a", &[("Authorization", &bearer)], b"")
            .await;
        assert!(matches!(reply.status, 401 | 429), "{}", reply.status);
    }
    let metrics = format!("GET /metrics?token={}", token("/metrics"));
    shown += &server.request(&metrics, &[], b"").await.body;

    let stored = stored(&server).await;
    let logged = lines.text();
    assert!(!stored.contains("canary of a guess"));
    // The search finds what is there.
    assert!(stored.contains("control in a header") && stored.contains("control in a body"));
    assert!(shown.contains("hookbot_publishes_total") && shown.contains("401 Unauthorized"));
    assert!(logged.contains("path=\"/pub/a\""), "{} bytes", logged.len());
    assert!(
        logged.contains("token=\"canary\""),
        "tokens are logged by name"
    );

    let mut searched = 0;
    let secrets = good.iter().chain(&elsewhere).map(String::as_str);
    for canary in secrets.chain(["canary of the old key", "a key for tests alone"]) {
        let basic = STANDARD.encode(format!("{canary}:"));
        let mac = canary.rsplit('.').next().unwrap_or(canary);
        for canary in [mac, &mac[1..], &basic] {
            for (place, text) in [("log", &logged), ("store", &stored), ("replies", &shown)] {
                let line = text.lines().find(|line| line.contains(canary));
                assert_eq!(line, None, "a token is in the {place}");
                searched += 1;
            }
        }
    }
    // GitLab sends the secret itself, and whoever saw it could send as GitLab does.
    for text in [&logged, &stored, &shown] {
        assert!(!text.contains(PROVIDER_SECRET));
    }
    println!(
        "{searched} searches in {} bytes",
        logged.len() + stored.len() + shown.len()
    );
}

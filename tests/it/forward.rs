use hookbot_protocol::Headers;
use hookbot_signatures::{Provider, Request, Scheme, Secret};
use tokio::io::AsyncWriteExt;

use crate::forward_stage::{Act, Service, Stage};
use crate::support::{Reply, read_to_end, token};

/// Publishes what is exactly so; the request line is without its version.
async fn publish(stage: &Stage, line: &str, headers: &[(&str, &str)], body: &[u8]) {
    let mut head = format!("{line} HTTP/1.1\r\nHost: hooks.example.com\r\n");
    head += &format!(
        "Hookbot-Token: {}\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n",
        token("/")
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    let mut stream = stage.server.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let reply = Reply::parse(&read_to_end(&mut stream).await);
    assert_eq!(reply.status, 200, "{}", reply.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_is_what_was_sent() {
    let stage = Stage::new().await;
    let (service, url) = Service::start(|_| Act::Answer(204)).await;
    let to = format!("{url}//x%2Fy?own=1");
    let _running = stage.forward("/sub/a/", &[&to]).await;
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xab\x56\x4a\xcb\xcf\x07\0\xd5\xf2\x9e\x71";
    let large = vec![b'x'; 25 << 20];
    let multipart = b"--b\r\ncontent-disposition: form-data; name=\"f\"\r\n\r\n\0\xff\r\n--b--\r\n";
    let bodies: [(&str, &[u8]); 9] = [
        (
            "application/json",
            b"{ \"a\" :  1 ,\r\n\t\"b\":\"\\u0041\" }\n\n",
        ),
        ("application/x-www-form-urlencoded", b"a=1&b=%20+&a=2"),
        ("multipart/form-data; boundary=b", multipart),
        ("application/gzip", gzip),
        ("application/octet-stream", b"\0\x01\0\xff\xfe"),
        (
            "text/plain; charset=utf-8",
            "grüße, 世界 \u{1f600}".as_bytes(),
        ),
        ("application/json", b""),
        ("text/plain", b"\n"),
        ("application/octet-stream", &large),
    ];
    for (kind, body) in bodies {
        let headers = [
            ("Content-Type", kind),
            ("X-Repeated", "1"),
            ("Authorization", "Bearer the sender's own"),
            ("x-repeated", "2, 3"),
            ("X-Empty", ""),
        ];
        publish(&stage, "POST /pub/a/b?q=%41&q", &headers, body).await;
    }
    publish(&stage, "PUT /pub/a/b", &[], b"").await;

    let seen = service.wait_for(bodies.len() + 1).await;
    for ((kind, body), seen) in bodies.into_iter().zip(&seen) {
        assert_eq!(seen.line, "POST /hook//x%2Fy?own=1&q=%41&q HTTP/1.1");
        assert!(seen.body == body, "{kind}: {} bytes came", seen.body.len());
        let all: Vec<_> = seen
            .headers
            .iter()
            .map(|(name, value)| (&**name, str::from_utf8(value).unwrap()))
            .collect();
        let host = url.split('/').nth(2).unwrap();
        let length = body.len().to_string();
        let cursor = seen.header("hookbot-cursor").unwrap();
        let expected = [
            ("content-type", kind),
            ("x-repeated", "1"),
            ("x-repeated", "2, 3"),
            ("authorization", "Bearer the sender's own"),
            ("x-empty", ""),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-host", "hooks.example.com"),
            ("forwarded", "for=127.0.0.1;host=\"hooks.example.com\""),
            ("hookbot-cursor", cursor),
            ("hookbot-topic", "a/b"),
            ("hookbot-attempt", "1"),
            ("host", host),
            ("content-length", &length),
        ];
        assert_eq!(all, expected);
    }
    let last = &seen[bodies.len()];
    assert_eq!(last.line, "PUT /hook//x%2Fy?own=1 HTTP/1.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_provider_has_signed_verifies_at_the_target() {
    let stage = Stage::new().await;
    let (service, url) = Service::start(|_| Act::Answer(200)).await;
    let _running = stage.forward("/sub/a/", &[&url]).await;
    let twilio = "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234\
        &From=%2B14158675309&To=%2B18005551212";
    // The vectors are the providers' own, but for Stripe, which publishes none.
    let vectors = [
        (
            Provider::Github,
            "It's a Secret to Everybody",
            "POST /pub/a/github",
            vec![(
                "X-Hub-Signature-256",
                "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            )],
            "Hello, World!",
            0,
        ),
        (
            Provider::Stripe,
            "whsec_test_secret",
            "POST /pub/a/stripe",
            vec![(
                "Stripe-Signature",
                "t=1614265330,v1=e135cdbed3dda004bf8a2fb350f2541d299393c770e0b9e6e319dc595e9072aa",
            )],
            r#"{"id":"evt_1"}"#,
            1_614_265_330,
        ),
        (
            Provider::Slack,
            "8f742231b10e8888abcd99yyyzzz85a5",
            "POST /pub/a/slack",
            vec![
                (
                    "X-Slack-Signature",
                    "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
                ),
                ("X-Slack-Request-Timestamp", "1531420618"),
            ],
            "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow\
             &channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner\
             &command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com\
             %2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN\
             &trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
            1_531_420_618,
        ),
        (
            Provider::Twilio,
            "12345",
            "POST /pub/a/twilio?foo=1&bar=2",
            vec![
                ("X-Twilio-Signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
                ("Content-Type", "application/x-www-form-urlencoded"),
            ],
            twilio,
            0,
        ),
    ];
    for (_, _, line, headers, body, _) in &vectors {
        publish(&stage, line, headers, body.as_bytes()).await;
    }
    let seen = service.wait_for(vectors.len()).await;
    for ((provider, secret, .., now), seen) in vectors.into_iter().zip(seen) {
        let headers = seen.headers.iter();
        let headers: Headers = headers.map(|(name, value)| (&**name, &**value)).collect();
        let query = seen.line.split(['?', ' ']).nth(2).unwrap();
        let url = format!("https://mycompany.com/myapp.php?{query}");
        let request = Request {
            method: "POST",
            url: &url,
            headers: &headers,
            body: &seen.body,
        };
        let secrets = [Secret::new(secret).unwrap()];
        let verified = Scheme::from(provider).verify(&secrets, &request, now);
        assert!(verified.is_ok(), "{provider}: {verified:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_below_the_prefix_is_kept_in_the_path_where_that_is_asked_for() {
    let stage = Stage::new().await;
    let (service, url) = Service::start(|_| Act::Answer(200)).await;
    let keep = ["--path-mode", "keep", "--host-header", "original"];
    let _running = stage
        .forward("/sub/a/", &[&keep[..], &[&url]].concat())
        .await;
    publish(&stage, "POST /pub/a/b%20c/d?q", &[], b"").await;
    let seen = service.wait_for(1).await;
    assert_eq!(seen[0].line, "POST /hook/b%20c/d?q HTTP/1.1");
    assert_eq!(seen[0].header("host"), Some("hooks.example.com"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_chosen_is_sent_and_in_the_form_that_is_asked_for() {
    let stage = Stage::new().await;
    let (service, url) = Service::start(|_| Act::Answer(200)).await;
    let template = stage.path("template");
    std::fs::write(&template, r#"{{ body.action }} on {{ topic }}"#).unwrap();
    let template = format!("@{}", template.display());
    let arguments = [
        "--event",
        "issues",
        "--ignore-event",
        "issues.closed",
        "--filter",
        "body.number > 1",
        "--transform",
        &template,
        "--header",
        "X-Team: infra",
        "--count",
        "2",
        &url,
    ];
    let running = stage.forward("/sub/a/", &arguments).await;
    for (event, body) in [
        ("push", r#"{"number":2,"action":"opened"}"#),
        ("issues", r#"{"number":1,"action":"opened"}"#),
        ("issues", r#"{"number":2,"action":"closed"}"#),
        ("issues", r#"{"number":3,"action":"opened"}"#),
        ("issues", "no JSON"),
        ("issues", r#"{"number":4,"action":"edited"}"#),
    ] {
        publish(
            &stage,
            "POST /pub/a/b",
            &[("X-GitHub-Event", event)],
            body.as_bytes(),
        )
        .await;
    }
    let (code, ..) = running.ended().await;
    assert_eq!(code, Some(0));
    let seen = service.seen();
    let bodies: Vec<_> = seen.iter().map(|one| one.text()).collect();
    assert_eq!(bodies, ["opened on a/b", "edited on a/b"]);
    assert_eq!(seen[0].header("x-team"), Some("infra"));
}

use hookbot::server::{Source, SourceSecret};
use hookbot_signatures::{Provider, Scheme, Secret};

use crate::providers::{SECRET, event, events, post, promoted, source, start};

#[tokio::test]
async fn a_provider_that_asks_whether_anybody_is_there_is_answered_and_nobody_hears_of_it() {
    let on = |name: &str| format!("/unsafe/{name}");
    let providers = [
        Provider::Github,
        Provider::Slack,
        Provider::Zoom,
        Provider::X,
        Provider::Dropbox,
        Provider::MicrosoftGraph,
        Provider::Trello,
        Provider::Mandrill,
    ];
    let mut sources: Vec<_> = providers.map(|own| source(&on(own.name()), own)).into();
    let verify_token = Secret::new("meta's word").unwrap();
    let meta = Scheme::from(Provider::Meta).with_verify_token(verify_token);
    sources.push(Source {
        scheme: Some(meta),
        ..source(&on("meta"), Provider::Meta)
    });
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    sources.push(Source {
        secrets: vec![SourceSecret::new("literal 1", public.into()).unwrap()],
        ..source(&on("discord"), Provider::Discord)
    });
    let server = start(sources).await;
    let mut all = server.subscribe("/unsafe/sub/").await;

    let get = |line: &str| {
        let line = line.to_owned();
        let server = &server;
        async move { server.request(&line, &[], b"").await }
    };
    for (line, status, body) in [
        ("GET /unsafe/pub/dropbox?challenge=abc", 200, "abc"),
        (
            "GET /unsafe/pub/dropbox",
            405,
            "405 Method Not Allowed: use POST, PUT\n",
        ),
        (
            "GET /unsafe/pub/meta?hub.mode=subscribe&hub.verify_token=meta%27s+word&hub.challenge=7",
            200,
            "7",
        ),
        (
            "POST /unsafe/pub/microsoft-graph?validationToken=v",
            200,
            "v",
        ),
        ("HEAD /unsafe/pub/trello", 200, ""),
        ("HEAD /unsafe/pub/mandrill", 200, ""),
        ("HEAD /unsafe/pub/elsewhere", 405, ""),
        (
            "GET /unsafe/pub/github",
            405,
            "405 Method Not Allowed: use POST, PUT\n",
        ),
    ] {
        let reply = get(line).await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (status, body),
            "{line}"
        );
    }
    let wrong = "GET /unsafe/pub/meta?hub.mode=subscribe&hub.verify_token=x&hub.challenge=7";
    assert_eq!(get(wrong).await.status, 405);
    let reply = get("GET /unsafe/pub/x?crc_token=tok").await;
    assert!(
        reply.body.contains("\"response_token\":\"sha256="),
        "{}",
        reply.body
    );

    let slack = br#"{"type":"url_verification","challenge":"c"}"#;
    let zoom = br#"{"event":"endpoint.url_validation","payload":{"plainToken":"p"}}"#;
    let ping = [("X-GitHub-Event", "ping")];
    for (provider, headers, body, answer) in [
        (Provider::Github, &ping[..], &b"{}"[..], "pong\n"),
        (Provider::Slack, &[], slack, "c"),
        (Provider::Zoom, &[], zoom, "\"plainToken\":\"p\""),
    ] {
        let path = format!("/unsafe/pub/{provider}");
        let reply = post(&server, provider, &path, SECRET, headers, body).await;
        assert_eq!(reply.status, 200);
        assert!(reply.body.contains(answer), "{provider}: {}", reply.body);
        let reply = post(&server, provider, &path, "guess", headers, body).await;
        assert_eq!(reply.status, 401, "{provider}");
    }
    // Discord looks whether a wrong signature is refused, before it believes the right one.
    assert_eq!(get("POST /unsafe/pub/discord").await.status, 401);
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let (path, ping) = ("/unsafe/pub/discord", br#"{"type":0}"#);
    let reply = post(&server, Provider::Discord, path, seed, &[], ping).await;
    assert_eq!((reply.status, &*reply.body), (204, ""));
    assert!(reply.header("content-type").is_some());

    let last = server.request("POST /unsafe/pub/last", &[], b"last").await;
    assert_eq!(last.status, 200);
    assert_eq!(
        all.next().await,
        "/unsafe/last\0last",
        "nothing was published before"
    );
}

#[tokio::test]
async fn a_subscription_of_amazon_s_is_answered_and_its_messages_are_believed() {
    let data = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/signatures/tests/data/");
        std::fs::read(format!("{folder}{name}")).unwrap()
    };
    let certificate = SourceSecret::new("file:certificate", data("sns-certificate.pem")).unwrap();
    let server = start(vec![Source {
        secrets: vec![certificate],
        ..promoted("/unsafe/sns", Provider::AwsSns, "sns")
    }])
    .await;
    let mut safe = events(&server, "/sub/").await;
    let line = "POST /unsafe/pub/sns";
    for (body, status) in [
        (data("sns-confirmation-2.json"), 200),
        (b"{}".to_vec(), 401),
        (data("sns-notification-2.json"), 200),
    ] {
        let reply = server.request(line, &[], &body).await;
        assert_eq!(reply.status, status, "{}", reply.body);
    }
    let message = event(&mut safe).await;
    assert_eq!(
        (&message["topic"], &message["verified_by"]),
        (&"sns".into(), &"aws-sns".into())
    );
    let body = message["body"].as_str().unwrap();
    assert!(
        body.contains("\"Notification\""),
        "the confirmation is not published: {body}"
    );
}

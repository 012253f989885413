use hookbot::server::{ForwardedHeader, Networks, Settings, TrustedProxies};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Options, Reply, TestServer, read_to_end, token};

/// A server to which everybody on this machine is a proxy.
fn behind_a_proxy(change: impl FnOnce(&mut Settings) + Send + 'static) -> Options {
    Options::settings(|settings| {
        settings.rules.proxies.networks = Networks::parse(["127.0.0.0/8"]).unwrap();
        change(settings);
    })
}

/// The address that a message was kept with.
async fn kept(server: &TestServer, headers: &[(&str, &str)]) -> String {
    let before = server.broker.bounds().next;
    let bearer = format!("Bearer {}", token("/"));
    let auth = [("Authorization", bearer.as_str())];
    let headers: Vec<_> = headers.iter().copied().chain(auth).collect();
    assert_eq!(
        server.request("POST /pub/t", &headers, b"").await.status,
        200
    );
    let limit = hookbot_log::Limit {
        messages: 1,
        bytes: 1_000,
    };
    let filter = hookbot_protocol::Filter::parse("t").unwrap();
    let page = server
        .broker
        .log()
        .read(filter, before, limit)
        .await
        .unwrap();
    page.messages[0].publication.address.to_string()
}

#[tokio::test]
async fn the_client_s_address_is_the_one_that_a_trusted_proxy_names() {
    let server = TestServer::start_with(behind_a_proxy(|_| {})).await;
    let forwarded = |value| [("X-Forwarded-For", value)];
    assert_eq!(kept(&server, &forwarded("192.0.2.1")).await, "192.0.2.1");
    assert_eq!(
        kept(&server, &forwarded("6.6.6.6, 192.0.2.1")).await,
        "192.0.2.1"
    );
    assert_eq!(
        kept(&server, &forwarded("192.0.2.1, 127.0.0.9")).await,
        "192.0.2.1"
    );
    let spoof = [("Forwarded", "for=6.6.6.6"), ("X-Real-IP", "6.6.6.6")];
    assert!(kept(&server, &spoof).await.starts_with("127.0.0.1:"));

    let server = TestServer::start_with(behind_a_proxy(|settings| {
        settings.rules.proxies.header = ForwardedHeader::Forwarded;
    }))
    .await;
    assert_eq!(
        kept(&server, &[("Forwarded", "for=192.0.2.1")]).await,
        "192.0.2.1"
    );
    assert!(
        kept(&server, &forwarded("6.6.6.6"))
            .await
            .starts_with("127.0.0.1:")
    );
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let server = TestServer::start().await;
    let everything = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("Forwarded", "for=6.6.6.6"),
        ("X-Real-IP", "6.6.6.6"),
    ];
    assert!(kept(&server, &everything).await.starts_with("127.0.0.1:"));
    let spoof = b"PROXY TCP4 6.6.6.6 10.0.0.1 1 80\r\nGET /status HTTP/1.1\r\nHost: h\r\n\r\n";
    assert!(!server.raw(spoof).await.contains("200"));
}

#[tokio::test]
async fn who_guesses_through_a_proxy_is_told_apart_from_the_others_there() {
    let server = TestServer::start_with(behind_a_proxy(|_| {})).await;
    let guess = |from: &'static str| {
        let headers = [("X-Forwarded-For", from), ("Authorization", "Bearer 00")];
        let server = &server;
        async move {
            // On a busy machine it is forgiven some of them meanwhile.
            let mut guesses = 1;
            loop {
                match server.request("POST /pub/t", &headers, b"").await.status {
                    401 => guesses += 1,
                    429 => return guesses,
                    other => panic!("{other}"),
                }
            }
        }
    };
    assert!(guess("192.0.2.1").await >= 100);
    // Whatever it puts before the address that its proxy saw.
    assert!(guess("192.0.2.2, 192.0.2.1").await < 50);
    assert!(guess("192.0.2.2").await >= 100);
}

#[tokio::test]
async fn an_address_that_is_not_admitted_is_told_so_before_its_token_is_looked_at() {
    let server = TestServer::start_with(behind_a_proxy(|settings| {
        settings.rules.admitted = Some(Networks::parse(["192.0.2.0/24", "2001:db8::/32"]).unwrap());
        settings.rules.refused = Networks::parse(["192.0.2.66"]).unwrap();
    }))
    .await;
    let bearer = format!("Bearer {}", token("/"));
    for (from, status) in [
        ("192.0.2.1", 200),
        ("192.0.2.66", 403),
        ("::ffff:192.0.2.66", 403),
        ("198.51.100.1", 403),
        ("2001:db8::1", 200),
    ] {
        let headers = [
            ("X-Forwarded-For", from),
            ("Authorization", bearer.as_str()),
        ];
        let reply = server.request("POST /pub/t", &headers, b"").await;
        assert_eq!(reply.status, status, "{from}: {}", reply.body);
        let reply = server
            .request("POST /unsafe/pub/t", &headers[..1], b"")
            .await;
        assert_eq!(reply.status, status, "{from}: {}", reply.body);
        let reply = server.request("GET /metrics", &headers, b"").await;
        assert_eq!(reply.status, status, "{from}: {}", reply.body);
    }
    // Whoever asks whether it lives has no address to speak of.
    assert_eq!(server.request("GET /healthz", &[], b"").await.status, 200);
}

#[tokio::test]
async fn a_subscriber_whose_address_is_refused_later_is_closed() {
    let server = TestServer::start_with(behind_a_proxy(|_| {})).await;
    let bearer = format!("Bearer {}", token("/"));
    let from = |address| {
        [
            ("Authorization", bearer.as_str()),
            ("X-Forwarded-For", address),
        ]
    };
    let mut refused = server
        .try_subscribe("/sub/t", &from("192.0.2.66"))
        .await
        .unwrap();
    let mut other = server
        .try_subscribe("/sub/t", &from("192.0.2.1"))
        .await
        .unwrap();
    let mut rules = server.control.rules();
    rules.refused = Networks::parse(["192.0.2.66"]).unwrap();
    server.control.replace(rules).await;
    assert_eq!(refused.close_code().await, 1008);
    let publish = [
        ("Authorization", bearer.as_str()),
        ("X-Forwarded-For", "192.0.2.1"),
    ];
    assert_eq!(
        server
            .request("POST /pub/t", &publish, b"still")
            .await
            .status,
        200
    );
    assert_eq!(other.next().await, "still");
}

#[tokio::test]
async fn a_proxy_may_say_for_whom_it_comes_before_the_first_request() {
    let server = TestServer::start_with(behind_a_proxy(|settings| {
        settings.rules.proxies = TrustedProxies {
            protocol: true,
            ..settings.rules.proxies.clone()
        };
        settings.rules.refused = Networks::parse(["192.0.2.66"]).unwrap();
        settings.handshake_timeout = std::time::Duration::from_millis(200);
    }))
    .await;
    let request = b"POST /unsafe/pub/t HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
        Content-Length: 0\r\n\r\n";
    let version_2 = |last| {
        let address = [192, 0, 2, last, 10, 0, 0, 1, 0, 1, 0, 80];
        let start = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
        [&start[..], &address].concat()
    };
    for (header, status) in [
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\r\n".to_vec(), 200),
        (b"PROXY TCP4 192.0.2.66 10.0.0.1 4660 80\r\n".to_vec(), 403),
        (b"PROXY UNKNOWN\r\n".to_vec(), 200),
        (version_2(1), 200),
        (version_2(66), 403),
    ] {
        let text = server.raw([&header, &request[..]].concat()).await;
        assert_eq!(Reply::parse(&text).status, status, "{header:?}");
    }
    // Without one, or with half of one, nothing is answered.
    assert_eq!(server.raw(request).await, "");
    let mut half = server.connect().await;
    half.write_all(b"PROXY TCP4 192.0.2.1 ").await.unwrap();
    assert_eq!(read_to_end(&mut half).await, "");
}

#[tokio::test]
async fn connections_are_counted_for_whom_they_come_and_not_for_a_proxy() {
    let server = TestServer::start_with(behind_a_proxy(|settings| {
        settings.max_connections_per_address = Some(1);
    }))
    .await;
    let _held = (
        server.subscribe("/sub/t").await,
        server.subscribe("/sub/t").await,
    );
    assert_eq!(server.publish("t", "").await.status, 200);

    let server = TestServer::start_with(behind_a_proxy(|settings| {
        settings.max_connections_per_address = Some(1);
        settings.rules.proxies.protocol = true;
    }))
    .await;
    let for_whom = |client: &str| format!("PROXY TCP4 {client} 10.0.0.1 4660 80\r\n");
    let status = |client| {
        let request = "GET /status HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let server = &server;
        async move {
            let text = server.raw(for_whom(client) + request).await;
            Reply::parse(&text).status
        }
    };
    let mut held = server.connect().await;
    let request = for_whom("192.0.2.1") + "GET /status HTTP/1.1\r\nHost: h\r\n\r\n";
    held.write_all(request.as_bytes()).await.unwrap();
    let mut begun = [0; 12];
    held.read_exact(&mut begun).await.unwrap();
    assert_eq!(status("192.0.2.1").await, 429);
    assert_eq!(status("192.0.2.2").await, 200);
    drop(held);
    while status("192.0.2.1").await != 200 {}
}

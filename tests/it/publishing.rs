use hookbot_protocol::{Envelope, Filter};

use crate::support::{Options, Reply, TestServer, token};

#[tokio::test]
async fn a_message_keeps_what_the_sender_sent_and_no_token_of_ours() {
    let server = TestServer::start().await;
    let mut messages = server.broker.subscribe(Filter::parse("t").unwrap());
    let good = token("/pub/t");
    let line = format!("PUT /pub/t?a=%20&token={good}&b&token=theirs");
    let referer = format!("http://h/pub/t?token={good}");
    let headers = [
        ("X-B", "1"),
        ("X-A", "2"),
        ("X-B", "3"),
        ("Cookie", "secret"),
        ("Proxy-Authorization", "secret"),
        ("Authorization", "Bearer theirs"),
        ("Referer", &referer),
    ];
    assert_eq!(server.request(&line, &headers, b"body").await.status, 200);
    let message = messages.next().await.unwrap();
    let publication = &message.publication;
    assert_eq!(
        (&*publication.method, &*publication.query),
        ("PUT", "a=%20&b&token=theirs")
    );
    assert!(
        publication.address.starts_with("127.0.0.1:"),
        "{}",
        publication.address
    );
    let address = server.address.to_string();
    let kept: Vec<_> = publication.headers.iter().collect();
    assert_eq!(
        kept,
        [
            ("host", address.as_bytes()),
            ("x-b", b"1"),
            ("x-b", b"3"),
            ("x-a", b"2"),
            ("authorization", b"Bearer theirs"),
            ("referer", b"http://h/pub/t?token=***"),
            ("content-length", b"4"),
        ]
    );
}

#[tokio::test]
async fn a_token_that_was_not_needed_is_taken_out_all_the_same() {
    let server = TestServer::start().await;
    let mut messages = server.broker.subscribe(Filter::parse("/unsafe/").unwrap());
    let good = token("/unsafe/pub/");
    let headers = [("Hookbot-Token", good.as_str())];
    let reply = server.request("POST /unsafe/pub/t", &headers, b"").await;
    assert!(reply.header("hookbot-cursor").is_some());
    let message = messages.next().await.unwrap();
    assert_eq!(message.publication.headers.get("hookbot-token"), None);
}

#[tokio::test]
async fn github_s_metadata_comes_with_the_body_where_that_is_asked_for() {
    let server = TestServer::start().await;
    let mut socket = server.subscribe("/unsafe/sub/github.com/").await;
    let headers = [
        ("X-GitHub-Event", "push"),
        ("X-GitHub-Delivery", "guid"),
        ("X-Hub-Signature-256", "sha256=00"),
    ];
    let line = "POST /unsafe/pub/github.com/x?extra-metadata=github";
    assert_eq!(server.request(line, &headers, b"{}").await.status, 200);
    let frame = socket.next().await;
    let (topic, json) = frame.split_once('\0').unwrap();
    assert_eq!(topic, "/unsafe/github.com/x");
    assert_eq!(
        json,
        r#"{"Delivery":"guid","Event":"push","Payload":"e30=","Signature":"","Signature256":"sha256=00"}"#
    );
    assert_eq!(Envelope::from_json(json.as_bytes()).unwrap().payload, "{}");

    let reply = server
        .request("POST /unsafe/pub/x?extra-metadata=gitlab", &[], b"")
        .await;
    assert_eq!(reply.status, 400);
    assert!(reply.body.contains("extra-metadata"), "{}", reply.body);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_by_name_and_the_answer_gets_through() {
    let server =
        TestServer::start_with(Options::settings(|settings| settings.max_body = 1_000)).await;
    let auth = format!("Authorization: Bearer {}\r\n", token("/"));
    assert_eq!(server.publish("t", &"x".repeat(1_000)).await.status, 200);
    let declared = server.publish("t", &"x".repeat(8 << 20)).await;
    let chunked = format!(
        "POST /pub/t HTTP/1.1\r\nHost: h\r\n{auth}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        8 << 20,
        "x".repeat(8 << 20),
    );
    let chunked = Reply::parse(&server.raw(chunked).await);
    for reply in [declared, chunked] {
        assert_eq!(reply.status, 413);
        assert!(reply.body.contains("1000 bytes"), "{}", reply.body);
        assert_eq!(reply.header("connection"), Some("close"));
    }
}

#[tokio::test]
async fn nothing_is_read_of_a_body_that_comes_with_a_bad_token() {
    let server = TestServer::start().await;
    let head =
        "POST /pub/t HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n";
    let reply = server.raw(head).await;
    assert!(reply.starts_with("HTTP/1.1 401"), "{reply}");
    assert!(!reply.contains("100 Continue"), "{reply}");
}

#[tokio::test]
async fn a_body_is_asked_for_when_it_is_wanted() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = TestServer::start().await;
    let mut stream = server.connect().await;
    let head = format!(
        "POST /pub/t HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         Expect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        token("/pub/t")
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(interim, *b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hi").await.unwrap();
    let reply = Reply::parse(&crate::support::read_to_end(&mut stream).await);
    assert_eq!((reply.status, reply.body.as_str()), (200, "OK\n"));
}

#[tokio::test]
async fn a_connection_is_used_again_and_requests_may_be_sent_ahead() {
    let server = TestServer::start().await;
    let auth = format!("Host: h\r\nAuthorization: Bearer {}\r\n", token("/"));
    let mut socket = server.subscribe("/sub/t").await;
    let requests: String = (0..50)
        .map(|number| {
            let (body, close) = (
                number.to_string(),
                if number == 49 {
                    "Connection: close\r\n"
                } else {
                    ""
                },
            );
            format!(
                "POST /pub/t HTTP/1.1\r\n{auth}{close}Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        })
        .collect();
    let replies = server.raw(requests).await;
    assert_eq!(replies.matches("HTTP/1.1 200 OK").count(), 50);
    for number in 0..50 {
        assert_eq!(socket.next().await, number.to_string());
    }
}

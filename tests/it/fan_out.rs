use crate::support::TestServer;

#[tokio::test]
async fn three_hundred_messages_arrive_in_order() {
    let server = TestServer::start().await;
    let mut exact = server.subscribe("/sub/t").await;
    let mut below = server.subscribe("/sub/").await;
    for number in 0..300 {
        assert_eq!(server.publish("t", &number.to_string()).await.status, 200);
    }
    for number in 0..300 {
        assert_eq!(exact.next().await, number.to_string());
        assert_eq!(below.next().await, format!("t\0{number}"));
    }
}

#[tokio::test]
async fn each_form_of_subscription_gets_what_it_asked_for() {
    let server = TestServer::start().await;
    let mut exact = server.subscribe("/sub/a/b").await;
    let mut bare = server.subscribe("/a/b").await;
    let mut prefix = server.subscribe("/sub/a/").await;
    let mut bare_prefix = server.subscribe("/a/").await;
    let mut legacy = server.subscribe("/sub/a%3Frecursive").await;
    let mut root = server.subscribe("/sub/").await;
    let mut elsewhere = server.subscribe("/sub/a/bc").await;
    server.publish("a/b", "x\0y").await;
    server.publish("a/bc", "last").await;
    for socket in [&mut exact, &mut bare] {
        assert_eq!(socket.next().await, "x\0y");
    }
    for socket in [&mut prefix, &mut bare_prefix, &mut legacy, &mut root] {
        assert_eq!(socket.next().await, "a/b\0x\0y");
        assert_eq!(socket.next().await, "a/bc\0last");
    }
    assert_eq!(elsewhere.next().await, "last");
}

#[tokio::test]
async fn the_safe_and_the_unsafe_never_mix() {
    let server = TestServer::start().await;
    let mut safe = server.subscribe("/sub/").await;
    let mut unsafe_root = server.subscribe("/unsafe/sub/").await;
    let mut unsafe_exact = server.subscribe("/unsafe/sub/t").await;
    let posted = server
        .request("POST /unsafe/pub/t", &[], b"from anybody")
        .await;
    assert_eq!((posted.status, posted.body.as_str()), (200, "OK\n"));
    assert_eq!(posted.header("hookbot-cursor"), None);
    let posted = server.publish("t", "from us").await;
    assert!(posted.header("hookbot-cursor").is_some());
    assert_eq!(unsafe_root.next().await, "/unsafe/t\0from anybody");
    assert_eq!(unsafe_exact.next().await, "from anybody");
    assert_eq!(safe.next().await, "t\0from us");
}

#[tokio::test]
async fn a_message_of_many_megabytes_arrives_whole() {
    let server = TestServer::start().await;
    let mut socket = server.subscribe("/sub/t").await;
    let body: String = (0..3 << 20)
        .map(|number: u32| char::from(b'a' + (number % 23) as u8))
        .collect();
    for size in [0, 1, 125, 126, 65_535, 65_536, body.len()] {
        server.publish("t", &body[..size]).await;
        assert_eq!(socket.next().await, body[..size]);
    }
}

#[tokio::test]
async fn what_a_subscriber_says_changes_nothing() {
    use tokio_tungstenite::tungstenite::Message;
    let server = TestServer::start().await;
    let mut socket = server.subscribe("/sub/t").await;
    for _ in 0..10 {
        socket.send(Message::text("hello?")).await;
    }
    socket.send(Message::Ping(b"ping".to_vec().into())).await;
    let Ok(Message::Pong(pong)) = socket.receive().await else {
        panic!("a ping is answered with a pong");
    };
    assert_eq!(pong, "ping");
    server.publish("t", "still here").await;
    assert_eq!(socket.next().await, "still here");
}

#[tokio::test]
async fn a_pong_never_lands_in_the_middle_of_a_frame() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = TestServer::start().await;
    let mut stream = server.connect().await;
    let handshake = format!(
        "GET /sub/t?token={} HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        crate::support::token("/sub/t"),
    );
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    // More than the kernel's buffers hold, so that a frame is half out while pings come in.
    let body = "x".repeat(1 << 20);
    for _ in 0..20 {
        server.publish("t", &body).await;
    }
    let (mut reader, mut writer) = stream.into_split();
    let (mut messages, mut pongs) = (0, 0);
    while messages < 20 {
        // Masked with zeros.
        writer.write_all(b"\x89\x82\0\0\0\0hi").await.unwrap();
        let first = reader.read_u8().await.unwrap();
        let length = match reader.read_u8().await.unwrap() {
            127 => reader.read_u64().await.unwrap(),
            126 => reader.read_u16().await.unwrap().into(),
            length => length.into(),
        };
        let mut payload = vec![0; length.try_into().unwrap()];
        // A byte at a time for a while, so that the server writes in pieces.
        for byte in payload.iter_mut().take(300) {
            *byte = reader.read_u8().await.unwrap();
        }
        let read = payload.len().min(300);
        reader.read_exact(&mut payload[read..]).await.unwrap();
        match first {
            0x82 => {
                assert!(
                    payload == body.as_bytes(),
                    "message {messages} is not whole"
                );
                messages += 1;
            }
            0x8a => {
                assert_eq!(payload, b"hi");
                pongs += 1;
            }
            // The server's own ping.
            0x89 => {}
            other => panic!("unexpected frame {other:#x}"),
        }
    }
    assert!(pongs > 0, "no ping was answered");
}

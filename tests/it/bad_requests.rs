use crate::support::{TestServer, token};

/// Heads and bodies that two servers in a row could read differently. Each must be refused, and
/// the connection closed.
#[tokio::test]
async fn what_two_servers_could_read_differently_is_refused() {
    let server = TestServer::start().await;
    let auth = format!("Authorization: Bearer {}\r\n", token("/"));
    let post =
        |headers: &str, body: &str| format!("POST /pub/t HTTP/1.1\r\n{auth}{headers}\r\n{body}");
    let smuggled = "GET /status HTTP/1.1\r\nHost: h\r\n\r\n";
    let battery = [
        ("no host", post("Content-Length: 0\r\n", "")),
        (
            "two hosts",
            post("Host: a\r\nHost: b\r\nContent-Length: 0\r\n", ""),
        ),
        (
            "two equal hosts",
            post("Host: a\r\nHost: a\r\nContent-Length: 0\r\n", ""),
        ),
        (
            "both lengths",
            post(
                "Host: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                "0\r\n\r\n",
            ),
        ),
        (
            "both, other order",
            post(
                "Host: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                "0\r\n\r\n",
            ),
        ),
        (
            "two different lengths",
            post(
                "Host: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
                "ab",
            ),
        ),
        (
            "length with a sign",
            post("Host: h\r\nContent-Length: +3\r\n", "abc"),
        ),
        (
            "negative length",
            post("Host: h\r\nContent-Length: -1\r\n", ""),
        ),
        (
            "length in hex",
            post("Host: h\r\nContent-Length: 0x1\r\n", "a"),
        ),
        (
            "length list",
            post("Host: h\r\nContent-Length: 1, 2\r\n", "ab"),
        ),
        (
            "huge length",
            post("Host: h\r\nContent-Length: 99999999999999999999\r\n", ""),
        ),
        (
            "space before the colon",
            post("Host: h\r\nTransfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        ),
        (
            "unknown coding",
            post("Host: h\r\nTransfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        ),
        (
            "chunked not last",
            post(
                "Host: h\r\nTransfer-Encoding: chunked, gzip\r\n",
                "0\r\n\r\n",
            ),
        ),
        (
            "coding in HTTP/1.0",
            post("Host: h\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n").replace("1.1", "1.0"),
        ),
        (
            "folded header",
            post("Host: h\r\nX-A: 1\r\n 2\r\nContent-Length: 0\r\n", ""),
        ),
        (
            "bare line feeds",
            post("Host: h\r\nContent-Length: 0\r\n", "").replace("\r\n", "\n"),
        ),
        (
            "one bare line feed",
            post("Host: h\r\nX-A: 1\nX-B: 2\r\nContent-Length: 0\r\n", ""),
        ),
        (
            "bare carriage return",
            post("Host: h\r\nX-A: 1\rX-B: 2\r\nContent-Length: 0\r\n", ""),
        ),
        (
            "NUL in a header",
            post("Host: h\r\nX-A: \0\r\nContent-Length: 0\r\n", ""),
        ),
        (
            "header without a colon",
            post("Host: h\r\nX-A\r\nContent-Length: 0\r\n", ""),
        ),
        (
            "header without a name",
            post("Host: h\r\n: 1\r\nContent-Length: 0\r\n", ""),
        ),
        (
            "chunk size overflow",
            post(
                "Host: h\r\nTransfer-Encoding: chunked\r\n",
                "ffffffffffffffff1\r\na\r\n0\r\n\r\n",
            ),
        ),
        (
            "chunk size of no digits",
            post(
                "Host: h\r\nTransfer-Encoding: chunked\r\n",
                "\r\na\r\n0\r\n\r\n",
            ),
        ),
        (
            "chunk size in words",
            post("Host: h\r\nTransfer-Encoding: chunked\r\n", "zz\r\n"),
        ),
        (
            "chunk longer than said",
            post(
                "Host: h\r\nTransfer-Encoding: chunked\r\n",
                "1\r\nab\r\n0\r\n\r\n",
            ),
        ),
        (
            "not HTTP",
            "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n".to_owned(),
        ),
        (
            "unknown version",
            format!("POST /pub/t HTTP/3.0\r\nHost: h\r\n{auth}\r\n"),
        ),
        (
            "two spaces",
            format!("POST  /pub/t HTTP/1.1\r\nHost: h\r\n{auth}\r\n"),
        ),
        (
            "asterisk",
            format!("OPTIONS * HTTP/1.1\r\nHost: h\r\n{auth}\r\n"),
        ),
        (
            "authority",
            format!("CONNECT h:80 HTTP/1.1\r\nHost: h\r\n{auth}\r\n"),
        ),
    ];
    for (name, request) in battery {
        let reply = server.raw(request + smuggled).await;
        assert!(reply.starts_with("HTTP/1.1 400 "), "{name}: {reply:?}");
        assert_eq!(reply.matches("HTTP/1.1").count(), 1, "{name}: {reply:?}");
    }
    // The control: the same without a flaw is taken, and so is what comes behind it.
    let reply = server
        .raw(
            post("Host: h\r\nContent-Length: 0\r\n", "")
                + &smuggled.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
        )
        .await;
    assert_eq!(reply.matches("HTTP/1.1 200 OK").count(), 2, "{reply:?}");
}

#[tokio::test]
async fn a_head_may_be_only_so_large() {
    let server = TestServer::start().await;
    let get = |headers: &str| {
        format!("GET /status HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n")
    };
    let many = |count| "X-A: 1\r\n".repeat(count);
    for (headers, status) in [
        (many(60), 200),
        (many(65), 431),
        (format!("X-A: {}\r\n", "x".repeat(31 << 10)), 200),
        (format!("X-A: {}\r\n", "x".repeat(33 << 10)), 431),
        (format!("X-A: {}\r\n", "x".repeat(1 << 20)), 431),
    ] {
        let reply = server.raw(get(&headers)).await;
        assert!(
            reply.starts_with(&format!("HTTP/1.1 {status} ")),
            "{}: {reply}",
            headers.len()
        );
    }
    let reply = server
        .raw(format!(
            "GET /{} HTTP/1.1\r\nHost: h\r\n\r\n",
            "x".repeat(70 << 10)
        ))
        .await;
    assert!(
        reply.starts_with("HTTP/1.1 414 ") || reply.starts_with("HTTP/1.1 431 "),
        "{reply}"
    );
}

#[tokio::test]
async fn after_a_refused_body_the_connection_is_not_read_on() {
    let server = TestServer::start().await;
    let inner = "GET /status HTTP/1.1\r\nHost: h\r\n\r\n";
    for request in [
        format!(
            "POST /pub/t HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{inner}",
            inner.len()
        ),
        format!(
            "GET /status HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{inner}",
            inner.len()
        ),
    ] {
        let reply = server.raw(request).await;
        assert_eq!(reply.matches("HTTP/1.1").count(), 1, "{reply:?}");
    }
}

#[tokio::test]
async fn a_handshake_that_is_not_quite_one_is_refused() {
    let server = TestServer::start().await;
    let good = [
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "WebSocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let handshake = |change: (&str, &str)| {
        let mut head = format!(
            "GET /sub/t?token={} HTTP/1.1\r\nHost: h\r\n",
            token("/sub/t")
        );
        for (name, value) in good {
            let value = if name == change.0 { change.1 } else { value };
            head += &format!("{name}: {value}\r\n");
        }
        head + "\r\n"
    };
    for (change, status) in [
        (("Connection", "close"), 426),
        (("Upgrade", "h2c"), 426),
        (("Sec-WebSocket-Version", "8"), 426),
        (("Sec-WebSocket-Version", ""), 426),
        (("Sec-WebSocket-Key", ""), 400),
        (("Sec-WebSocket-Key", "short"), 400),
        (("Sec-WebSocket-Key", "dGhlIHNhbXBsZQ=="), 400),
    ] {
        let request = handshake(change).replacen("\r\n\r\n", "\r\nX-End: 1\r\n\r\n", 1);
        let mut stream = server.connect().await;
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes())
            .await
            .unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut stream)
            .await
            .unwrap();
        let reply = crate::support::read_to_end(&mut stream).await;
        assert!(
            reply.starts_with(&format!("HTTP/1.1 {status} ")),
            "{change:?}: {reply}"
        );
    }
    let mut stream = server.connect().await;
    tokio::io::AsyncWriteExt::write_all(&mut stream, handshake(("", "")).as_bytes())
        .await
        .unwrap();
    let mut reply = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut reply)
        .await
        .unwrap();
    assert_eq!(&reply, b"HTTP/1.1 101");
}

use crate::support::{RESERVED, TestServer, token};

/// Spellings that other readers could take for another path, each with what it must come to.
const SPELLINGS: [(&str, u16); 36] = [
    ("/pub/a", 200),
    ("/pub/%61", 200),
    ("/%70%75%62/a", 200),
    ("/pub/a?x=/../b", 200),
    ("/pub/a;x=1", 401),
    ("/pub/A", 401),
    ("/PUB/a", 401),
    ("/pub/a%20", 401),
    ("/pub/a%5c", 401),
    ("/pub/a\\b", 401),
    ("/pub/a%252F", 401),
    ("/pub/a%252e%252e", 401),
    ("/pub/a%c3%bc", 401),
    ("/pub/au%cc%88", 401),
    ("/pub/b", 401),
    ("/pub/a/b", 401),
    ("/sub/a", 401),
    ("/a", 401),
    ("/unsafe/sub/a", 401),
    ("/pub//a", 400),
    ("//pub/a", 400),
    ("/pub/a//", 400),
    ("/pub/a/", 400),
    ("/pub/./a", 400),
    ("/pub/b/../a", 400),
    ("/pub/b/%2e%2e/a", 400),
    ("/pub/b/.%2E/a", 400),
    ("/pub/a%2Fb", 400),
    ("/pub/a%2fb", 400),
    ("/pub%2fa", 400),
    ("/pub/a%00", 400),
    ("/pub/a%0d%0a", 400),
    ("/pub/a%zz", 400),
    ("/pub/a%", 400),
    ("/pub/%ff", 400),
    ("/pub/%c0%ae%c0%ae/a", 400),
];

#[tokio::test]
async fn a_token_for_one_path_opens_only_spellings_of_that_path() {
    let server = TestServer::start().await;
    let mut all = server.subscribe("/sub/").await;
    let bearer = format!("Bearer {}", token("/pub/a"));
    for (path, status) in SPELLINGS {
        let line = format!("POST {path}");
        let reply = server
            .request(&line, &[("Authorization", &bearer)], path.as_bytes())
            .await;
        assert_eq!(reply.status, status, "{path}: {}", reply.body);
        assert!(!reply.body.is_empty(), "{path}: a refusal says why");
    }
    // Whatever was accepted came to one and the same topic.
    for (path, _) in SPELLINGS.iter().filter(|(_, status)| *status == 200) {
        assert_eq!(all.next().await, format!("a\0{path}"));
    }
}

#[tokio::test]
async fn the_server_s_own_names_are_no_topics() {
    let server = TestServer::start().await;
    let bearer = format!("Bearer {}", token("/"));
    let auth = [("Authorization", bearer.as_str())];
    for name in RESERVED {
        let reply = server
            .request(&format!("POST /pub/{name}/x"), &auth, b"")
            .await;
        assert_eq!(reply.status, 400, "/pub/{name}/x");
        let reply = server
            .request(&format!("POST /unsafe/pub/{name}"), &auth, b"")
            .await;
        assert_eq!(reply.status, 400, "/unsafe/pub/{name}");
    }
    for name in ["smee", "quarantine", "parked"] {
        let reply = server
            .request(&format!("POST /unsafe/pub/{name}/x"), &auth, b"")
            .await;
        assert_eq!(reply.status, 400, "/unsafe/pub/{name}/x");
    }
    for path in ["/nothing", "/ui/", "/pub", "/unsafe/x", "/ws/x"] {
        let reply = server.request(&format!("GET {path}"), &[], b"").await;
        let expected = if path == "/nothing" { 401 } else { 404 };
        assert_eq!(reply.status, expected, "{path}");
    }
}

#[tokio::test]
async fn the_housekeeping_pages_answer_without_a_token() {
    let server = TestServer::start().await;
    let version = concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}\n");
    for (path, body) in [
        ("/status", "OK\n"),
        ("/healthz", "{\"status\":\"OK\"}\n"),
        ("/version", version),
    ] {
        let reply = server.request(&format!("GET {path}"), &[], b"").await;
        assert_eq!((reply.status, reply.body.as_str()), (200, body));
        let reply = server.request(&format!("HEAD {path}"), &[], b"").await;
        assert_eq!((reply.status, reply.body.as_str()), (200, ""));
        assert_eq!(
            server
                .request(&format!("POST {path}"), &[], b"")
                .await
                .status,
            405
        );
    }
}

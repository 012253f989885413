use std::time::{Duration, SystemTime};

use hookbot_protocol::{Keys, Scope};
use tokio_tungstenite::tungstenite::Error;

use crate::support::{Options, TestServer, UNSAFE_IS_OK, key, token};

fn basic(token: &str) -> String {
    use base64::Engine;
    let user = format!("{token}:");
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(user)
    )
}

/// The status that opening a WebSocket ends with.
async fn status(server: &TestServer, path: &str, headers: &[(&'static str, &str)]) -> u16 {
    match server.try_subscribe(path, headers).await {
        Ok(_) => 101,
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{path}: {error}"),
    }
}

#[tokio::test]
async fn a_token_opens_its_path_and_what_is_below_its_prefix() {
    let server = TestServer::start().await;
    for (scope, path, expected) in [
        ("/sub/a", "/sub/a", 101),
        ("/sub/a", "/sub/ab", 401),
        ("/sub/a", "/sub/a/", 401),
        ("/sub/a/", "/sub/a", 401),
        ("/sub/a/", "/sub/a/b/c", 101),
        ("/sub/a/", "/sub/%61/b", 101),
        ("/sub/a/", "/sub/a%3Frecursive", 101),
        ("/sub/po", "/sub/post", 401),
        ("/pub/a", "/sub/a", 401),
        ("/a", "/sub/a", 101),
        ("/a/", "/sub/a/b", 101),
        ("/a", "/a", 101),
        ("/sub/a", "/a", 401),
        ("/sub/", "/sub/a", 101),
        ("/", "/sub/", 101),
        ("/", "/unsafe/sub/a", 101),
        ("/a/", "/unsafe/sub/a/b", 401),
        ("/sub/a", "/unsafe/sub/a", 401),
        ("/unsafe/sub/", "/unsafe/sub/a", 101),
    ] {
        let bearer = format!("Bearer {}", token(scope));
        let headers = [("Authorization", bearer.as_str()), UNSAFE_IS_OK];
        assert_eq!(
            status(&server, path, &headers).await,
            expected,
            "{scope} on {path}"
        );
    }
}

#[tokio::test]
async fn a_token_may_come_in_four_places() {
    let server = TestServer::start().await;
    let good = token("/sub/t");
    let (basic, bearer) = (basic(&good), format!("Bearer {good}"));
    let with_query = format!("/sub/t?token={good}");
    for (path, headers) in [
        ("/sub/t", vec![("Authorization", basic.as_str())]),
        ("/sub/t", vec![("Authorization", bearer.as_str())]),
        ("/sub/t", vec![("Hookbot-Token", good.as_str())]),
        (&with_query, vec![]),
        // Somebody else's Authorization does no harm.
        (&with_query, vec![("Authorization", "Bearer theirs")]),
    ] {
        assert_eq!(status(&server, path, &headers).await, 101, "{headers:?}");
    }
    assert_eq!(status(&server, "/sub/t", &[]).await, 401);
}

#[tokio::test]
async fn a_refusal_says_how_to_do_better() {
    let server = TestServer::start().await;
    let reply = server.request("POST /pub/t", &[], b"").await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (401, "401 Unauthorized\n")
    );
    assert_eq!(
        reply.header("www-authenticate"),
        Some("basic realm=\"hookbot\"")
    );

    let bearer = format!("Bearer {}", token("/"));
    let auth = [("Authorization", bearer.as_str())];
    let reply = server.request("GET /unsafe/sub/t", &auth, b"").await;
    let expected = "400 Bad Request. X-Hookbot-Unsafe-Is-Ok header required.\n";
    assert_eq!((reply.status, reply.body.as_str()), (400, expected));

    let reply = server.request("GET /sub/t", &auth, b"").await;
    assert_eq!(reply.status, 426);
    assert!(
        reply
            .body
            .contains(&format!("ws://{}/sub/t", server.address)),
        "{}",
        reply.body
    );
    for (line, allowed) in [
        ("GET /pub/t", "post, put"),
        ("POST /sub/t", "get"),
        ("DELETE /t", "get, post, put"),
        ("DELETE /t/", "get"),
    ] {
        let reply = server.request(line, &auth, b"").await;
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, Some(allowed)),
            "{line}"
        );
    }
}

#[tokio::test]
async fn checks_run_in_the_order_of_the_protocol() {
    let server = TestServer::start().await;
    let bearer = format!("Bearer {}", token("/"));
    let auth = [("Authorization", bearer.as_str())];
    // A malformed path before the token, the token before the header, the header before the method.
    assert_eq!(server.request("GET /sub//t", &[], b"").await.status, 400);
    assert_eq!(server.request("POST /t/", &[], b"").await.status, 400);
    assert_eq!(
        server
            .request("DELETE /unsafe/sub/t", &[], b"")
            .await
            .status,
        401
    );
    assert_eq!(
        server
            .request("DELETE /unsafe/sub/t", &auth, b"")
            .await
            .status,
        400
    );
    let all = [auth[0], UNSAFE_IS_OK];
    assert_eq!(
        server
            .request("DELETE /unsafe/sub/t", &all, b"")
            .await
            .status,
        405
    );
    assert_eq!(
        server.request("GET /unsafe/sub/t", &all, b"").await.status,
        426
    );
}

#[tokio::test]
async fn a_connection_ends_with_the_token_that_opened_it() {
    let server = TestServer::start().await;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let scope = Scope::parse("/sub/t").unwrap();
    let at = (now + Duration::from_secs(2)).as_secs();
    let expiring = key().mint_expiring(&scope, at).expose();
    let mut socket = server
        .try_subscribe(&format!("/sub/t?token={expiring}"), &[])
        .await
        .unwrap();
    server.publish("t", "in time").await;
    assert_eq!(socket.next().await, "in time");
    assert_eq!(socket.close_code().await, 1008);
    assert_eq!(
        status(&server, &format!("/sub/t?token={expiring}"), &[]).await,
        401
    );
}

#[tokio::test]
async fn tokens_of_the_go_program_open_only_where_they_are_accepted() {
    let scope = Scope::parse("/sub/t").unwrap();
    let legacy = format!("Bearer {}", key().mint_sha1(&scope).expose());
    let headers = [("Authorization", legacy.as_str())];
    let server = TestServer::start().await;
    assert_eq!(status(&server, "/sub/t", &headers).await, 401);
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.rules.keys = Keys::new(key()).accepting_sha1(true);
    }))
    .await;
    assert_eq!(status(&server, "/sub/t", &headers).await, 101);
}

#[tokio::test]
async fn a_page_elsewhere_cannot_use_the_browser_s_password() {
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.origins = vec!["https://friend.example".to_owned()];
    }))
    .await;
    let good = token("/sub/t");
    let basic = basic(&good);
    let (own, short) = (
        format!("http://{}", server.address),
        format!("//{}", server.address),
    );
    for (origin, expected) in [
        (own.as_str(), 101),
        (&short, 101),
        ("https://friend.example", 101),
        ("https://evil.example", 403),
        ("null", 403),
    ] {
        let headers = [("Authorization", basic.as_str()), ("Origin", origin)];
        assert_eq!(
            status(&server, "/sub/t", &headers).await,
            expected,
            "{origin}"
        );
    }
    // A token that a script holds is not the browser's password.
    let path = format!("/sub/t?token={good}");
    assert_eq!(
        status(&server, &path, &[("Origin", "https://evil.example")]).await,
        101
    );
}

#[tokio::test]
async fn an_address_that_guesses_is_slowed_down_and_a_good_token_is_not() {
    let server = TestServer::start().await;
    let wrong = [("Authorization", "Bearer 00")];
    let mut attempts = 1;
    let reply = loop {
        let reply = server.request("POST /pub/t", &wrong, b"").await;
        if reply.status != 401 {
            break reply;
        }
        attempts += 1;
    };
    // More on a busy machine, where it is forgiven some of them meanwhile.
    assert!(attempts >= 100, "{attempts}");
    assert_eq!(reply.status, 429);
    assert!(reply.header("retry-after").is_some());
    assert_eq!(server.publish("t", "").await.status, 200);
}

use std::cell::Cell;
use std::io::Write;
use std::time::Duration;

use hookbot_protocol::{DenyList, Scope};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Error;

use crate::support::{Options, Socket, TestServer, key, read_to_end, token};

fn named(path: &str, name: &str) -> String {
    let scope = Scope::parse(path).unwrap();
    key()
        .mint_named(&scope, &name.parse().unwrap(), None)
        .expose()
}

async fn subscribe(server: &TestServer, token: &str, rest: &str) -> Result<Socket, u16> {
    let path = format!("/sub/t?token={token}{rest}");
    match server.try_subscribe(&path, &[]).await {
        Ok(socket) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_revoked_token_closes_what_it_opened_and_opens_nothing_more() {
    let server = TestServer::start().await;
    let (ada, bob) = (named("/sub/", "ada"), named("/sub/", "bob"));
    let mut revoked = subscribe(&server, &ada, "").await.unwrap();
    let mut other = subscribe(&server, &bob, "").await.unwrap();
    let mut stream = server.connect().await;
    let request = format!(
        "GET /sub/t?token={ada} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAccept: text/event-stream\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    server.publish("t", "before").await;
    assert_eq!(revoked.next().await, "before");

    server.control.revoke(DenyList::parse("ada").unwrap()).await;
    assert_eq!(revoked.close_code().await, 1008);
    let streamed = read_to_end(&mut stream).await;
    assert!(streamed.contains("before"), "{streamed}");
    assert_eq!(subscribe(&server, &ada, "").await.err(), Some(401));
    // Not even what it was to get before that.
    assert_eq!(
        subscribe(&server, &ada, "&after=start").await.err(),
        Some(401)
    );
    server.publish("t", "after").await;
    assert_eq!(
        (other.next().await, other.next().await),
        ("before".into(), "after".into())
    );

    server.control.revoke(DenyList::default()).await;
    assert!(subscribe(&server, &ada, "").await.is_ok());
}

#[tokio::test]
async fn a_token_without_a_name_is_revoked_by_its_hash() {
    let server = TestServer::start().await;
    let (exact, prefix) = (token("/sub/t"), token("/sub/"));
    let mut revoked = subscribe(&server, &exact, "").await.unwrap();
    let mut rules = server.control.rules();
    rules.denied = DenyList::parse(&exact).unwrap();
    server.control.replace(rules).await;
    assert_eq!(revoked.close_code().await, 1008);
    assert_eq!(subscribe(&server, &exact, "").await.err(), Some(401));
    assert!(subscribe(&server, &prefix, "").await.is_ok());
}

#[tokio::test]
async fn the_file_of_revoked_tokens_takes_effect_within_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("denied");
    std::fs::write(&file, "# nobody yet\n").unwrap();
    let deny_file = file.clone();
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.deny_file = Some(deny_file);
    }))
    .await;
    let mut sockets = Vec::new();
    for name in ["ada", "ada", "ada", "bob"] {
        let socket = subscribe(&server, &named("/sub/", name), "").await;
        sockets.push(socket.unwrap());
    }
    let mut bob = sockets.pop().unwrap();
    // A slip changes nothing, and a list that is put in its place does.
    std::fs::write(&file, "two words\n").unwrap();
    let next = folder.path().join("next");
    std::fs::write(&next, "ada # has left\n").unwrap();
    std::fs::rename(&next, &file).unwrap();
    // Its own clock, which is late as the server is where the machine has more to do.
    let (ticks, tick) = (Cell::new(0), Duration::from_millis(10));
    let clock = async {
        loop {
            tokio::time::sleep(tick).await;
            ticks.set(ticks.get() + 1);
        }
    };
    let closed = async {
        for mut socket in sockets {
            assert_eq!(socket.close_code().await, 1008);
        }
    };
    tokio::select! {
        () = clock => {}
        () = closed => {}
    }
    assert!(tick * ticks.get() < Duration::from_secs(1));
    server.publish("t", "on").await;
    assert_eq!(bob.next().await, "on");
}

#[tokio::test]
async fn a_list_that_is_half_written_gives_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("denied");
    std::fs::write(&path, "ada\n").unwrap();
    let deny_file = path.clone();
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.deny_file = Some(deny_file);
    }))
    .await;
    let ada = named("/sub/", "ada");
    // Whoever writes it anew takes his time before he comes to her.
    let mut file = std::fs::File::create(&path).unwrap();
    for _ in 0..50 {
        writeln!(file, "# people who have left").unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(subscribe(&server, &ada, "").await.is_err());
    }
}

#[tokio::test]
async fn files_that_change_while_a_server_starts_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let [denied, config] = ["denied", "hookbot.toml"].map(|name| folder.path().join(name));
    for file in [&denied, &config] {
        std::fs::write(file, "").unwrap();
    }
    let deny_file = denied.clone();
    let server = TestServer::start_with(Options {
        config: Some(config.clone()),
        between: Some(Box::new(move || {
            std::fs::write(denied, "ada").unwrap();
            std::fs::write(config, "[tokens]\ndeny = ['bob']").unwrap();
        })),
        ..Options::settings(|settings| settings.deny_file = Some(deny_file))
    })
    .await;
    for name in ["ada", "bob"] {
        if let Ok(mut socket) = subscribe(&server, &named("/sub/", name), "").await {
            assert_eq!(socket.close_code().await, 1008);
        }
    }
}

#[tokio::test]
async fn a_server_does_not_start_with_a_list_that_it_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("denied");
    for content in [None, Some("two words")] {
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let (broker, _) =
            hookbot_broker::Broker::new(std::sync::Arc::new(hookbot_log::MemoryLog::new(1 << 20)));
        let mut settings = hookbot::server::Settings::new(hookbot_protocol::Keys::new(key()));
        settings.deny_file = Some(file.clone());
        let error = hookbot::server::Server::new(broker, settings)
            .err()
            .unwrap();
        assert!(error.to_string().contains("denied"), "{error}");
    }
}

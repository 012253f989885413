//! Who posts as a provider would, and a server with sources for it.

use std::time::SystemTime;

use hookbot::server::{Promotion, Rules, Settings, Source, SourceSecret, Sources};
use hookbot_protocol::{Filter, Headers, Keys};
use hookbot_signatures::{Provider, Request, Scheme, Secret};

use crate::support::{Options, Reply, Socket, TestServer, UNSAFE_IS_OK, key, token};

pub(crate) const SECRET: &str = "the provider's secret";

pub(crate) fn source(on: &str, provider: Provider) -> Source {
    let secret = SourceSecret::new("env:NEW", SECRET.as_bytes().to_vec()).unwrap();
    Source {
        scheme: Some(provider.into()),
        secrets: vec![secret],
        ..Source::new(Filter::parse(on).unwrap())
    }
}

pub(crate) fn rules(sources: Vec<Source>) -> Rules {
    Rules {
        sources: Sources::new(sources).unwrap(),
        ..Rules::new(Keys::new(key()))
    }
}

pub(crate) async fn start(sources: Vec<Source>) -> TestServer {
    TestServer::start_with(Options::settings(|settings: &mut Settings| {
        settings.rules = rules(sources);
        settings.public_url = Some("https://hooks.example.com/".to_owned());
    }))
    .await
}

pub(crate) fn promoted(on: &str, provider: Provider, to: &str) -> Source {
    Source {
        promote: Some(Promotion::new(Filter::parse(to).unwrap()).unwrap()),
        ..source(on, provider)
    }
}

/// Posts a body as the provider would, signed with a secret.
pub(crate) async fn post(
    server: &TestServer,
    provider: Provider,
    path: &str,
    secret: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let given: Headers = headers
        .iter()
        .map(|(name, value)| (*name, value.as_bytes()))
        .collect();
    let url = format!("https://hooks.example.com{path}");
    let request = Request {
        method: "POST",
        url: &url,
        headers: &given,
        body,
    };
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let secret = Secret::new(secret).unwrap();
    let signed = Scheme::from(provider).sign(&secret, &request, now).unwrap();
    let signed = signed.iter().map(|(name, value)| (&**name, &**value));
    let headers: Vec<_> = headers.iter().copied().chain(signed).collect();
    server
        .request(&format!("POST {path}"), &headers, body)
        .await
}

/// The next event as JSON, of a subscriber to events.
pub(crate) async fn event(events: &mut Socket) -> serde_json::Value {
    loop {
        let frame = events.next().await;
        let (json, body) = frame.split_once('\0').unwrap();
        let mut json: serde_json::Value = serde_json::from_str(json).unwrap();
        if json.get("cursor").is_some() {
            json["body"] = body.into();
            return json;
        }
    }
}

pub(crate) async fn events(server: &TestServer, path: &str) -> Socket {
    let bearer = format!("Bearer {}", token("/"));
    let headers = [
        ("Authorization", bearer.as_str()),
        UNSAFE_IS_OK,
        ("Sec-WebSocket-Protocol", "hookbot.events.v1"),
    ];
    server.try_subscribe(path, &headers).await.unwrap()
}

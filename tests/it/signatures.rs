use std::time::SystemTime;

use hookbot_protocol::Headers;
use hookbot_signatures::{Provider, Request, Scheme, Secret};

use crate::providers::{SECRET, post, source, start};

#[tokio::test]
async fn a_url_that_is_signed_is_the_public_one_as_it_was_sent() {
    let server = start(vec![source("/unsafe/sms/", Provider::Twilio)]).await;
    let path = "/unsafe/pub/sms/a%20b?x=1&y=%2F&token=theirs";
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    let reply = post(
        &server,
        Provider::Twilio,
        path,
        SECRET,
        &headers,
        b"To=1&From=2",
    )
    .await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    // The same path in another spelling is not what was signed.
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let request = Request {
        method: "POST",
        url: "https://hooks.example.com/unsafe/pub/sms/a",
        headers: &Headers::default(),
        body: b"",
    };
    let secret = Secret::new(SECRET).unwrap();
    let signed = Scheme::from(Provider::Twilio)
        .sign(&secret, &request, now)
        .unwrap();
    let signed = [(&*signed[0].0, &*signed[0].1)];
    assert_eq!(
        server
            .request("POST /unsafe/pub/sms/%61", &signed, b"")
            .await
            .status,
        401
    );
    assert_eq!(
        server
            .request("POST /unsafe/pub/sms/a", &signed, b"")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_large_body_is_verified_like_a_small_one() {
    let server = start(vec![source("/unsafe/gh", Provider::Github)]).await;
    let body = vec![b'x'; 1 << 20];
    let path = "/unsafe/pub/gh";
    assert_eq!(
        post(&server, Provider::Github, path, SECRET, &[], &body)
            .await
            .status,
        200
    );
    assert_eq!(
        post(&server, Provider::Github, path, "guess", &[], &body)
            .await
            .status,
        401
    );
}

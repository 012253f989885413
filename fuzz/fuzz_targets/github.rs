//! Nothing is routed that GitHub did not sign, and what it did sign goes below its repository.
//!
//! The first byte chooses the headers, the rest is the body. No seed is signed, so only what this
//! target signs itself may be routed.

#![no_main]

use std::sync::LazyLock;
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use hookbot_protocol::{Envelope, Headers, Message, Offset, Publication, Topic};
use hookbot_routers::Github;
use libfuzzer_sys::fuzz_target;
use sha2::Sha256;

static GITHUB: LazyLock<Github> = LazyLock::new(|| Github::new(SECRET).expect("not empty"));

fuzz_target!(|input: &[u8]| {
    let Some((choice, body)) = input.split_first() else {
        return;
    };
    let mut headers = Headers::default();
    let mut body = body.to_vec();
    let mut is_signed = false;
    match choice % 9 {
        0 => {}
        1 => headers.push("x-github-event", b"push"),
        2 => {
            headers.push("x-github-event", b"push");
            headers.push("x-hub-signature-256", &body);
        }
        3 => {
            headers.push("x-github-event", b"push");
            headers.push("x-hub-signature", &body);
        }
        4 => {
            headers.push("x-github-event", b"push");
            headers.push("x-hub-signature-256", b"sha256=00");
            headers.push("x-hub-signature-256", signature(&body).as_bytes());
        }
        5 => {
            is_signed = true;
            sign(&mut headers, b"push", &body);
        }
        6 => {
            is_signed = true;
            sign(&mut headers, b"push", &body);
            headers.push("content-type", b"application/x-www-form-urlencoded");
        }
        7 => {
            // The event is the body's first line.
            is_signed = true;
            let end = body.iter().position(|byte| *byte == b'\n');
            let event: Vec<u8> = body.drain(..end.unwrap_or_default()).collect();
            sign(&mut headers, &event, &body);
        }
        _ => {
            is_signed = true;
            let mut inner = Headers::default();
            sign(&mut inner, b"push", &body);
            body = Envelope::new(&inner, body.into()).to_json().to_vec();
        }
    }
    let topic = Topic::parse("/unsafe/github.com/org/acme").expect("a topic");
    let publication = Publication {
        headers,
        ..Publication::new(topic, body)
    };
    let message = Message::new(publication, Offset(1), SystemTime::UNIX_EPOCH);
    let Ok(routed) = GITHUB.route(&message) else {
        return;
    };
    assert!(is_signed, "routed without a signature");
    for publication in routed {
        check(&publication.topic);
    }
});

fn check(topic: &Topic) {
    assert_eq!(Topic::parse(topic.as_str()).as_ref(), Ok(topic));
    let segments: Vec<_> = topic.as_str().split('/').collect();
    let ["github.com", "repo", _, _, kind, ..] = segments[..] else {
        panic!("{topic}");
    };
    match kind {
        "branch" => assert!(segments.len() > 5, "{topic}"),
        "event" => assert_eq!(segments.len(), 6, "{topic}"),
        _ => panic!("{topic}"),
    }
}

fn sign(headers: &mut Headers, event: &[u8], body: &[u8]) {
    headers.push("x-github-event", event);
    headers.push("x-hub-signature-256", signature(body).as_bytes());
}

fn signature(body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("any length is fine");
    let mac = mac.chain_update(body).finalize().into_bytes();
    format!("sha256={}", hex::encode(mac))
}

const SECRET: &[u8] = b"fuzz";

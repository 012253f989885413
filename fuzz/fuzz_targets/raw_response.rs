//! No answer of a channel's client makes the server panic; what is taken for a response is one, and
//! stays the same when it is written in another way.
//!
//! The input is a response as it is on the wire.

#![no_main]

use http::Method;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use libfuzzer_sys::fuzz_target;

#[path = "../../src/server/channels/raw_response.rs"]
mod raw_response;

use raw_response::parse;

fuzz_target!(|payload: &[u8]| {
    let head = parse(payload, &Method::HEAD, LIMIT);
    let Ok(response) = parse(payload, &Method::GET, LIMIT) else {
        return;
    };
    assert!(response.body().len() <= LIMIT);
    let head = head.expect("a head is the same without its body");
    assert_eq!(head.status(), response.status());
    assert_eq!(head.headers(), response.headers());
    assert!(head.body().is_empty());

    let mut again = format!("HTTP/2.0 {} \r\n", response.status().as_u16()).into_bytes();
    for (name, value) in response.headers() {
        if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
            again.extend([name.as_str().as_bytes(), b":", value.as_bytes(), b"\r\n"].concat());
        }
    }
    let length = response.body().len();
    again.extend(format!("{TRANSFER_ENCODING}: chunked\r\n\r\n").bytes());
    if length > 0 {
        again.extend(format!("{length:x}\r\n").bytes());
        again.extend_from_slice(response.body());
        again.extend_from_slice(b"\r\n");
    }
    again.extend_from_slice(b"0\r\n\r\n");
    if response.headers().len() >= MAX_HEADERS {
        return;
    }
    let parsed = parse(&again, &Method::GET, LIMIT).expect("it is a response");
    assert_eq!(parsed.status(), response.status());
    assert_eq!(parsed.body(), response.body());
});

const LIMIT: usize = 1_000;

/// One more is refused.
const MAX_HEADERS: usize = 128;

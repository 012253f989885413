//! A response as it is on the wire, taken out of a message: HTTP/1.1, whole, from a client that
//! may send anything.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use httparse::{EMPTY_HEADER, Status, parse_chunk_size};

/// Parses a response to a request with this method, whose body may have `limit` bytes.
///
/// The length of the body is as RFC 9112, section 6.3, says; what comes behind the response is
/// not looked at.
///
/// # Errors
///
/// Says what is wrong with it. The text is safe to send to whoever has asked.
pub(crate) fn parse(
    payload: &[u8],
    method: &Method,
    limit: usize,
) -> Result<Response<Bytes>, BadResponse> {
    // Where its client has spoken HTTP/2 to the target, it writes so over a head like any other.
    let text: Cow<[u8]> = match payload.strip_prefix(b"HTTP/2.0 ") {
        Some(rest) => [b"HTTP/1.1 ", rest].concat().into(),
        None => payload.into(),
    };
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let Status::Complete(end) = head.parse(&text)? else {
        return Err(BadResponse::Incomplete);
    };
    let status = head.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.filter(|status| !status.is_informational());
    let status = status.ok_or(BadResponse::Status)?;
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    for header in head.headers {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let value = HeaderValue::from_bytes(header.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(BadResponse::Header);
        };
        response.headers_mut().append(name, value);
    }
    let has_none = method == Method::HEAD
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !has_none {
        let body = body(response.headers(), &text[end..])?;
        if body.len() > limit {
            return Err(BadResponse::TooLarge { limit });
        }
        *response.body_mut() = body;
    }
    Ok(response)
}

/// Why a response is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BadResponse {
    /// Its head is no HTTP.
    #[error("its head is malformed: {0}")]
    Head(#[from] httparse::Error),
    /// It ends before its end.
    #[error("it ends too early")]
    Incomplete,
    /// It is not a final answer.
    #[error("its status is not that of an answer")]
    Status,
    /// A name or a value has bytes that none may have.
    #[error("a header is malformed")]
    Header,
    /// There are two lengths, or one that is no number.
    #[error("its length is not clear")]
    Length,
    /// A chunk's size is no number, or its data do not end there.
    #[error("a chunk is malformed")]
    Chunk,
    /// It is encoded in another way than by chunks.
    #[error("its transfer encoding is not known")]
    Encoding,
    /// The body is too long.
    #[error("its body is larger than {limit} bytes")]
    TooLarge {
        /// What it may have, in bytes.
        limit: usize,
    },
}

/// The body behind a head.
fn body(headers: &HeaderMap, rest: &[u8]) -> Result<Bytes, BadResponse> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (codings.next(), codings.next(), lengths.next()) {
        (Some(coding), None, None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            unchunked(rest)
        }
        (Some(_), None, None) | (Some(_), Some(_), _) => Err(BadResponse::Encoding),
        (Some(_), None, Some(_)) => Err(BadResponse::Length),
        (None, _, None) => Ok(Bytes::copy_from_slice(rest)),
        (None, _, Some(length)) => {
            if lengths.any(|other| other != length) {
                return Err(BadResponse::Length);
            }
            let length = length.to_str().ok().filter(|length| is_number(length));
            let length = length.and_then(|length| length.parse().ok());
            let length: usize = length.ok_or(BadResponse::Length)?;
            let body = rest.get(..length).ok_or(BadResponse::Incomplete)?;
            Ok(Bytes::copy_from_slice(body))
        }
    }
}

/// Whether it has digits alone; a sign would be read as well.
fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The data of all chunks; what trails them is left out.
fn unchunked(mut rest: &[u8]) -> Result<Bytes, BadResponse> {
    let mut body = Vec::new();
    loop {
        let size = parse_chunk_size(rest).map_err(|_| BadResponse::Chunk)?;
        let Status::Complete((start, size)) = size else {
            return Err(BadResponse::Incomplete);
        };
        if size == 0 {
            return Ok(body.into());
        }
        let size = usize::try_from(size).map_err(|_| BadResponse::Chunk)?;
        let tail = &rest[start..];
        let data = tail.get(..size).ok_or(BadResponse::Incomplete)?;
        body.extend_from_slice(data);
        rest = tail[size..]
            .strip_prefix(b"\r\n")
            .ok_or(BadResponse::Chunk)?;
    }
}

/// As many headers as a request may have, twice over.
const MAX_HEADERS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn get(text: &str) -> Result<Response<Bytes>, BadResponse> {
        parse(text.as_bytes(), &Method::GET, 100)
    }

    #[test]
    fn a_body_is_as_long_as_its_head_says() {
        for (text, body) in [
            ("HTTP/1.1 200 OK\r\n\r\n", ""),
            ("HTTP/1.1 200 OK\r\n\r\nto the end", "to the end"),
            ("HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nold", "old"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef", "abc"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
                "abc",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
                "abc0123456789",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n",
                "",
            ),
            // What Go writes of an answer over HTTP/2.
            ("HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi"),
            ("HTTP/1.1 204 No Content\r\n\r\nx", ""),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", ""),
        ] {
            assert_eq!(get(text).unwrap().body(), body, "{text}");
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
        let reply = parse(head.as_bytes(), &Method::HEAD, 0).unwrap();
        assert_eq!(
            (reply.body().len(), &reply.headers()[CONTENT_LENGTH]),
            (0, &"9".parse().unwrap())
        );
    }

    #[test]
    fn what_is_no_response_is_refused_by_what_is_wrong() {
        let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(101));
        let many = format!(
            "HTTP/1.1 200 OK\r\n{}\r\n",
            "a: b\r\n".repeat(MAX_HEADERS + 1)
        );
        for (text, error) in [
            ("", BadResponse::Incomplete),
            ("HTTP/1.1 200 OK\r\n", BadResponse::Incomplete),
            ("hello", BadResponse::Head(httparse::Error::Version)),
            (
                "HTTP/3 200 OK\r\n\r\n",
                BadResponse::Head(httparse::Error::Version),
            ),
            (
                "HTTP/1.1 abc OK\r\n\r\n",
                BadResponse::Head(httparse::Error::Status),
            ),
            (&many, BadResponse::Head(httparse::Error::TooManyHeaders)),
            (
                "HTTP/1.1 101 Switching Protocols\r\n\r\n",
                BadResponse::Status,
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
                BadResponse::Status,
            ),
            ("HTTP/1.1 099 Low\r\n\r\n", BadResponse::Status),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
                BadResponse::Incomplete,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
                BadResponse::Length,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
                BadResponse::Length,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
                BadResponse::Length,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
                BadResponse::Length,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                BadResponse::Length,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
                BadResponse::Encoding,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                BadResponse::Encoding,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                BadResponse::Incomplete,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
                BadResponse::Incomplete,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
                BadResponse::Chunk,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
                BadResponse::Chunk,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nab",
                BadResponse::Incomplete,
            ),
            (&long, BadResponse::TooLarge { limit: 100 }),
        ] {
            assert_eq!(get(text).unwrap_err(), error, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_payload_panics(payload in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..120) {
            let _ = parse(&payload, &Method::POST, 100);
            let good = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
            let mut bent = good.to_vec();
            bent.splice(at % good.len().., payload);
            let _ = parse(&bent, &Method::POST, 100);
        }
    }
}

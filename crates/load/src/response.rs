//! Responses to publishers, of which only the status matters.

use std::io;

/// Takes responses off the bytes of a keep-alive connection.
#[derive(Debug, Default)]
pub(crate) struct Responses {
    buffer: Vec<u8>,
    done: usize,
}

/// A response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Response {
    /// What it says.
    pub(crate) status: u16,
    /// Whether it is the last on its connection.
    pub(crate) closes: bool,
}

impl Responses {
    /// Where the next bytes of the connection go.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.done);
        self.done = 0;
        &mut self.buffer
    }

    /// The next response that is here as a whole.
    ///
    /// # Errors
    ///
    /// When it is no response.
    pub(crate) fn next(&mut self) -> io::Result<Option<Response>> {
        let rest = &self.buffer[self.done..];
        if rest.is_empty() {
            return Ok(None);
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let parsed = head.parse(rest).map_err(io::Error::other)?;
        let httparse::Status::Complete(body) = parsed else {
            return Ok(None);
        };
        let header = |name: &str| {
            let mut headers = head.headers.iter();
            let header = headers.find(|header| header.name.eq_ignore_ascii_case(name))?;
            str::from_utf8(header.value).ok()
        };
        let response = Response {
            status: head.code.unwrap_or_default(),
            closes: header("connection").is_some_and(|say| say.eq_ignore_ascii_case("close")),
        };
        let length = if header("transfer-encoding").is_some() {
            chunked_length(&rest[body..])?
        } else {
            let length = header("content-length").map_or(Ok(0), str::parse);
            Some(length.map_err(io::Error::other)?)
        };
        let Some(end) = length.and_then(|length: usize| body.checked_add(length)) else {
            return Ok(None);
        };
        if rest.len() < end {
            return Ok(None);
        }
        self.done += end;
        Ok(Some(response))
    }
}

/// How long a chunked body is, with its framing; `None` while it is not all there.
fn chunked_length(body: &[u8]) -> io::Result<Option<usize>> {
    let mut at = 0;
    loop {
        let rest = body.get(at..).unwrap_or_default();
        let parsed = httparse::parse_chunk_size(rest);
        let parsed = parsed.map_err(|_| io::Error::other("a bad chunk"))?;
        let httparse::Status::Complete((head, size)) = parsed else {
            return Ok(None);
        };
        let size = usize::try_from(size).map_err(io::Error::other)?;
        at = at.saturating_add(head + 2).saturating_add(size);
        if size == 0 {
            return Ok(Some(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_told_apart_however_their_bytes_are_cut() {
        let bytes = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nOK\n\
            HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nConnection: close\r\n\r\n\
            HTTP/1.1 204 Empty\r\n\r\n\
            HTTP/1.1 202 Fine\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\na;x=y\r\n0123456789\r\n0\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nOK\n";
        for piece in [1, 2, 10, bytes.len()] {
            let mut responses = Responses::default();
            let mut all = Vec::new();
            for piece in bytes.as_bytes().chunks(piece) {
                responses.buffer().extend_from_slice(piece);
                while let Some(response) = responses.next().unwrap() {
                    all.push((response.status, response.closes));
                }
            }
            let expected = [
                (200, false),
                (503, true),
                (204, false),
                (202, false),
                (200, false),
            ];
            assert_eq!(all, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_response_is_an_error() {
        let mut responses = Responses::default();
        responses.buffer().extend_from_slice(b"SSH-2.0\r\n\r\n");
        assert!(responses.next().is_err());
    }
}

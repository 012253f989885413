//! What is sent back: a few bytes, a stream of events without an end, or somebody else's answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};

use super::call::Download;
use super::event_stream::EventStream;
use super::head::Requests;

/// A response.
pub(super) type Reply = Response<ReplyBody>;

/// The body of a response.
pub(super) enum ReplyBody {
    Whole(Full<Bytes>),
    Events(Box<EventStream>),
    Call(Box<Download>),
}

impl Default for ReplyBody {
    fn default() -> Self {
        Self::Whole(Full::default())
    }
}

/// A reply of one line of text, which ends in a newline.
pub(super) fn line(status: StatusCode, text: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(ReplyBody::Whole(Full::new(text.into())));
    *reply.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(CONTENT_TYPE, plain);
    reply
}

/// A body that can't come to its end; the connection must not look as if it had.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut off")]
pub(super) struct Cut;

/// A body that tells the connection when it has been sent.
pub(super) struct Watched {
    body: ReplyBody,
    requests: Arc<Requests>,
}

impl Watched {
    pub(super) fn new(body: ReplyBody, requests: Arc<Requests>) -> Self {
        Self { body, requests }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut self.body {
            ReplyBody::Whole(body) => {
                let frame = Pin::new(body).poll_frame(context);
                frame.map(|frame| frame.map(|frame| frame.map_err(|never| match never {})))
            }
            ReplyBody::Call(download) => download.poll_frame(context),
            ReplyBody::Events(stream) => {
                let data = stream.poll_data(context);
                data.map(|data| data.map(|data| Ok(Frame::data(data))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            ReplyBody::Whole(body) => body.is_end_stream(),
            ReplyBody::Events(_) => false,
            ReplyBody::Call(download) => download.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            ReplyBody::Whole(body) => body.size_hint(),
            ReplyBody::Events(_) => SizeHint::default(),
            ReplyBody::Call(download) => download.size_hint(),
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.requests.finish();
    }
}

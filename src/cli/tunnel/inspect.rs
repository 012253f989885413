//! `--inspect`: what callers have sent, kept in a folder as `forward --save` keeps messages.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hookbot_forward::{Message, Saver};
use hookbot_protocol::event::Event;
use http::request::Parts;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::ext::Protocol;
use tracing::warn;

/// How much of a body is kept, in bytes.
const MAX_KEPT: usize = 4 << 20;

/// A call's body, of which a copy is kept. Once it is over, or given up, the call is saved.
pub(super) struct Inspected {
    body: Incoming,
    kept: Vec<u8>,
    /// More came than is kept.
    is_cut: bool,
    /// Taken once the call is saved.
    saving: Option<(Saver, Event)>,
}

impl Inspected {
    pub(super) fn new(saver: Saver, call: &Parts, body: Incoming) -> Self {
        Self {
            body,
            kept: Vec::new(),
            is_cut: false,
            saving: Some((saver, event(call))),
        }
    }
}

impl Body for Inspected {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            let room = MAX_KEPT - self.kept.len();
            self.kept.extend_from_slice(&data[..data.len().min(room)]);
            self.is_cut |= data.len() > room;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Inspected {
    fn drop(&mut self) {
        let Some((saver, mut event)) = self.saving.take() else {
            return;
        };
        if self.is_cut || !self.body.is_end_stream() {
            event.attributes.insert("truncated".to_owned(), true.into());
        }
        let payload = std::mem::take(&mut self.kept).into();
        tokio::spawn(async move {
            if let Err(error) = saver.save(&Message { event, payload }).await {
                warn!("a call is not saved: {:#}", anyhow::Error::from(error));
            }
        });
    }
}

/// What is known of a call.
fn event(call: &Parts) -> Event {
    let text = |name: &str| call.headers.get(name).and_then(|value| value.to_str().ok());
    let prefix = text("x-forwarded-prefix").unwrap_or_default();
    let topic = prefix.replacen("/call/", "/", 1);
    let headers = call.headers.iter();
    let path = call.uri.path().to_owned();
    Event {
        cursor: String::new(),
        topic: topic.strip_prefix("/unsafe").map_or_else(
            || topic.trim_start_matches('/').to_owned(),
            |_| topic.clone(),
        ),
        time: jiff::Timestamp::now().to_string(),
        method: super::method(&call.method, call.extensions.get::<Protocol>().is_some())
            .to_string(),
        query: call.uri.query().unwrap_or_default().to_owned(),
        address: text("x-forwarded-for").unwrap_or_default().to_owned(),
        headers: headers
            .map(|(name, value)| (name.to_string(), value.as_bytes().into()))
            .collect(),
        attributes: BTreeMap::from([("path".to_owned(), path.into())]),
    }
}

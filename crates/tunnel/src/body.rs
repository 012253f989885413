//! Bodies as a tunnel carries them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// A body without its empty pieces. HTTP/2 would send each in a frame, and h2 ends a connection in
/// whose life there were a hundred of them.
pub struct Lean<B>(pub B);

impl<B: Body<Data = Bytes> + Unpin> Body for Lean<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        loop {
            let frame = ready!(Pin::new(&mut self.0).poll_frame(context));
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok());
            if !data.is_some_and(|frame| frame.data_ref().is_some_and(Bytes::is_empty)) {
                return Poll::Ready(frame);
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};
    use std::convert::Infallible;

    #[tokio::test]
    async fn empty_pieces_are_left_out_and_the_rest_is_not() {
        let pieces = ["", "a", "", "", "b", ""].map(|piece| Frame::data(Bytes::from(piece)));
        let trailers = Frame::trailers(
            [("x-a".parse().unwrap(), "1".parse().unwrap())]
                .into_iter()
                .collect(),
        );
        let frames = pieces
            .into_iter()
            .chain([trailers])
            .map(Ok::<_, Infallible>);
        let mut body = Lean(StreamBody::new(futures_util::stream::iter(frames)));
        let mut seen = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            seen.push(match frame.into_data() {
                Ok(data) => String::from_utf8(data.to_vec()).unwrap(),
                Err(_) => "trailers".to_owned(),
            });
        }
        assert_eq!(seen, ["a", "b", "trailers"]);
    }
}

//! Bodies as they pass through: never buffered, never changed.

use super::endpoint::{InFlight, Sender};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Empty, Full};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

/// Body of a request on its way to a pod.
pub(crate) type Outgoing = Either<Incoming, Empty<Bytes>>;

/// Body of a response on its way to the client.
pub(crate) enum Returning {
    /// From a pod.
    Pod(FromPod),
    /// Our own words.
    Own(Full<Bytes>),
}

/// A pod's response body. Counts as in flight until its end; then its connection is kept for the next request.
pub(crate) struct FromPod {
    body: Incoming,
    /// Taken at the end of the body. Dropped before that, the connection closes.
    lease: Option<(Sender, InFlight)>,
}

impl FromPod {
    pub(crate) fn new(body: Incoming, sender: Sender, in_flight: InFlight) -> Self {
        let mut new = Self { body, lease: Some((sender, in_flight)) };
        new.finish_if_ended();
        new
    }

    fn finish_if_ended(&mut self) {
        if self.body.is_end_stream() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        let Some((mut sender, in_flight)) = self.lease.take() else { return };
        if sender.requests.is_ready() {
            in_flight.0.keep(sender, Instant::now());
            return;
        }
        tokio::spawn(async move {
            // Fails if the pod does not want to keep the connection.
            if sender.requests.ready().await.is_ok() {
                in_flight.0.keep(sender, Instant::now());
            }
        });
    }
}

impl Body for Returning {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Own(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::Pod(from) => {
                let polled = Pin::new(&mut from.body).poll_frame(context);
                match &polled {
                    Poll::Ready(None) => from.finish(),
                    Poll::Ready(Some(Ok(_))) => from.finish_if_ended(),
                    Poll::Ready(Some(Err(_))) => from.lease = None,
                    Poll::Pending => {}
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Pod(from) => from.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Pod(from) => from.body.size_hint(),
        }
    }
}

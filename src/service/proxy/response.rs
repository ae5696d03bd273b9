//! The response to the client: relayed from the application, or a failure.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Response, Version, header, request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::request_context::{RequestContext, log_request};
use crate::service::headers;
use crate::service::proxy::exchange::UpstreamResponse;
use crate::service::proxy::failure::{BodyFailure, ProxyError};
use crate::service::proxy::pool::{Slot, UpstreamConnection};
use crate::service::proxy::upload::Upload;

/// The body of a response of a [`Proxy`](super::Proxy).
pub struct ProxyBody {
    kind: Kind,
    /// Kept until the response has been sent: h2 resets a stream whose request body is dropped
    /// earlier, and the response is lost.
    _upload: Upload,
}

enum Kind {
    /// A failure.
    Text(Full<Bytes>),
    /// The application's response.
    Relay(Relay),
}

struct Relay {
    body: Incoming,
    /// The connection, until the whole body was read.
    source: Option<(Slot, Box<UpstreamConnection>)>,
    /// An error that is reported after the data before it has been sent.
    broken: Option<hyper::Error>,
    /// The head of the request, for the log line of a failure.
    request: Box<request::Parts>,
}

impl ProxyBody {
    pub(super) fn text(text: Full<Bytes>, upload: Upload) -> Self {
        Self { kind: Kind::Text(text), _upload: upload }
    }
}

/// Relays the application's response to the client.
pub(super) fn relay(
    upstream: UpstreamResponse,
    slot: Slot,
    request: Box<request::Parts>,
    upload: Upload,
) -> Response<ProxyBody> {
    let (mut head, body) = upstream.response.into_parts();
    // The framing towards the client follows from the client's version and the body.
    head.version = Version::HTTP_11;
    if !is_length_plain(&head.headers) {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    headers::for_client(&mut head.headers);
    let source = Some((slot, upstream.connection));
    let mut relay = Relay { body, source, broken: None, request };
    if relay.body.is_end_stream() {
        relay.finish();
    }
    Response::from_parts(head, ProxyBody { kind: Kind::Relay(relay), _upload: upload })
}

/// True if `Content-Length` is the body's length, as one plain number.
fn is_length_plain(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let is_number = |value: &http::HeaderValue| value.as_bytes().iter().all(u8::is_ascii_digit);
    lengths.next().is_none_or(is_number)
        && lengths.next().is_none()
        && !headers.contains_key(header::TRANSFER_ENCODING)
}

impl Relay {
    /// The whole body was read: the connection is free.
    fn finish(&mut self) {
        if let Some((slot, connection)) = self.source.take() {
            slot.give_back(connection);
        }
    }

    /// The body broke off.
    fn fail(&mut self, error: &hyper::Error) {
        let source = self.source.take();
        let was_reset = source.is_some_and(|(_, connection)| connection.traffic.was_reset());
        let failure = BodyFailure::of(error, was_reset);
        let (cause, error) = (failure.as_str(), ProxyError::Body(failure));
        error.count();
        let context = RequestContext::of_head(&self.request);
        log_request!(warn, &context, "upstream_failed", reason = error.reason(), cause, %error);
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        // The connection is driven in this task, so its body needs no waker of its own.
        let mut quiet = Context::from_waker(Waker::noop());
        let mut poll = Pin::new(&mut self.body).poll_frame(&mut quiet);
        if poll.is_pending()
            && let Some((_, connection)) = &mut self.source
        {
            connection.drive(context);
            poll = Pin::new(&mut self.body).poll_frame(&mut quiet);
        }
        match poll {
            Poll::Ready(Some(Ok(frame))) => {
                if frame.is_trailers() || self.body.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(pass(frame))))
            }
            Poll::Ready(Some(Err(error))) => {
                self.fail(&error);
                self.broken = Some(error);
                // The data before it is sent first: an error closes the client's connection.
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

fn pass(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            headers::for_client(&mut trailers);
            headers::for_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(other) => other,
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.kind {
            Kind::Text(text) => Pin::new(text)
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Kind::Relay(relay) => relay.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Text(text) => text.is_end_stream(),
            Kind::Relay(relay) => relay.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Text(text) => text.size_hint(),
            Kind::Relay(relay) => relay.body.size_hint(),
        }
    }
}

impl std::fmt::Debug for ProxyBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxyBody").finish_non_exhaustive()
    }
}

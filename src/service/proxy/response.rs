//! What a client gets: the application's answer, or what went wrong.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Response, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tracing::warn;

use crate::service::headers;
use crate::service::proxy::exchange::UpstreamResponse;
use crate::service::proxy::pool::{Slot, UpstreamConnection};
use crate::service::proxy::upload::Upload;

/// The body of an answer of a [`Proxy`](super::Proxy).
pub struct ProxyBody {
    kind: Kind,
    /// Kept until the answer has been sent: an HTTP/2 stream whose body is dropped before that is
    /// reset, and its answer lost.
    _upload: Upload,
}

enum Kind {
    /// A failure in words.
    Text(Full<Bytes>),
    /// What the application sends.
    Relay(Relay),
}

struct Relay {
    body: Incoming,
    /// What the body comes by, until it is there.
    source: Option<(Slot, Box<UpstreamConnection>)>,
    /// Why there will be no more of it.
    broken: Option<hyper::Error>,
}

impl ProxyBody {
    pub(super) fn text(text: Full<Bytes>, upload: Upload) -> Self {
        Self { kind: Kind::Text(text), _upload: upload }
    }
}

/// The answer of an application as the client gets it.
pub(super) fn relay(answer: UpstreamResponse, slot: Slot, upload: Upload) -> Response<ProxyBody> {
    let (mut head, body) = answer.response.into_parts();
    // How it is framed on the way to the client follows from the client's version and the body.
    head.version = Version::HTTP_11;
    if !is_length_plain(&head.headers) {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    headers::for_client(&mut head.headers);
    let mut relay = Relay { body, source: Some((slot, answer.link)), broken: None };
    if relay.body.is_end_stream() {
        relay.finish();
    }
    Response::from_parts(head, ProxyBody { kind: Kind::Relay(relay), _upload: upload })
}

/// Whether the length that the headers tell is that of the body, in so many digits.
fn is_length_plain(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let is_number = |value: &http::HeaderValue| value.as_bytes().iter().all(u8::is_ascii_digit);
    lengths.next().is_none_or(is_number)
        && lengths.next().is_none()
        && !headers.contains_key(header::TRANSFER_ENCODING)
}

impl Relay {
    /// All of the answer is there: the connection is free.
    fn finish(&mut self) {
        if let Some((slot, link)) = self.source.take() {
            slot.give_back(link);
        }
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        // The body comes from the connection that is driven here: it needs no waker of its own.
        let mut quiet = Context::from_waker(Waker::noop());
        let mut poll = Pin::new(&mut self.body).poll_frame(&mut quiet);
        if poll.is_pending()
            && let Some((_, link)) = &mut self.source
        {
            link.drive(context);
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
                warn!(reason = "body", %error, "upstream_failed");
                self.source = None;
                self.broken = Some(error);
                // What came before is sent first: an error ends the client's connection at once.
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

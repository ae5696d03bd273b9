//! The body of a response: the service's, or that of a refusal.

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use crate::error::BoxError;
use crate::problem::ProblemBody;
use crate::server::http::in_flight::InFlight;

/// Yields the error of a body once all that was queued before it has been written.
type HeldError = Pin<Box<dyn Future<Output = BoxError> + Send>>;

pin_project! {
    /// The body of a response. Its request is in flight as long as it lives.
    pub(super) struct GateBody<B> {
        #[pin]
        content: Content<B>,
        in_flight: Option<InFlight>,
        held: Option<HeldError>,
    }
}

pin_project! {
    #[project = ContentProjection]
    enum Content<B> {
        Service { #[pin] body: B },
        /// Boxed: it is rare, and must not make every response larger.
        Refusal { body: Box<ProblemBody<Incoming>> },
        Empty,
    }
}

impl<B> GateBody<B> {
    pub(super) fn service(body: B) -> Self {
        Self::of(Content::Service { body })
    }

    pub(super) fn refusal(body: Box<ProblemBody<Incoming>>) -> Self {
        Self::of(Content::Refusal { body })
    }

    pub(super) fn empty() -> Self {
        Self::of(Content::Empty)
    }

    fn of(content: Content<B>) -> Self {
        Self { content, in_flight: None, held: None }
    }

    pub(super) fn set_in_flight(&mut self, in_flight: Option<InFlight>) {
        self.in_flight = in_flight;
    }
}

impl<B: Body<Error: Into<BoxError>>> Body for GateBody<B> {
    type Data = GateData<B::Data>;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        let this = self.project();
        if let Some(held) = this.held {
            let error = ready!(held.as_mut().poll(context));
            *this.held = None;
            return Poll::Ready(Some(Err(error)));
        }
        let (mut poll, is_last) = match this.content.project() {
            ContentProjection::Empty => return Poll::Ready(None),
            ContentProjection::Refusal { body } => {
                let poll = Pin::new(&mut **body).poll_frame(context);
                let frame = |frame: Frame<_>| frame.map_data(GateData::Refusal);
                (
                    poll.map(|next| next.and_then(Result::ok).map(frame).map(Ok)),
                    body.is_end_stream(),
                )
            }
            ContentProjection::Service { mut body } => {
                let poll = body.as_mut().poll_frame(context);
                let frame = |frame: Frame<_>| frame.map_data(GateData::Service);
                let result = |result: Result<_, B::Error>| result.map(frame).map_err(Into::into);
                (poll.map(|next| next.map(result)), body.is_end_stream())
            }
        };
        if let Some(in_flight) = this.in_flight {
            if in_flight.is_h2()
                && let Poll::Ready(Some(Err(_))) = &poll
                && let Poll::Ready(Some(Err(error))) = std::mem::replace(&mut poll, Poll::Pending)
            {
                let state = Arc::clone(in_flight.state());
                let mut held: HeldError = Box::pin(async move {
                    state.flush().await;
                    error
                });
                match held.as_mut().poll(context) {
                    Poll::Ready(error) => poll = Poll::Ready(Some(Err(error))),
                    Poll::Pending => *this.held = Some(held),
                }
            }
            // hyper polls for more once the client has taken what there was.
            in_flight.set_has_data(poll.is_ready());
            if let Poll::Ready(frame) = &poll {
                in_flight.frame_sent(frame.as_ref(), frame.is_none() || is_last);
            }
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Service { body } => body.is_end_stream(),
            Content::Refusal { body } => body.is_end_stream(),
            Content::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Service { body } => body.size_hint(),
            Content::Refusal { body } => body.size_hint(),
            Content::Empty => SizeHint::with_exact(0),
        }
    }
}

/// The data of either body.
#[derive(Debug)]
pub(super) enum GateData<D> {
    Service(D),
    Refusal(Bytes),
}

impl<D: Buf> Buf for GateData<D> {
    fn remaining(&self) -> usize {
        match self {
            Self::Service(data) => data.remaining(),
            Self::Refusal(data) => data.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Service(data) => data.chunk(),
            Self::Refusal(data) => data.chunk(),
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        match self {
            Self::Service(data) => data.chunks_vectored(slices),
            Self::Refusal(data) => data.chunks_vectored(slices),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Service(data) => data.advance(count),
            Self::Refusal(data) => data.advance(count),
        }
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        match self {
            Self::Service(data) => data.copy_to_bytes(length),
            Self::Refusal(data) => data.copy_to_bytes(length),
        }
    }
}

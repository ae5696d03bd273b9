//! A deadline on each pause within a body.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

use crate::error::BoxError;

pin_project! {
    /// A body that fails with [`BodyStalled`] when its next frame does not arrive in time. Only the
    /// time in which the body is polled counts.
    pub struct BodyTimeout<B> {
        #[pin]
        inner: B,
        limit: Duration,
        // Created when the body is first pending: most bodies never are.
        timer: Option<Pin<Box<Sleep>>>,
        is_waiting: bool,
    }
}

/// The default limit of a request's body: the largest payload of API Gateway.
pub(super) const MAX_BODY: u64 = 10 << 20;

/// The next frame of a body did not arrive in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyStalled {
    /// How long the body had been waited for.
    pub after: Duration,
}

impl fmt::Display for BodyStalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no more of the body arrived for {:?}", self.after)
    }
}

impl std::error::Error for BodyStalled {}

impl<B> BodyTimeout<B> {
    /// Limits each pause within the body `inner`.
    pub fn new(inner: B, limit: Duration) -> Self {
        Self { inner, limit, timer: None, is_waiting: false }
    }
}

impl<B> fmt::Debug for BodyTimeout<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyTimeout").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl<B: Body<Error: Into<BoxError>>> Body for BodyTimeout<B> {
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.project();
        if let Poll::Ready(frame) = this.inner.poll_frame(context) {
            *this.is_waiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(*this.limit)));
        if !*this.is_waiting {
            timer.as_mut().reset(Instant::now() + *this.limit);
            *this.is_waiting = true;
        }
        let stalled = BodyStalled { after: *this.limit };
        timer.as_mut().poll(context).map(|()| Some(Err(stalled.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Channel};
    use tokio::time::{advance, pause};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn stalled_body_fails_and_slow_one_does_not() {
        pause();
        let (mut sender, body) = Channel::<Bytes>::new(1);
        let mut body = BodyTimeout::new(body, LIMIT);
        for _ in 0..5 {
            let late = async {
                sleep(LIMIT - Duration::from_secs(1)).await;
                sender.send_data(Bytes::from_static(b"x")).await.unwrap();
            };
            let (frame, ()) = tokio::join!(body.frame(), late);
            assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "x");
        }
        let begun = Instant::now();
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), LIMIT.as_secs());
        assert_eq!(error.downcast_ref(), Some(&BodyStalled { after: LIMIT }));
    }

    #[tokio::test]
    async fn time_between_polls_does_not_count() {
        pause();
        let (mut sender, body) = Channel::<Bytes>::new(1);
        let mut body = BodyTimeout::new(body, LIMIT);
        let first = async { sender.send_data(Bytes::from_static(b"x")).await.unwrap() };
        let (frame, ()) = tokio::join!(body.frame(), first);
        frame.unwrap().unwrap();
        advance(LIMIT * 3).await;
        sender.send_data(Bytes::from_static(b"y")).await.unwrap();
        drop(sender);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "y");
    }
}

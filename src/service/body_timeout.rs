//! A body that must make progress.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pin_project! {
    /// A body that fails with [`Stalled`] when nothing of it has come for too long. Time in which
    /// nobody asks for more does not count.
    pub struct BodyTimeout<B> {
        #[pin]
        inner: B,
        patience: Duration,
        // Made when the body is waited for the first time, which most never are.
        alarm: Option<Pin<Box<Sleep>>>,
        is_waiting: bool,
    }
}

/// Nothing of a body has come for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyStalled {
    /// For how long nothing had come.
    pub after: Duration,
}

impl fmt::Display for BodyStalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing of the body has come for {:?}", self.after)
    }
}

impl std::error::Error for BodyStalled {}

impl<B> BodyTimeout<B> {
    /// The body `inner`, of which something must come within `patience`, each time again.
    pub fn new(inner: B, patience: Duration) -> Self {
        Self { inner, patience, alarm: None, is_waiting: false }
    }
}

impl<B> fmt::Debug for BodyTimeout<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patient").field("patience", &self.patience).finish_non_exhaustive()
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
        let alarm = this.alarm.get_or_insert_with(|| Box::pin(sleep(*this.patience)));
        if !*this.is_waiting {
            alarm.as_mut().reset(Instant::now() + *this.patience);
            *this.is_waiting = true;
        }
        let stalled = BodyStalled { after: *this.patience };
        alarm.as_mut().poll(context).map(|()| Some(Err(stalled.into())))
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

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn it_fails_when_nothing_comes_and_not_while_something_does() {
        pause();
        let (mut sender, body) = Channel::<Bytes>::new(1);
        let mut body = BodyTimeout::new(body, PATIENCE);
        for _ in 0..5 {
            let late = async {
                sleep(PATIENCE - Duration::from_secs(1)).await;
                sender.send_data(Bytes::from_static(b"x")).await.unwrap();
            };
            let (frame, ()) = tokio::join!(body.frame(), late);
            assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "x");
        }
        let begun = Instant::now();
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), PATIENCE.as_secs());
        assert_eq!(error.downcast_ref(), Some(&BodyStalled { after: PATIENCE }));
    }

    #[tokio::test]
    async fn time_in_which_nobody_asks_does_not_count() {
        pause();
        let (mut sender, body) = Channel::<Bytes>::new(1);
        let mut body = BodyTimeout::new(body, PATIENCE);
        let first = async { sender.send_data(Bytes::from_static(b"x")).await.unwrap() };
        let (frame, ()) = tokio::join!(body.frame(), first);
        frame.unwrap().unwrap();
        advance(PATIENCE * 3).await;
        sender.send_data(Bytes::from_static(b"y")).await.unwrap();
        drop(sender);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "y");
    }
}

//! The body of a request to the application.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::error::BoxError;
use crate::service::body_timeout::{BodyStalled, BodyTimeout};
use crate::service::headers;

type BoxBody = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

/// The body that is sent to the application. Clones share one source: the request can be sent again
/// if nothing was read from it, and the source is kept until the response has been sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Upload(Option<Arc<Mutex<Source>>>);

struct Source {
    body: BoxBody,
    /// The bytes that are left of the limit.
    room: u64,
    progress: Progress,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.progress.fmt(f)
    }
}

/// The progress of a body.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// The frames that were read.
    pub(super) frames: u64,
    /// True while the client is to send the next frame.
    pub(super) is_awaited: bool,
    /// True once its end was read.
    pub(super) is_over: bool,
    pub(super) error: Option<UploadError>,
}

/// Why a body cannot be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UploadError {
    /// It is larger than the limit.
    TooLarge,
    /// It broke off, or its framing is wrong.
    Broken,
    /// No more of it arrived in time.
    Stalled,
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the request's body is too large",
            Self::Broken => "the request's body is malformed or incomplete",
            Self::Stalled => "no more of the request's body arrived",
        })
    }
}

impl std::error::Error for UploadError {}

impl Upload {
    /// A body of at most `limit` bytes and pauses of at most `timeout`. The result is an error if
    /// the body is known to be larger.
    pub(super) fn new<B>(body: B, limit: u64, timeout: Duration) -> (Self, Result<(), UploadError>)
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        if body.is_end_stream() {
            return (Self(None), Ok(()));
        }
        let fits = match body.size_hint().lower() > limit {
            true => Err(UploadError::TooLarge),
            false => Ok(()),
        };
        let body = Box::pin(BodyTimeout::new(body, timeout));
        let source = Source { body, room: limit, progress: Progress::default() };
        (Self(Some(Arc::new(Mutex::new(source)))), fits)
    }

    /// True if the request has no body.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// True if it was read to its end.
    pub(super) fn is_over(&self) -> bool {
        self.lock().is_none_or(|source| source.progress.is_over || source.body.is_end_stream())
    }

    pub(super) fn progress(&self) -> Progress {
        self.lock().map(|source| source.progress).unwrap_or_default()
    }

    fn lock(&self) -> Option<MutexGuard<'_, Source>> {
        self.0.as_ref().map(|source| source.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let Some(mut guard) = self.lock() else { return Poll::Ready(None) };
        let source = &mut *guard;
        if let Some(error) = source.progress.error {
            return Poll::Ready(Some(Err(error)));
        }
        source.progress.is_awaited = true;
        let frame = ready!(source.body.as_mut().poll_frame(context));
        source.progress.is_awaited = false;
        let Some(frame) = frame else {
            source.progress.is_over = true;
            return Poll::Ready(None);
        };
        source.progress.frames += 1;
        let passed = match frame {
            Ok(frame) => pass(frame, &mut source.room),
            Err(error) if error.is::<BodyStalled>() => Err(UploadError::Stalled),
            Err(_) => Err(UploadError::Broken),
        };
        source.progress.error = passed.as_ref().err().copied();
        Poll::Ready(Some(passed))
    }

    fn is_end_stream(&self) -> bool {
        // A body with an error has not ended: its end would complete the request.
        self.lock()
            .is_none_or(|source| source.progress.error.is_none() && source.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().map_or(SizeHint::with_exact(0), |source| source.body.size_hint())
    }
}

fn pass(frame: Frame<Bytes>, room: &mut u64) -> Result<Frame<Bytes>, UploadError> {
    if let Some(data) = frame.data_ref() {
        *room = room.checked_sub(data.len() as u64).ok_or(UploadError::TooLarge)?;
        return Ok(frame);
    }
    Ok(match frame.into_trailers() {
        Ok(mut trailers) => {
            headers::for_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(other) => other,
    })
}

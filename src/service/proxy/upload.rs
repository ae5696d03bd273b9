//! The body of a request on its way to the application.

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

/// A body that is passed on. What it comes from is shared with whoever waits for the answer: it may
/// be sent again if nothing was taken from it, and it is kept until the answer has been sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Upload(Option<Arc<Mutex<Passing>>>);

struct Passing {
    body: BoxBody,
    /// How many bytes may still come.
    room: u64,
    progress: Progress,
}

impl fmt::Debug for Passing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.progress.fmt(f)
    }
}

/// How far a body has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// How many pieces were taken from it.
    pub(super) frames: u64,
    /// Whether the client is to send the next one.
    pub(super) is_awaited: bool,
    /// Its end has been seen.
    pub(super) is_over: bool,
    /// What is wrong with it.
    pub(super) fault: Option<Fault>,
}

/// What can be wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is larger than it may be.
    TooLarge,
    /// It broke off, or its framing is wrong.
    Broken,
    /// Nothing of it has come for too long.
    BodyStalled,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the request's body is too large",
            Self::Broken => "the request's body is malformed or incomplete",
            Self::BodyStalled => "nothing more of the request's body came",
        })
    }
}

impl std::error::Error for Fault {}

impl Upload {
    /// Passes on a body of at most `most` bytes, of which something comes within `patience`, each
    /// time again.
    ///
    /// # Errors
    /// It is known already to be larger.
    pub(super) fn new<B>(body: B, most: u64, patience: Duration) -> (Self, Result<(), Fault>)
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        if body.is_end_stream() {
            return (Self(None), Ok(()));
        }
        let fits = if body.size_hint().lower() > most { Err(Fault::TooLarge) } else { Ok(()) };
        let body = Box::pin(BodyTimeout::new(body, patience));
        let passing = Passing { body, room: most, progress: Progress::default() };
        (Self(Some(Arc::new(Mutex::new(passing)))), fits)
    }

    /// Whether there is no body at all.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether it has been read to its end.
    pub(super) fn is_over(&self) -> bool {
        self.lock().is_none_or(|passing| passing.progress.is_over || passing.body.is_end_stream())
    }

    pub(super) fn progress(&self) -> Progress {
        self.lock().map(|passing| passing.progress).unwrap_or_default()
    }

    fn lock(&self) -> Option<MutexGuard<'_, Passing>> {
        self.0.as_ref().map(|passing| passing.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let Some(mut guard) = self.lock() else { return Poll::Ready(None) };
        let passing = &mut *guard;
        if let Some(fault) = passing.progress.fault {
            return Poll::Ready(Some(Err(fault)));
        }
        passing.progress.is_awaited = true;
        let frame = ready!(passing.body.as_mut().poll_frame(context));
        passing.progress.is_awaited = false;
        let Some(frame) = frame else {
            passing.progress.is_over = true;
            return Poll::Ready(None);
        };
        passing.progress.frames += 1;
        let passed = match frame {
            Ok(frame) => pass(frame, &mut passing.room),
            Err(error) if error.is::<BodyStalled>() => Err(Fault::BodyStalled),
            Err(_) => Err(Fault::Broken),
        };
        passing.progress.fault = passed.as_ref().err().copied();
        Poll::Ready(Some(passed))
    }

    fn is_end_stream(&self) -> bool {
        // One with a fault has not ended, whatever is left of it.
        self.lock()
            .is_none_or(|passing| passing.progress.fault.is_none() && passing.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().map_or(SizeHint::with_exact(0), |passing| passing.body.size_hint())
    }
}

fn pass(frame: Frame<Bytes>, room: &mut u64) -> Result<Frame<Bytes>, Fault> {
    if let Some(data) = frame.data_ref() {
        *room = room.checked_sub(data.len() as u64).ok_or(Fault::TooLarge)?;
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

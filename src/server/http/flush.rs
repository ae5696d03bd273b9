//! Sends what a response has queued before its error resets the stream.
//!
//! hyper resets the HTTP/2 stream of a body that fails, and h2 then drops the frames of the stream
//! that its connection has not written yet, the head of the response among them. So the body keeps
//! its error back until the task of the connection has written them.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::error::BoxError;

/// How often a body asks whether all has been written.
const PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

/// The flushes that bodies have requested of their connection, numbered.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    requested: AtomicU64,
    completed: AtomicU64,
}

impl Flushes {
    /// Requests another one; returns its number.
    pub(super) fn request(&self) -> u64 {
        self.requested.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The number of the newest.
    pub(super) fn requested(&self) -> u64 {
        self.requested.load(Ordering::Acquire)
    }

    /// Records that all has been written that was queued before this one was requested.
    pub(super) fn complete(&self, number: u64) {
        // Most polls of a connection find none.
        if self.completed.load(Ordering::Relaxed) != number {
            self.completed.store(number, Ordering::Release);
        }
    }

    pub(super) fn is_complete(&self, number: u64) -> bool {
        self.completed.load(Ordering::Acquire) >= number
    }

    /// True if one is requested that is not complete.
    pub(super) fn is_pending(&self) -> bool {
        self.completed.load(Ordering::Relaxed) != self.requested.load(Ordering::Acquire)
    }
}

/// The error of a body that waits for a flush.
pub(super) struct HeldError {
    error: BoxError,
    flush: u64,
    pause: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl HeldError {
    pub(super) fn new(error: BoxError, flush: u64) -> Self {
        Self { error, flush, pause: PAUSE, sleep: Box::pin(sleep(PAUSE)) }
    }

    /// Waits until the flush is complete.
    pub(super) fn poll(&mut self, flushes: &Flushes, context: &mut Context<'_>) -> Poll<()> {
        while !flushes.is_complete(self.flush) {
            ready!(self.sleep.as_mut().poll(context));
            self.pause = LONGEST_PAUSE.min(self.pause * 2);
            self.sleep.as_mut().reset(Instant::now() + self.pause);
        }
        Poll::Ready(())
    }

    pub(super) fn into_error(self) -> BoxError {
        self.error
    }
}

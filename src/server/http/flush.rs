//! Sends what a response has queued before its error resets the stream.
//!
//! hyper resets the HTTP/2 stream of a body that fails, and h2 then drops the frames of the stream
//! that its connection has not written yet, the head of the response among them. So the body keeps
//! its error back until the task of the connection has written them.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// The flushes that bodies have requested of their connection, numbered.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    requested: AtomicU64,
    completed: AtomicU64,
    progress: Notify,
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
            self.progress.notify_waiters();
        }
    }

    /// Waits until this one is complete.
    pub(super) async fn wait(&self, number: u64) {
        loop {
            // Made before the check, so that a completion in between wakes it.
            let progress = self.progress.notified();
            if self.completed.load(Ordering::Acquire) >= number {
                return;
            }
            progress.await;
        }
    }

    /// True if one is requested that is not complete.
    pub(super) fn is_pending(&self) -> bool {
        self.completed.load(Ordering::Relaxed) != self.requested.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn body_waits_until_its_own_flush_is_complete() {
        let flushes = Flushes::default();
        let (first, second) = (flushes.request(), flushes.request());
        let mut wait = pin!(flushes.wait(second));
        let mut is_over = || wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!is_over() && flushes.is_pending());
        flushes.complete(first);
        assert!(!is_over() && flushes.is_pending());
        flushes.complete(second);
        assert!(is_over() && !flushes.is_pending());
    }
}

//! What a connection waits for: the remainder of a request's head, or a client that reads.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// What a connection waits for, and since when. Reads and writes are frequent and set only flags.
/// The times are set when a deadline is computed.
#[derive(Debug)]
pub(super) struct Progress {
    began: Instant,
    /// Bytes have arrived that are not yet a request.
    head: Waiting,
    /// Bytes of a response wait for the client to read.
    write: Waiting,
    /// A write of HTTP/2 has waited for other streams, and is not flushed.
    is_write_deferred: AtomicBool,
    /// The number of responses with data that the client has not taken.
    untaken: AtomicU32,
    /// Since when the client has taken nothing of any response.
    last_taken: LazyInstant,
}

#[derive(Debug)]
struct Waiting {
    is_waiting: AtomicBool,
    since: LazyInstant,
}

/// The time of the first `get` since the last reset: in milliseconds since the connection began,
/// plus one; 0 while it is not set.
#[derive(Debug, Default)]
struct LazyInstant(AtomicU64);

impl LazyInstant {
    fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn get(&self, began: Instant) -> Instant {
        let mut since = self.0.load(Ordering::Relaxed);
        if since == 0 {
            since = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
            self.0.store(since, Ordering::Relaxed);
        }
        began + Duration::from_millis(since - 1)
    }
}

impl Waiting {
    fn new(is_waiting: bool) -> Self {
        Self { is_waiting: AtomicBool::new(is_waiting), since: LazyInstant::default() }
    }

    fn begin(&self) {
        self.is_waiting.store(true, Ordering::Relaxed);
    }

    /// True if it had begun.
    fn end(&self) -> bool {
        let was_waiting = self.is_waiting.load(Ordering::Relaxed);
        if was_waiting {
            self.is_waiting.store(false, Ordering::Relaxed);
            self.since.reset();
        }
        was_waiting
    }

    fn since(&self, began: Instant) -> Option<Instant> {
        self.is_waiting.load(Ordering::Relaxed).then(|| self.since.get(began))
    }
}

impl Progress {
    /// The progress of a connection that was just admitted: it waits for its first request.
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            head: Waiting::new(true),
            write: Waiting::new(false),
            is_write_deferred: AtomicBool::new(false),
            untaken: AtomicU32::new(0),
            last_taken: LazyInstant::default(),
        }
    }

    pub(super) fn head_began(&self) {
        self.head.begin();
    }

    pub(super) fn head_completed(&self) {
        self.head.end();
    }

    /// Since when a head is incomplete.
    pub(super) fn head_since(&self) -> Option<Instant> {
        self.head.since(self.began)
    }

    /// The socket took no more bytes.
    pub(super) fn write_blocked(&self) {
        self.write.begin();
    }

    /// True for the first write since the last flush, which is deferred. No deadline runs: the client
    /// has no part in it.
    pub(super) fn defers_write(&self) -> bool {
        !self.is_write_deferred.swap(true, Ordering::Relaxed)
    }

    /// All that was written has been flushed.
    pub(super) fn flushed(&self) {
        self.is_write_deferred.store(false, Ordering::Relaxed);
    }

    /// The socket took bytes.
    pub(super) fn write_advanced(&self) {
        if self.write.end() {
            self.data_taken();
        }
    }

    /// True while bytes wait to be written.
    pub(super) fn has_unwritten(&self) -> bool {
        self.write.is_waiting.load(Ordering::Relaxed)
            || self.is_write_deferred.load(Ordering::Relaxed)
    }

    /// Since when the socket takes no bytes.
    pub(super) fn write_since(&self) -> Option<Instant> {
        self.write.since(self.began)
    }

    /// One more response has data for the client.
    pub(super) fn data_offered(&self) {
        self.data_taken();
        self.untaken.fetch_add(1, Ordering::AcqRel);
    }

    /// One response has no data for the client, for now or for good.
    pub(super) fn data_exhausted(&self) {
        self.data_taken();
        self.untaken.fetch_sub(1, Ordering::AcqRel);
    }

    /// The client has taken data of a response.
    pub(super) fn data_taken(&self) {
        self.last_taken.reset();
    }

    /// Since when the client has taken nothing of this many responses, if all of them have data for
    /// it. An HTTP/2 client can read what the socket holds and still stop every response.
    pub(super) fn unread_since(&self, responses: u32) -> Option<Instant> {
        let untaken = self.untaken.load(Ordering::Acquire);
        (untaken > 0 && untaken >= responses).then(|| self.last_taken.get(self.began))
    }
}

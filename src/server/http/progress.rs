//! What a connection is waiting for: the rest of a request's head, or a client that reads.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::server::http::gate::Shared;

/// What is being waited for, and since when. The flags are set where octets move, which is often,
/// and the times where the connection comes to rest, which is when they matter.
#[derive(Debug)]
pub(in crate::server) struct Progress {
    began: Instant,
    /// Octets have come that are not yet a request.
    head: Waiting,
    /// Octets of an answer are there that the client does not take.
    write: Waiting,
    /// How many answers have more to give than has been taken of them.
    untaken: AtomicU32,
    /// Since when nothing more of an answer has been taken.
    taken: AtomicInstant,
}

#[derive(Debug)]
struct Waiting {
    is_waiting: AtomicBool,
    since: AtomicInstant,
}

/// When something was noticed for the first time: in milliseconds since the connection began, and
/// one more; 0 for not yet.
#[derive(Debug, Default)]
struct AtomicInstant(AtomicU64);

impl AtomicInstant {
    /// It begins anew.
    fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// When it was; now, where this is the first time that somebody asks.
    fn at(&self, began: Instant) -> Instant {
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
        Self { is_waiting: AtomicBool::new(is_waiting), since: AtomicInstant::default() }
    }

    fn begin(&self) {
        self.is_waiting.store(true, Ordering::Relaxed);
    }

    /// Says whether it had begun.
    fn end(&self) -> bool {
        let has_waited = self.is_waiting.load(Ordering::Relaxed);
        if has_waited {
            self.is_waiting.store(false, Ordering::Relaxed);
            self.since.reset();
        }
        has_waited
    }

    fn since(&self, began: Instant) -> Option<Instant> {
        self.is_waiting.load(Ordering::Relaxed).then(|| self.since.at(began))
    }
}

impl Progress {
    /// That of a connection that has just been let in: its first request is waited for.
    pub(in crate::server) fn new() -> Self {
        Self {
            began: Instant::now(),
            head: Waiting::new(true),
            write: Waiting::new(false),
            untaken: AtomicU32::new(0),
            taken: AtomicInstant::default(),
        }
    }

    /// A request's head has come to its end.
    pub(in crate::server) fn head_came(&self) {
        self.head.end();
    }

    /// Since when the rest of a head has been waited for.
    pub(in crate::server) fn head_since(&self) -> Option<Instant> {
        self.head.since(self.began)
    }

    /// Since when the client has taken nothing of what is there for it.
    pub(in crate::server) fn write_since(&self) -> Option<Instant> {
        self.write.since(self.began)
    }

    /// The client is to take something of one more answer.
    pub(in crate::server) fn offered(&self) {
        self.taken();
        self.untaken.fetch_add(1, Ordering::AcqRel);
    }

    /// Of one answer there is nothing to take, for now or for ever.
    pub(in crate::server) fn exhausted(&self) {
        self.taken();
        self.untaken.fetch_sub(1, Ordering::AcqRel);
    }

    /// The client has taken something.
    pub(in crate::server) fn taken(&self) {
        self.taken.reset();
    }

    /// Since when the client has taken nothing of this many answers, if there are as many for it.
    /// In HTTP/2 it may take whatever is written, and all the same let no answer go on.
    pub(in crate::server) fn unread_since(&self, answers: u32) -> Option<Instant> {
        let untaken = self.untaken.load(Ordering::Acquire);
        (untaken > 0 && untaken >= answers).then(|| self.taken.at(self.began))
    }
}

/// A stream whose progress is noted.
#[derive(Debug)]
pub(in crate::server) struct ProgressIo<T> {
    inner: T,
    shared: Arc<Shared>,
    /// Whether what is read begins a head. In HTTP/2 it may be many things else.
    notes_heads: bool,
    /// What was read and not taken.
    unread: Bytes,
    /// Whether the peer has said that nothing more comes, and we have.
    has_ended: bool,
    is_shut: bool,
}

impl<T> ProgressIo<T> {
    pub(in crate::server) fn new(inner: T, shared: Arc<Shared>, notes_heads: bool) -> Self {
        let unread = Bytes::new();
        Self { inner, shared, notes_heads, unread, has_ended: false, is_shut: false }
    }

    pub(in crate::server) fn get_ref(&self) -> &T {
        &self.inner
    }

    /// Has this read again, before what comes next.
    pub(in crate::server) fn put_back(&mut self, unread: Bytes) {
        self.unread = unread;
    }

    pub(in crate::server) fn into_inner(self) -> T {
        self.inner
    }

    /// Whether both sides have said that nothing more comes.
    pub(in crate::server) fn is_closed(&self) -> bool {
        self.has_ended && self.is_shut
    }

    fn note<R>(&self, poll: Poll<R>) -> Poll<R> {
        match poll {
            Poll::Pending => self.shared.progress.write.begin(),
            Poll::Ready(_) => {
                if self.shared.progress.write.end() {
                    self.shared.progress.taken();
                }
            }
        }
        poll
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ProgressIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = if self.unread.is_empty() {
            Pin::new(&mut self.inner).poll_read(context, buffer)
        } else {
            let length = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(length));
            Poll::Ready(Ok(()))
        };
        if buffer.filled().len() == before {
            self.has_ended |= matches!(poll, Poll::Ready(Ok(()))) && buffer.remaining() > 0;
        } else if self.notes_heads && !self.shared.is_busy() {
            // While a request is in flight it is that one's body.
            self.shared.progress.head.begin();
        }
        poll
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ProgressIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.note(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.note(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(context);
        self.note(poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_shutdown(context);
        self.is_shut |= poll.is_ready();
        poll
    }
}

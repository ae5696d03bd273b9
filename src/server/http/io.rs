//! Wraps the TLS stream of a connection, to record its progress and to scan heads for fragments.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::server::http::request_check::{FragmentScanner, pipelined_fragment};
use crate::server::http::state::ConnectionState;
use crate::server::tls_stream::TlsStream;

/// A stream that records its progress in the connection's state.
#[derive(Debug)]
pub(super) struct ProgressIo {
    inner: TlsStream,
    state: Arc<ConnectionState>,
    /// False in HTTP/2, whose bytes are not only heads.
    records_heads: bool,
    /// Bytes to be read again, before the next ones.
    unread: Bytes,
    scanner: FragmentScanner,
    /// The number of requests before the one that is scanned.
    scanned_after: u64,
    has_ended: bool,
    is_shut: bool,
}

impl ProgressIo {
    pub(super) fn new(inner: TlsStream, state: Arc<ConnectionState>, records_heads: bool) -> Self {
        Self {
            inner,
            state,
            records_heads,
            unread: Bytes::new(),
            scanner: FragmentScanner::default(),
            scanned_after: 0,
            has_ended: false,
            is_shut: false,
        }
    }

    pub(super) fn get_ref(&self) -> &TlsStream {
        &self.inner
    }

    /// Returns these bytes to the next reader, before those that arrive later.
    pub(super) fn put_back(&mut self, unread: Bytes) {
        self.unread = unread;
    }

    pub(super) fn into_inner(self) -> TlsStream {
        self.inner
    }

    /// True if the client has ended its side.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// True if both sides have ended the stream.
    pub(super) fn is_closed(&self) -> bool {
        self.has_ended && self.is_shut
    }

    fn scan_head(&mut self, bytes: &[u8]) {
        let requests = self.state.requests();
        if self.scanned_after != requests {
            (self.scanner, self.scanned_after) = (FragmentScanner::default(), requests);
        }
        let begins_here = self.scanner == FragmentScanner::default();
        if self.scanner.scan(bytes) {
            self.state.set_target_fragment(requests);
        } else if begins_here && let Some(heads) = pipelined_fragment(bytes, false) {
            self.state.set_target_fragment(requests + heads);
        }
    }

    /// The same for bytes that arrive while a request is in flight: its body, or a pipelined
    /// request.
    fn scan_ahead(&self, bytes: &[u8]) {
        if !self.state.has_body()
            && let Some(heads) = pipelined_fragment(bytes, true)
        {
            self.state.set_target_fragment(self.state.requests() + heads);
        }
    }

    /// Lets the tasks of other streams of HTTP/2 run before the first write: what they send goes out
    /// with it. The runtime would run this task after each of theirs.
    fn waits_for_streams(&self, context: &Context<'_>) -> bool {
        let waits = !self.records_heads && self.state.progress.defers_write();
        if waits {
            context.waker().wake_by_ref();
        }
        waits
    }

    fn record_write<R>(&self, poll: Poll<R>) -> Poll<R> {
        match poll {
            Poll::Pending => self.state.progress.write_blocked(),
            Poll::Ready(_) => self.state.progress.write_advanced(),
        }
        poll
    }
}

impl AsyncRead for ProgressIo {
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
        } else if self.records_heads {
            let bytes = buffer.filled().get(before..).unwrap_or_default();
            if self.state.is_busy() {
                self.scan_ahead(bytes);
            } else {
                self.state.progress.head_began();
                self.scan_head(bytes);
            }
        }
        poll
    }
}

impl AsyncWrite for ProgressIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.waits_for_streams(context) {
            return Poll::Pending;
        }
        let poll = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.record_write(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.waits_for_streams(context) {
            return Poll::Pending;
        }
        let poll = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.record_write(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(context);
        if poll.is_ready() {
            self.state.progress.flushed();
        }
        self.record_write(poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = if self.has_ended {
            // The socket is closed next, which ends the stream as a shutdown would.
            self.inner.get_mut().1.send_close_notify();
            Pin::new(&mut self.inner).poll_flush(context)
        } else {
            Pin::new(&mut self.inner).poll_shutdown(context)
        };
        self.is_shut |= poll.is_ready();
        poll
    }
}

//! One admitted connection, from its first request to its close.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, trace};

use crate::server::buffered::BufferedSocket;
use crate::server::http::access_log::seconds;
use crate::server::http::close_reason::CloseReason;
use crate::server::http::deadlines::Deadlines;
use crate::server::http::drive::{Driven, GracefulConnection, drive};
use crate::server::http::failure_log::FailureLog;
use crate::server::http::gate::Gate;
use crate::server::http::io::ProgressIo;
use crate::server::http::malformed::Malformed;
use crate::server::http::state::ConnectionState;
use crate::server::limits::Limits;
use crate::server::phase::Phase;
use crate::server::service::HttpService;
use crate::server::tls_stream::{self, TlsStream};

/// The size of an HTTP/1.1 buffer, unless a head may be larger. hyper keeps several pieces of this
/// size for each connection, so that a larger one would cost megabytes.
const BUFFER_SIZE: usize = 64 << 10;

/// hyper's own limit on header lines. With another one it allocates for every request.
const DEFAULT_MAX_HEADERS: usize = 100;

/// Serves HTTP on a connection, in the version that ALPN selected, until it closes.
pub(in crate::server) async fn serve<S: HttpService>(
    tls: TlsStream,
    service: Arc<S>,
    state: Arc<ConnectionState>,
    limits: &Limits,
    failures: &FailureLog,
) {
    let is_h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let mut io = TokioIo::new(ProgressIo::new(tls, Arc::clone(&state), !is_h2));
    let mut phase = state.phase.clone();
    // A drain that had begun before is no signal: the first request gets a response.
    phase.mark_unchanged();
    let (driven, unparsed) = match is_h2 {
        true => {
            let gate = Gate::new(service, Arc::clone(&state));
            let mut connection = Box::pin(h2_builder(limits).serve_connection(&mut io, gate));
            let deadlines = Deadlines { state: &state, limits, park_from: None };
            (drive(connection.as_mut(), &mut phase, deadlines).await, Bytes::new())
        }
        false => serve_h1(&mut io, service, &state, &mut phase, limits).await,
    };
    let (reason, error) = match driven {
        Driven::Closed(reason) => (reason, None),
        Driven::Failed(error) => {
            debug!(peer = %state.peer, %error, "connection_failed");
            (CloseReason::from(&error), Some(error))
        }
        // Only an HTTP/1.1 connection parks, and goes on from there.
        Driven::Parked => (CloseReason::Idle, None),
    };
    state.meters.connection_closed(reason);
    if let Some(error) = &error
        && let Some(malformed) = Malformed::from_hyper(error, &unparsed, state.max_headers)
    {
        failures.malformed(&state, malformed, error);
    }
    drop(unparsed);
    let is_failed = reason == CloseReason::Failed;
    info!(
        peer = state.peer_text(),
        certificate = state.fingerprint(),
        reason = reason.as_str(),
        error = error.filter(|_| is_failed).and_then(|error| failures.cause(&error)),
        requests = state.requests(),
        duration = seconds(state.began().elapsed()),
        "connection_closed"
    );
    let io = io.into_inner();
    if io.is_closed() || *state.phase.borrow() == Phase::Aborting {
        return;
    }
    let unread = state.unread_body(reason).filter(|_| !io.has_ended());
    let tls = io.into_inner();
    let closing = async {
        match unread {
            Some(limit) => tls_stream::close_within_body(tls, limit).await,
            None => tls_stream::close(tls, reason.leaves_request_unread()).await,
        }
    };
    // Boxed, so that the future of a connection is smaller.
    Box::pin(async {
        tokio::select! {
            () = closing => {}
            _ = phase.wait_for(|phase| *phase == Phase::Aborting) => {}
        }
    })
    .await;
}

fn h2_builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.max_head_size).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.max_streams)
        .max_pending_accept_reset_streams(limits.max_resets)
        .max_local_error_reset_streams(limits.max_stream_errors);
    builder
}

fn h1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The deadlines count a head's time from its first byte, which hyper does not.
    builder
        .header_read_timeout(None)
        .max_header_size(limits.max_head_size)
        .max_buf_size(BUFFER_SIZE.max(limits.max_head_size));
    if limits.max_headers != DEFAULT_MAX_HEADERS {
        builder.max_headers(limits.max_headers);
    }
    builder
}

/// Serves HTTP/1.1. hyper keeps several times the memory of TLS for a connection, so that an idle
/// one parks: it drops hyper's state until the next byte arrives. What hyper has read and not parsed
/// is returned for the log.
async fn serve_h1<S: HttpService>(
    io: &mut TokioIo<ProgressIo>,
    service: Arc<S>,
    state: &Arc<ConnectionState>,
    phase: &mut watch::Receiver<Phase>,
    limits: &Limits,
) -> (Driven, Bytes) {
    let builder = h1_builder(limits);
    loop {
        let unread = {
            let gate = Gate::new(Arc::clone(&service), Arc::clone(state));
            let mut connection = Box::new(builder.serve_connection(&mut *io, gate));
            let deadlines = Deadlines { state, limits, park_from: Some(Instant::now()) };
            match drive(Pin::new(connection.as_mut()), phase, deadlines).await {
                Driven::Parked => connection.into_parts().read_buf,
                driven @ Driven::Failed(_) => return (driven, connection.into_parts().read_buf),
                driven => return (driven, Bytes::new()),
            }
        };
        trace!(peer = %state.peer, unread = unread.len(), "at_rest");
        if !unread.is_empty() {
            io.inner_mut().put_back(unread);
            continue;
        }
        // Even an empty one holds hyper's buffer.
        drop(unread);
        let socket = io.inner().get_ref().get_ref().0;
        let mut parked = Parked { socket, is_closing: false };
        let deadlines = Deadlines { state, limits, park_from: None };
        match drive(Pin::new(&mut parked), phase, deadlines).await {
            Driven::Closed(CloseReason::Done) => {}
            driven => return (driven, Bytes::new()),
        }
    }
}

impl<I, S> GracefulConnection for http1::Connection<I, Gate<S>>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: HttpService,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        http1::Connection::graceful_shutdown(self);
    }
}

impl<I, S> GracefulConnection for http2::Connection<I, Gate<S>, TokioExecutor>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: HttpService,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        http2::Connection::graceful_shutdown(self);
    }
}

/// A connection of which only TLS is kept. It completes when bytes arrive.
struct Parked<'a> {
    socket: &'a BufferedSocket,
    is_closing: bool,
}

impl Future for Parked<'_> {
    type Output = hyper::Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.is_closing {
            true => Poll::Ready(Ok(())),
            false => self.socket.poll_read_ready(context).map(Ok),
        }
    }
}

impl GracefulConnection for Parked<'_> {
    fn graceful_shutdown(mut self: Pin<&mut Self>) {
        self.is_closing = true;
    }
}

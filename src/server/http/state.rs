//! The state that the requests of one connection share with the task that drives it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Response, header};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::problem::DiscardLimit;
use crate::reload::Admission;
use crate::server::http::close_reason::CloseReason;
use crate::server::http::flush::Flushes;
use crate::server::http::progress::Progress;
use crate::server::limits::Limits;
use crate::server::meters::Meters;
use crate::server::phase::Phase;
use crate::server::tls_stream::DISCARD_LIMIT;

/// The address of the client that a request came from, in the request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// The state of one admitted connection.
#[derive(Debug)]
pub(in crate::server) struct ConnectionState {
    pub(super) admission: Admission,
    pub(super) peer: SocketAddr,
    pub(super) phase: watch::Receiver<Phase>,
    /// Notified when the last request of the connection has its response, in the lame-duck phase,
    /// and when a flush is requested.
    pub(super) wake: Notify,
    has_last_response: AtomicBool,
    pub(super) meters: Arc<Meters>,
    pub(super) max_streams: u32,
    pub(super) max_headers: usize,
    pub(super) progress: Progress,
    pub(super) flushes: Flushes,
    began: Instant,
    requests: AtomicU64,
    in_flight: AtomicU32,
    /// When the last request ended, in milliseconds since `began`; 0 before the first.
    idle_since: AtomicU64,
    /// The bytes of the newest request's body to discard if its response ends the connection; 0 if
    /// it has none. HTTP/1.1 only.
    discard_limit: AtomicU64,
    /// True if that response has `Connection: close`.
    is_closing: AtomicBool,
    /// The number of the first request whose target has a fragment, which hyper drops.
    fragment_from: AtomicU64,
    /// The fingerprint and the peer as text, which every line of the access log carries.
    texts: OnceLock<(String, String)>,
}

impl ConnectionState {
    pub(in crate::server) fn new(
        admission: Admission,
        peer: SocketAddr,
        phase: watch::Receiver<Phase>,
        meters: Arc<Meters>,
        limits: &Limits,
    ) -> Self {
        meters.opened();
        Self {
            admission,
            peer,
            phase,
            wake: Notify::new(),
            has_last_response: AtomicBool::new(false),
            meters,
            max_streams: limits.max_streams,
            max_headers: limits.max_headers,
            progress: Progress::new(),
            flushes: Flushes::default(),
            began: Instant::now(),
            requests: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            discard_limit: AtomicU64::new(0),
            is_closing: AtomicBool::new(false),
            fragment_from: AtomicU64::new(u64::MAX),
            texts: OnceLock::new(),
        }
    }

    /// The number of requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The fingerprint of the client's certificate.
    pub(super) fn fingerprint(&self) -> &str {
        &self.texts().0
    }

    pub(super) fn peer_text(&self) -> &str {
        &self.texts().1
    }

    fn texts(&self) -> &(String, String) {
        let fingerprint = || self.admission.identity().fingerprint();
        self.texts.get_or_init(|| (fingerprint().to_string(), self.peer.to_string()))
    }

    /// True if no signal is pending for this connection. The removal of its certificate does not
    /// count if it `knows_of_certificate`. A signal makes this false before it wakes the
    /// connection.
    pub(super) fn has_no_pending_signal(&self, knows_of_certificate: bool) -> bool {
        (knows_of_certificate || !self.admission.is_removed())
            && matches!(self.phase.has_changed(), Ok(false))
            && !self.has_last_response()
            && !self.flushes.is_pending()
    }

    /// True once the last request of the connection has its response, in the lame-duck phase.
    pub(super) fn has_last_response(&self) -> bool {
        self.has_last_response.load(Ordering::Acquire)
    }

    /// Has the connection write all that is queued, and waits for that.
    pub(super) async fn flush(&self) {
        let number = self.flushes.request();
        self.wake.notify_one();
        self.flushes.wait(number).await;
    }

    /// Counts a request as in flight; returns how many are now.
    pub(super) fn request_began(&self) -> u32 {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub(super) fn request_ended(&self, now: Instant) {
        let since_began = (now - self.began).as_millis();
        let idle_since = u64::try_from(since_began).unwrap_or(u64::MAX).max(1);
        self.idle_since.store(idle_since, Ordering::Release);
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    /// Records whether a request of HTTP/1.1 has a body.
    pub(super) fn body_began(&self, has_body: bool) {
        self.discard_limit.store(if has_body { DISCARD_LIMIT } else { 0 }, Ordering::Relaxed);
    }

    /// Records whether a response closes the connection, and how much unread body to discard.
    pub(super) fn responded<B>(&self, response: &Response<B>) {
        if self.discard_limit.load(Ordering::Relaxed) == 0 {
            return;
        }
        if let Some(DiscardLimit(limit)) = response.extensions().get() {
            self.discard_limit.store(*limit, Ordering::Relaxed);
        }
        let close = response.headers().get(header::CONNECTION);
        self.is_closing.store(close.is_some_and(|value| value == "close"), Ordering::Relaxed);
    }

    /// How much of a request body may be unread when the connection closes for this reason.
    pub(super) fn unread_body(&self, reason: CloseReason) -> Option<u64> {
        let limit = self.discard_limit.load(Ordering::Relaxed);
        // hyper ends a connection by itself after a response to a request that was not read.
        let has_ended_early =
            reason == CloseReason::Done || self.is_closing.load(Ordering::Relaxed);
        (limit > 0 && has_ended_early).then_some(limit)
    }

    /// True if the newest request has a body, in HTTP/1.1.
    pub(super) fn has_body(&self) -> bool {
        self.discard_limit.load(Ordering::Relaxed) > 0
    }

    /// Records that the target of this request, counted from 0, has a fragment.
    pub(super) fn set_target_fragment(&self, request: u64) {
        self.fragment_from.fetch_min(request, Ordering::Relaxed);
    }

    /// True if the target of the newest request has a fragment, or one before it had.
    pub(super) fn has_target_fragment(&self) -> bool {
        self.requests() > self.fragment_from.load(Ordering::Relaxed)
    }

    /// Closes the connection after the response that is ready now.
    pub(super) fn signal_last_response(&self) {
        self.has_last_response.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// True if a request is in flight.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    /// When the client last read something of any response, if every request in flight waits for
    /// it to read.
    pub(super) fn unread_since(&self) -> Option<Instant> {
        self.progress.unread_since(self.in_flight.load(Ordering::Acquire))
    }

    /// True before the first request.
    pub(super) fn awaits_first_request(&self) -> bool {
        !self.is_busy() && self.idle_since.load(Ordering::Acquire) == 0
    }

    /// Since when no request is in flight; `None` if one is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let since = Duration::from_millis(self.idle_since.load(Ordering::Acquire));
        (!self.is_busy()).then(|| self.began + since)
    }

    /// When the connection was admitted.
    pub(super) fn began(&self) -> Instant {
        self.began
    }
}

impl Drop for ConnectionState {
    fn drop(&mut self) {
        self.meters.closed();
    }
}

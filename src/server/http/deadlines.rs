//! When a connection must close or park if nothing moves.

use std::time::Duration;

use tokio::time::Instant;

use crate::server::http::close_reason::CloseReason;
use crate::server::http::state::ConnectionState;
use crate::server::limits::Limits;
use crate::server::phase::{FIRST_REQUEST_GRACE, Phase};

/// The delay after `notAfter` with which a connection closes by itself. A reload closes it earlier,
/// unless the clock was set.
const EXPIRY_GRACE: Duration = Duration::from_secs(1);

/// How long a connection is idle before it parks.
const PARK_DELAY: Duration = Duration::from_millis(500);

/// Longer than any connection lives.
pub(super) const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What happens at a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Close(CloseReason),
    /// The connection gives up its HTTP buffers and stays open.
    Park,
}

/// The deadlines of one connection.
#[derive(Debug)]
pub(super) struct Deadlines<'a> {
    pub(super) state: &'a ConnectionState,
    pub(super) limits: &'a Limits,
    /// The earliest time to park; `None` if the connection does not park.
    pub(super) park_from: Option<Instant>,
}

impl Deadlines<'_> {
    /// The first of all deadlines.
    pub(super) fn next(&self) -> (Instant, Due) {
        let Self { state, limits, .. } = self;
        let now = Instant::now();
        let is_stopping = *state.phase.borrow() >= Phase::Draining;
        let idle_timeout = if is_stopping { FIRST_REQUEST_GRACE } else { limits.idle_timeout };
        // While a request is in flight, this is when the connection can first be idle too long.
        let idle = state.idle_since().unwrap_or(now) + idle_timeout;
        let left = state.admission.time_left().map_or(Duration::ZERO, |left| left + EXPIRY_GRACE);
        let expiry = now + left.min(NEVER);
        let age = state.began() + limits.max_connection_age.unwrap_or(NEVER);
        let idle = (idle, Due::Close(CloseReason::Idle));
        let expiry = (expiry, Due::Close(CloseReason::CertificateExpired));
        let age = (age, Due::Close(CloseReason::Aged));
        let others = [expiry, age].into_iter().chain(self.next_for_progress());
        // At equal times, the earlier entry wins.
        others.fold(idle, |first, other| if other.0 < first.0 { other } else { first })
    }

    /// The first of the deadlines that progress postpones.
    pub(super) fn next_for_progress(&self) -> Option<(Instant, Due)> {
        let Self { state, limits, .. } = self;
        let head = state.progress.head_since();
        let head = head.map(|since| (since + limits.head_timeout, CloseReason::SlowHead));
        let write = state.progress.write_since();
        let write = write.map(|since| (since + limits.write_timeout, CloseReason::SlowReader));
        if head.is_none() && write.is_none() && !state.is_busy() {
            let since = self.park_from.zip(state.idle_since());
            return since.map(|(from, since)| (from.max(since) + PARK_DELAY, Due::Park));
        }
        let first = head.into_iter().chain(write).chain(self.next_read_check());
        first.min_by_key(|(at, _)| *at).map(|(at, reason)| (at, Due::Close(reason)))
    }

    /// When to check whether the client reads. HTTP/2 responses have tasks of their own, which do
    /// not wake the connection's when the client stops them.
    fn next_read_check(&self) -> Option<(Instant, CloseReason)> {
        let since = || self.state.unread_since().unwrap_or_else(Instant::now);
        let is_busy = self.state.is_busy();
        is_busy.then(|| (since() + self.limits.write_timeout, CloseReason::SlowReader))
    }
}

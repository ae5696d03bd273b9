//! The counters of all connections. The metric handles are fetched once, so that counting costs an
//! addition and no lookup.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use rustls::HandshakeKind;

use crate::server::http::close_reason::CloseReason;
use crate::server::http::malformed::Malformed;
use crate::trust::Reason;

/// The status codes that have a series of their own. The others share one, so that a service cannot
/// create more.
const FIRST_STATUS: u16 = 100;
const STATUSES: usize = 500;

#[derive(Debug, Default)]
struct LazyCounter {
    count: AtomicU64,
    metric: OnceLock<Counter>,
}

impl LazyCounter {
    fn add(&self, metric: impl FnOnce() -> Counter) {
        self.count.fetch_add(1, Relaxed);
        self.metric.get_or_init(metric).increment(1);
    }
}

/// The counters of a server.
#[derive(Debug)]
pub(super) struct Meters {
    accepted: LazyCounter,
    rejected: [LazyCounter; Reason::ALL.len()],
    resumed: Counter,
    full: Counter,
    resumption_refused: Counter,
    handshake_duration: Histogram,
    connections: Gauge,
    closed: [Counter; CloseReason::ALL.len()],
    aborted: Counter,
    streams_exhausted: Counter,
    accept_failures: Counter,
    panics: Counter,
    handshakes_delayed: Counter,
    malformed: [Counter; Malformed::ALL.len()],
    statuses: Box<[OnceLock<Counter>]>,
    other_status: OnceLock<Counter>,
    request_duration: Histogram,
}

/// The number of handshakes by their result.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handshakes {
    /// How many clients were accepted.
    pub accepted: u64,
    /// How many were rejected, for each reason.
    pub rejected: Vec<(Reason, u64)>,
}

impl Meters {
    pub(super) fn new() -> Self {
        describe();
        let resumptions = |result| counter!("portcullis_resumptions_total", "result" => result);
        let meters = Self {
            accepted: LazyCounter::default(),
            rejected: Default::default(),
            resumed: resumptions("resumed"),
            full: resumptions("full"),
            resumption_refused: resumptions("refused"),
            handshake_duration: histogram!("portcullis_handshake_duration_seconds"),
            connections: gauge!("portcullis_connections"),
            closed: CloseReason::ALL
                .map(CloseReason::as_str)
                .map(|reason| counter!("portcullis_connections_ended_total", "reason" => reason)),
            aborted: counter!("portcullis_connections_cut_total"),
            streams_exhausted: counter!("portcullis_streams_exhausted_total"),
            accept_failures: counter!("portcullis_accept_failures_total"),
            panics: counter!("portcullis_service_panics_total"),
            handshakes_delayed: counter!("portcullis_handshakes_delayed_total"),
            malformed: Malformed::ALL
                .map(Malformed::as_str)
                .map(|reason| counter!("portcullis_requests_malformed_total", "reason" => reason)),
            statuses: (0..STATUSES).map(|_| OnceLock::new()).collect(),
            other_status: OnceLock::new(),
            request_duration: histogram!("portcullis_request_duration_seconds"),
        };
        // Each series begins at zero, so that its first event is seen as an increase.
        meters.connections.set(0.0);
        let rejected = meters.rejected.iter().zip(Reason::ALL.map(Reason::as_str));
        for (counter, result) in rejected.chain([(&meters.accepted, ACCEPTED)]) {
            counter.metric.get_or_init(|| handshakes(result)).absolute(0);
        }
        meters
    }

    pub(super) fn rejected(&self, reason: Reason) {
        if let Some(counter) = self.rejected.get(reason as usize) {
            counter.add(|| handshakes(reason.as_str()));
        }
    }

    pub(super) fn accepted(&self, duration: Duration) {
        self.accepted.add(|| handshakes(ACCEPTED));
        self.handshake_duration.record(duration);
    }

    /// Counts a handshake as full or resumed, and a resumed one as refused if the client's
    /// certificate is no longer accepted.
    pub(super) fn resumption(&self, kind: Option<HandshakeKind>, is_accepted: bool) {
        match (kind, is_accepted) {
            (Some(HandshakeKind::Resumed), true) => self.resumed.increment(1),
            (Some(HandshakeKind::Resumed), false) => self.resumption_refused.increment(1),
            _ => self.full.increment(1),
        }
    }

    pub(super) fn opened(&self) {
        self.connections.increment(1.0);
    }

    pub(super) fn closed(&self) {
        self.connections.decrement(1.0);
    }

    /// Counts why an admitted connection closed.
    pub(super) fn connection_closed(&self, reason: CloseReason) {
        if let Some(counter) = self.closed.get(reason as usize) {
            counter.increment(1);
        }
    }

    /// Counts a connection that did not finish within the drain timeout.
    pub(super) fn connection_aborted(&self) {
        self.aborted.increment(1);
    }

    /// Counts that an HTTP/2 connection has reached its limit of requests in flight.
    pub(super) fn streams_exhausted(&self) {
        self.streams_exhausted.increment(1);
    }

    pub(super) fn accept_failed(&self) {
        self.accept_failures.increment(1);
    }

    /// Counts that a handshake has to wait for others.
    pub(super) fn handshake_delayed(&self) {
        self.handshakes_delayed.increment(1);
    }

    pub(super) fn service_panicked(&self) {
        self.panics.increment(1);
    }

    pub(super) fn responded(&self, status: StatusCode) {
        let index = usize::from(status.as_u16().saturating_sub(FIRST_STATUS));
        match self.statuses.get(index) {
            Some(counter) => counter.get_or_init(|| requests(status.as_str())).increment(1),
            None => self.other_status.get_or_init(|| requests("other")).increment(1),
        }
    }

    /// Counts a request that did not reach the service.
    pub(super) fn request_malformed(&self, reason: Malformed) {
        if let Some(counter) = self.malformed.get(reason as usize) {
            counter.increment(1);
        }
    }

    pub(super) fn request_took(&self, duration: Duration) {
        self.request_duration.record(duration);
    }

    pub(super) fn handshakes(&self) -> Handshakes {
        let rejected = Reason::ALL.into_iter().zip(&self.rejected);
        let count = |(reason, counter): (_, &LazyCounter)| (reason, counter.count.load(Relaxed));
        Handshakes {
            accepted: self.accepted.count.load(Relaxed),
            rejected: rejected.map(count).collect(),
        }
    }
}

const ACCEPTED: &str = "accepted";

fn handshakes(result: &'static str) -> Counter {
    counter!("portcullis_handshakes_total", "result" => result)
}

fn requests(status: &str) -> Counter {
    counter!("portcullis_requests_total", "status" => status.to_owned())
}

fn describe() {
    describe_counter!(
        "portcullis_handshakes_total",
        "Handshakes by result: accepted, or why the client was rejected."
    );
    describe_histogram!(
        "portcullis_handshake_duration_seconds",
        Unit::Seconds,
        "Duration of the handshakes of accepted clients, from the first byte."
    );
    describe_gauge!("portcullis_connections", "Admitted connections that are open.");
    describe_counter!(
        "portcullis_connections_ended_total",
        "Admitted connections that have closed, by reason."
    );
    describe_counter!(
        "portcullis_connections_cut_total",
        "Connections that were aborted with a request in flight at the end of the drain timeout."
    );
    describe_counter!(
        "portcullis_streams_exhausted_total",
        "Times that an HTTP/2 connection reached its limit of requests in flight."
    );
    describe_counter!(
        "portcullis_accept_failures_total",
        "Failed attempts to accept a connection, for want of descriptors or memory."
    );
    describe_counter!(
        "portcullis_handshakes_delayed_total",
        "Times that a handshake waited because enough others were computing."
    );
    describe_counter!(
        "portcullis_service_panics_total",
        "Requests whose handler in the application panicked."
    );
    describe_counter!(
        "portcullis_requests_malformed_total",
        "Requests refused before the application as malformed or not allowed, by reason."
    );
    describe_counter!("portcullis_requests_total", "Requests by the status of their response.");
    describe_histogram!(
        "portcullis_request_duration_seconds",
        Unit::Seconds,
        "Duration of requests, from their head to the end of their response."
    );
    describe_counter!(
        "portcullis_resumptions_total",
        "Completed handshakes: full, resumed, or resumed and then refused."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rejection_reason_is_at_its_index() {
        let meters = Meters::new();
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at, "{reason}");
            meters.rejected(reason);
        }
        assert!(meters.handshakes().rejected.iter().all(|(_, count)| *count == 1));
    }

    #[test]
    fn unknown_status_creates_no_series_of_its_own() {
        let meters = Meters::new();
        for status in [100, 200, 599, 600, 999] {
            meters.responded(StatusCode::from_u16(status).unwrap());
        }
        let created = meters.statuses.iter().filter(|counter| counter.get().is_some()).count();
        assert_eq!(created, 3);
        assert!(meters.other_status.get().is_some());
    }
}

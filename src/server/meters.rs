//! What is counted of all connections together. The handles of the metrics recorder are taken
//! once, so that counting costs an addition and looks nothing up.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use rustls::HandshakeKind;

use crate::server::http::connection::Ended;
use crate::server::snapshot::{ServerCertificate, TrustedCertificate};
use crate::trust::{Reason, Urgency, unix_time};

/// The status codes that have a series of their own; the others share one, so that no service can
/// make them many.
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

/// What is counted.
#[derive(Debug)]
pub(super) struct Meters {
    accepted: LazyCounter,
    refused: [LazyCounter; Reason::ALL.len()],
    resumed: Counter,
    full: Counter,
    resumption_refused: Counter,
    handshake_duration: Histogram,
    connections: Gauge,
    /// Beside each of [`Ended::NAMES`].
    ended: [Counter; Ended::NAMES.len()],
    cut: Counter,
    streams_exhausted: Counter,
    accept_failures: Counter,
    panics: Counter,
    handshakes_delayed: Counter,
    /// Since it was last asked.
    most_open: AtomicUsize,
    statuses: Box<[OnceLock<Counter>]>,
    other_status: OnceLock<Counter>,
    request_duration: Histogram,
}

/// How many handshakes came to what.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handshakes {
    /// How many connections were let in.
    pub accepted: u64,
    /// How many were refused, for each reason there is.
    pub refused: Vec<(Reason, u64)>,
}

impl Meters {
    pub(super) fn new() -> Self {
        describe();
        let resumptions = |result| counter!("portcullis_resumptions_total", "result" => result);
        let meters = Self {
            accepted: LazyCounter::default(),
            refused: Default::default(),
            resumed: resumptions("resumed"),
            full: resumptions("full"),
            resumption_refused: resumptions("refused"),
            handshake_duration: histogram!("portcullis_handshake_duration_seconds"),
            connections: gauge!("portcullis_connections"),
            ended: Ended::NAMES
                .map(|reason| counter!("portcullis_connections_ended_total", "reason" => reason)),
            cut: counter!("portcullis_connections_cut_total"),
            streams_exhausted: counter!("portcullis_streams_exhausted_total"),
            accept_failures: counter!("portcullis_accept_failures_total"),
            panics: counter!("portcullis_service_panics_total"),
            handshakes_delayed: counter!("portcullis_handshakes_delayed_total"),
            most_open: AtomicUsize::new(0),
            statuses: (0..STATUSES).map(|_| OnceLock::new()).collect(),
            other_status: OnceLock::new(),
            request_duration: histogram!("portcullis_request_duration_seconds"),
        };
        // Each series begins at zero, so that the first of its kind is seen as an increase.
        meters.connections.set(0.0);
        let tallies = meters.refused.iter().zip(Reason::ALL.map(Reason::as_str));
        for (tally, result) in tallies.chain([(&meters.accepted, ACCEPTED)]) {
            tally.metric.get_or_init(|| handshakes(result)).absolute(0);
        }
        meters
    }

    pub(super) fn refused(&self, reason: Reason) {
        if let Some(tally) = self.refused.get(reason as usize) {
            tally.add(|| handshakes(reason.as_str()));
        }
    }

    pub(super) fn accepted(&self, took: Duration) {
        self.accepted.add(|| handshakes(ACCEPTED));
        self.handshake_duration.record(took);
    }

    /// Counts whether a session was resumed, and whether that got it in.
    pub(super) fn resumption(&self, kind: Option<HandshakeKind>, is_in: bool) {
        match (kind, is_in) {
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

    /// Counts why a connection that was let in has ended.
    pub(super) fn ended(&self, reason: &str) {
        let named = Ended::NAMES.iter().zip(&self.ended).find(|(name, _)| **name == reason);
        if let Some((_, counter)) = named {
            counter.increment(1);
        }
    }

    /// Counts a connection that did not finish within the drain time.
    pub(super) fn cut(&self) {
        self.cut.increment(1);
    }

    /// Counts that an HTTP/2 connection has as many requests in flight as it may.
    pub(super) fn streams_exhausted(&self) {
        self.streams_exhausted.increment(1);
    }

    pub(super) fn accept_failed(&self) {
        self.accept_failures.increment(1);
    }

    /// Counts that a handshake has to wait for its turn.
    pub(super) fn handshake_delayed(&self) {
        self.handshakes_delayed.increment(1);
    }

    /// Notes that about so many connections are open.
    pub(super) fn open(&self, number: usize) {
        self.most_open.fetch_max(number, Relaxed);
    }

    /// How many were open at most since this was last asked.
    pub(super) fn take_peak_open(&self) -> usize {
        self.most_open.swap(0, Relaxed)
    }

    pub(super) fn panicked(&self) {
        self.panics.increment(1);
    }

    pub(super) fn answered(&self, status: StatusCode) {
        let index = usize::from(status.as_u16().saturating_sub(FIRST_STATUS));
        match self.statuses.get(index) {
            Some(counter) => counter.get_or_init(|| requests(status.as_str())).increment(1),
            None => self.other_status.get_or_init(|| requests("other")).increment(1),
        }
    }

    pub(super) fn request_took(&self, took: Duration) {
        self.request_duration.record(took);
    }

    pub(super) fn handshakes(&self) -> Handshakes {
        let refused = Reason::ALL.into_iter().zip(&self.refused);
        Handshakes {
            accepted: self.accepted.count.load(Relaxed),
            refused: refused.map(|(why, tally)| (why, tally.count.load(Relaxed))).collect(),
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
        "Handshakes by result: accepted, or why the client was refused."
    );
    describe_histogram!(
        "portcullis_handshake_duration_seconds",
        Unit::Seconds,
        "How long handshakes took whose client was let in, from its first byte on."
    );
    describe_gauge!("portcullis_connections", "Connections that are let in now.");
    describe_counter!(
        "portcullis_connections_ended_total",
        "Connections that were let in and have ended, by what ended them."
    );
    describe_counter!(
        "portcullis_connections_cut_total",
        "Connections that were ended with a request in flight, at the end of the drain time."
    );
    describe_counter!(
        "portcullis_streams_exhausted_total",
        "Times that an HTTP/2 connection came to have as many requests in flight as it may."
    );
    describe_counter!(
        "portcullis_accept_failures_total",
        "Attempts to accept a connection for which the machine had no room."
    );
    describe_counter!(
        "portcullis_handshakes_delayed_total",
        "Times that a handshake waited because as many others were computed as may be."
    );
    describe_counter!(
        "portcullis_service_panics_total",
        "Requests at which the application panicked."
    );
    describe_counter!("portcullis_requests_total", "Requests by the status of their answer.");
    describe_histogram!(
        "portcullis_request_duration_seconds",
        Unit::Seconds,
        "How long requests took, from their head to the end of their answer."
    );
    describe_counter!(
        "portcullis_resumptions_total",
        "Handshakes that were done: full, resumed, or resumed and refused after all."
    );
}

/// Reports each certificate to the current recorder. A certificate that one file holds in both roles
/// is one series.
pub(super) fn report_certificates(trusted: &[TrustedCertificate], server: &ServerCertificate) {
    describe_certificates();
    gauge!("portcullis_server_certificate_urgency").set(server.assessment.urgency as u8);
    let mut series = BTreeMap::<_, (f64, [u64; 4])>::new();
    let mut urgencies = BTreeMap::<_, Urgency>::new();
    for certificate in trusted {
        let key = (certificate.fingerprint, &certificate.file);
        let urgency = urgencies.entry(key).or_insert(Urgency::None);
        *urgency = certificate.assessment.urgency.max(*urgency);
    }
    for certificate in trusted {
        let usage = certificate.usage;
        let key = (certificate.fingerprint, &certificate.file);
        let (end, sums) = series.entry(key).or_default();
        *end = float(unix_time(certificate.not_after).as_secs());
        let seen = usage.last_seen.map_or(0, |at| unix_time(at).as_secs());
        let [handshakes, requests, connections, last_seen] = *sums;
        *sums = [
            handshakes + usage.handshakes,
            requests + usage.requests,
            connections + usage.connections,
            last_seen.max(seen),
        ];
    }
    for ((fingerprint, file), (end, [handshakes, requests, connections, last_seen])) in series {
        let labels =
            [("fingerprint", fingerprint.to_string()), ("file", file.display().to_string())];
        gauge!("portcullis_client_certificate_expiration_timestamp_seconds", &labels).set(end);
        counter!("portcullis_client_certificate_handshakes_total", &labels).absolute(handshakes);
        counter!("portcullis_client_certificate_requests_total", &labels).absolute(requests);
        gauge!("portcullis_client_certificate_connections", &labels).set(float(connections));
        gauge!("portcullis_client_certificate_last_seen_timestamp_seconds", &labels)
            .set(float(last_seen));
    }
    for ((fingerprint, file), urgency) in urgencies {
        let labels =
            [("fingerprint", fingerprint.to_string()), ("file", file.display().to_string())];
        gauge!("portcullis_client_certificate_urgency", &labels).set(urgency as u8);
    }
}

#[expect(clippy::cast_precision_loss, reason = "nothing here comes near 2^53")]
fn float(number: u64) -> f64 {
    number as f64
}

fn describe_certificates() {
    describe_gauge!(
        "portcullis_client_certificate_urgency",
        "How soon an operator has to act on a trusted certificate: 0 not at all, 1 soon, 2 now."
    );
    describe_gauge!(
        "portcullis_server_certificate_urgency",
        "How soon an operator has to act on the server certificate: 0 not at all, 1 soon, 2 now."
    );
    describe_gauge!(
        "portcullis_client_certificate_expiration_timestamp_seconds",
        "When a trusted certificate ends."
    );
    describe_counter!(
        "portcullis_client_certificate_handshakes_total",
        "Connections that were let in by a trusted certificate since it was loaded."
    );
    describe_counter!(
        "portcullis_client_certificate_requests_total",
        "Requests that came by them."
    );
    describe_gauge!(
        "portcullis_client_certificate_connections",
        "Connections that a trusted certificate has let in and that are open."
    );
    describe_gauge!(
        "portcullis_client_certificate_last_seen_timestamp_seconds",
        "When a trusted certificate was last used since it was loaded; 0 for never."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_place() {
        let meters = Meters::new();
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at, "{reason}");
            meters.refused(reason);
        }
        assert!(meters.handshakes().refused.iter().all(|(_, count)| *count == 1));
    }

    #[test]
    fn a_status_that_nobody_has_heard_of_makes_no_series_of_its_own() {
        let meters = Meters::new();
        for status in [100, 200, 599, 600, 999] {
            meters.answered(StatusCode::from_u16(status).unwrap());
        }
        let made = meters.statuses.iter().filter(|counter| counter.get().is_some()).count();
        assert_eq!(made, 3);
        assert!(meters.other_status.get().is_some());
    }
}

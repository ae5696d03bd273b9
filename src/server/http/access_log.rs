//! The record of one request, which becomes a line of the access log and a duration in the metrics
//! once its response is sent or given up.

use std::time::Duration;

use http::{Method, Request, StatusCode};
use tokio::time::Instant;
use tracing::{Level, enabled, info};

use crate::request_context::RequestContext;
use crate::server::http::state::ConnectionState;

/// The target of the access log's lines.
const TARGET: &str = "portcullis::access";

/// One request, from its head to the end of its response.
#[derive(Debug)]
pub(super) struct RequestRecord {
    began: Instant,
    /// `None` where the access log is off.
    entry: Option<Entry>,
}

#[derive(Debug)]
struct Entry {
    context: RequestContext,
    status: Option<StatusCode>,
    bytes: u64,
    is_complete: bool,
}

impl RequestRecord {
    /// Where the access log is on, stores the context with the request, so that the lines of the
    /// service have its number too.
    pub(super) fn new<B>(request: &mut Request<B>) -> Self {
        let entry = enabled!(target: TARGET, Level::INFO).then(|| {
            let context = RequestContext::new(request);
            context.store(request.extensions_mut());
            Entry { context, status: None, bytes: 0, is_complete: false }
        });
        Self { began: Instant::now(), entry }
    }

    /// Records that the response begins.
    pub(super) fn response_began(&mut self, status: StatusCode, has_body: bool) {
        if let Some(entry) = &mut self.entry {
            entry.status = Some(status);
            // hyper sends no body in response to HEAD, and polls none.
            entry.is_complete = !has_body || *entry.context.method() == Method::HEAD;
        }
    }

    /// Records that bytes of the body were handed over, and whether they were the last.
    pub(super) fn body_sent(&mut self, bytes: usize, is_last: bool) {
        if let Some(entry) = &mut self.entry {
            entry.bytes += bytes as u64;
            entry.is_complete |= is_last;
        }
    }

    /// Records the duration and logs the line.
    pub(super) fn finish(&self, state: &ConnectionState, now: Instant) {
        let duration = now - self.began;
        state.meters.request_took(duration);
        let Some(entry) = &self.entry else { return };
        info!(
            target: TARGET,
            // As a field it is recorded as text; a format string would be formatted, at a cost.
            message = "request",
            method = entry.context.method().as_str(),
            path = entry.context.path(),
            status = entry.status.map(|status| status.as_u16()),
            bytes = entry.bytes,
            duration = seconds(duration),
            certificate = state.fingerprint(),
            peer = state.peer_text(),
            request_id = %entry.context.id(),
            api_id = entry.context.api_id(),
            trace_id = entry.context.trace_id(),
            traceparent = entry.context.traceparent(),
            cut_off = (!entry.is_complete).then_some(true),
        );
    }
}

/// For a log line, to the microsecond: more digits are noise and take long to write.
pub(super) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e6
}

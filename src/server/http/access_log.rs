//! What is told of each request once its answer has been sent or given up: a line in the access
//! log, and how long it took.

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::Instant;
use tracing::{Level, enabled, info};

use crate::request_context::RequestContext;
use crate::server::http::gate::Shared;

/// Where the lines of the access log are sent.
const TARGET: &str = "portcullis::access";

/// One request, from its head to the end of its answer.
#[derive(Debug)]
pub(in crate::server) struct Account {
    began: Instant,
    /// `None` where no access log is kept.
    line: Option<Line>,
}

#[derive(Debug)]
struct Line {
    context: RequestContext,
    status: Option<StatusCode>,
    bytes: u64,
    is_whole: bool,
}

impl Account {
    pub(in crate::server) fn open(context: RequestContext) -> Self {
        let is_kept = enabled!(target: TARGET, Level::INFO);
        let line = is_kept.then_some(Line { context, status: None, bytes: 0, is_whole: false });
        Self { began: Instant::now(), line }
    }

    /// The answer begins. `has_body` says that something is to follow.
    pub(in crate::server) fn answered(&mut self, status: StatusCode, has_body: bool) {
        if let Some(line) = &mut self.line {
            line.status = Some(status);
            // Of what may have no body, none is asked for.
            line.is_whole = !has_body || *line.context.method() == Method::HEAD;
        }
    }

    /// So much of its body was handed over. `is_last` says that nothing follows.
    pub(in crate::server) fn sent(&mut self, bytes: usize, is_last: bool) {
        if let Some(line) = &mut self.line {
            line.bytes += bytes as u64;
            line.is_whole |= is_last;
        }
    }

    /// Says the line, and counts how long it took.
    pub(in crate::server) fn close(&self, shared: &Shared, now: Instant) {
        let took = now - self.began;
        shared.meters.request_took(took);
        let Some(line) = &self.line else { return };
        info!(
            target: TARGET,
            // As text it is cheaper than as what is yet to be formatted.
            message = "request",
            method = line.context.method().as_str(),
            path = line.context.path(),
            status = line.status.map(|status| status.as_u16()),
            bytes = line.bytes,
            duration = seconds(took),
            certificate = shared.fingerprint(),
            peer = shared.peer_text(),
            request_id = %line.context.id(),
            api_id = line.context.api_id(),
            trace_id = line.context.trace_id(),
            traceparent = line.context.traceparent(),
            cut_off = (!line.is_whole).then_some(true),
        );
    }
}

/// For a log line, to the microsecond: what is below is noise, and takes long to write.
pub(in crate::server) fn seconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e6
}

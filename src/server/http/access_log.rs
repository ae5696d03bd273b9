//! What is told of each request once its answer has been sent or given up: a line in the access
//! log, and how long it took.

use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use tokio::time::Instant;
use tracing::{Level, enabled, info};

use crate::server::http::gate::Shared;

/// Where the lines of the access log are sent.
const TARGET: &str = "portcullis::access";

pub(super) const API_ID: HeaderName = HeaderName::from_static("x-amzn-apigateway-api-id");
const TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");

/// So much is written of a path,
const LONGEST_PATH: usize = 1024;
/// and of a header that names the API or the trace.
const LONGEST_ID: usize = 256;

/// One request, from its head to the end of its answer.
#[derive(Debug)]
pub(in crate::server) struct Account {
    began: Instant,
    /// What the request said of itself; `None` where no access log is kept.
    line: Option<Box<Line>>,
}

#[derive(Debug)]
struct Line {
    method: Method,
    path: Option<PathAndQuery>,
    api_id: Option<HeaderValue>,
    trace_id: Option<HeaderValue>,
    status: Option<StatusCode>,
    bytes: u64,
    is_whole: bool,
}

impl Account {
    pub(in crate::server) fn open<B>(request: &Request<B>) -> Self {
        let is_kept = enabled!(target: TARGET, Level::INFO);
        let line = is_kept.then(|| {
            Box::new(Line {
                method: request.method().clone(),
                path: request.uri().path_and_query().cloned(),
                api_id: request.headers().get(API_ID).cloned(),
                trace_id: request.headers().get(TRACE_ID).cloned(),
                status: None,
                bytes: 0,
                is_whole: false,
            })
        });
        Self { began: Instant::now(), line }
    }

    /// The answer begins. `has_body` says that something is to follow.
    pub(in crate::server) fn answered(&mut self, status: StatusCode, has_body: bool) {
        if let Some(line) = &mut self.line {
            line.status = Some(status);
            // Of what may have no body, none is asked for.
            line.is_whole = !has_body || line.method == Method::HEAD;
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
            method = line.method.as_str(),
            path = line.path.as_ref().map_or("", |path| cut(path.path(), LONGEST_PATH)),
            status = line.status.map(|status| status.as_u16()),
            bytes = line.bytes,
            duration = seconds(took),
            certificate = shared.fingerprint(),
            peer = shared.peer_text(),
            api_id = text(line.api_id.as_ref()),
            trace_id = text(line.trace_id.as_ref()),
            cut_off = (!line.is_whole).then_some(true),
        );
    }
}

/// For a log line, to the microsecond: what is below is noise, and takes long to write.
pub(in crate::server) fn seconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e6
}

/// What a client may have written, where it prints, up to a bound.
fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value.and_then(|value| value.to_str().ok()).map(|text| cut(text, LONGEST_ID))
}

fn cut(text: &str, longest: usize) -> &str {
    let mut end = longest.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}

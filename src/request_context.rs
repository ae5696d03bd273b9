//! What identifies a request in a log line, a refusal and a problem response.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, request};

pub(crate) const API_ID: HeaderName = HeaderName::from_static("x-amzn-apigateway-api-id");
const TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The most bytes of a path and of an id that are logged.
const LONGEST_PATH: usize = 1024;
const LONGEST_ID: usize = 256;

/// The number of a request: in its access log line, in the log line of a failure, in a problem
/// response and in that response's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(u64);

impl RequestId {
    /// A number that is unique in this process and that no client can predict.
    pub(crate) fn new() -> Self {
        static SEED: OnceLock<RandomState> = OnceLock::new();
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(SEED.get_or_init(RandomState::new).hash_one(number))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The correlation ids of a request, with its method and path. Cloning is cheap: the service and
/// the access log share one.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: RequestId,
    method: Method,
    path: Option<PathAndQuery>,
    api_id: Option<HeaderValue>,
    trace_id: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
}

impl RequestContext {
    /// The context that the gate stored with a request; a new one where no gate is in front, or
    /// where it logs no requests.
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let known = request.extensions().get();
        known.cloned().unwrap_or_else(|| Self::new(request))
    }

    /// The same for the head of a request.
    pub(crate) fn of_head(head: &request::Parts) -> Self {
        let known = head.extensions.get().cloned();
        known.unwrap_or_else(|| Self::from(&head.method, &head.uri, &head.headers))
    }

    /// Gives a request its number.
    pub(crate) fn new<B>(request: &Request<B>) -> Self {
        Self::from(request.method(), request.uri(), request.headers())
    }

    fn from(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        Self(Arc::new(Inner {
            id: RequestId::new(),
            method: method.clone(),
            path: uri.path_and_query().cloned(),
            api_id: headers.get(API_ID).cloned(),
            trace_id: headers.get(TRACE_ID).cloned(),
            traceparent: headers.get(TRACEPARENT).cloned(),
        }))
    }

    /// Stores this with a request, for the service behind.
    pub(crate) fn store(&self, extensions: &mut Extensions) {
        extensions.insert(self.clone());
    }

    pub(crate) fn id(&self) -> RequestId {
        self.0.id
    }

    pub(crate) fn method(&self) -> &Method {
        &self.0.method
    }

    /// The path without its query, which may hold secrets.
    pub(crate) fn path(&self) -> &str {
        self.0.path.as_ref().map_or("", |path| truncated(path.path(), LONGEST_PATH))
    }

    /// The id of the API that API Gateway wrote.
    pub(crate) fn api_id(&self) -> Option<&str> {
        text(self.0.api_id.as_ref())
    }

    /// `X-Amzn-Trace-Id`.
    pub(crate) fn trace_id(&self) -> Option<&str> {
        text(self.0.trace_id.as_ref())
    }

    /// `traceparent` of W3C Trace Context. A request without one gets none.
    pub(crate) fn traceparent(&self) -> Option<&str> {
        text(self.0.traceparent.as_ref())
    }
}

/// Logs an event with the correlation ids of a request: `log_request!(info, context, "event", …)`.
macro_rules! log_request {
    ($level:ident, $context:expr, $event:literal, $($fields:tt)*) => {{
        let context: &$crate::request_context::RequestContext = $context;
        tracing::$level!(
            $($fields)*,
            request_id = %context.id(),
            method = context.method().as_str(),
            path = context.path(),
            api_id = context.api_id(),
            trace_id = context.trace_id(),
            traceparent = context.traceparent(),
            $event
        )
    }};
}
pub(crate) use log_request;

/// A header of the client's, where it is printable.
fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value.and_then(|value| value.to_str().ok()).map(|text| truncated(text, LONGEST_ID))
}

fn truncated(text: &str, longest: usize) -> &str {
    let mut end = longest.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}

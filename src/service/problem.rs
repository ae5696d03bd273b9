//! Answers that say what went wrong: `application/problem+json` (RFC 9457).

use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use pin_project_lite::pin_project;

/// What an answer that reports a failure is called by, in the answer, in its extensions and in the
/// log. It tells nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(u64);

impl RequestId {
    /// One that nothing else has, and that nobody can guess another one from.
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

/// The answer to a request that fails. `detail` is for whoever asked: it is fixed text, and nothing
/// internal.
pub(crate) fn answer(
    status: StatusCode,
    detail: &'static str,
    id: RequestId,
) -> Response<Full<Bytes>> {
    let title = status.canonical_reason().unwrap_or("Error");
    let number = status.as_u16();
    let json = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{number},"detail":"{detail}","request_id":"{id}"}}"#
    );
    let mut response = Response::new(Full::from(json + "\n"));
    *response.status_mut() = status;
    response.extensions_mut().insert(id);
    let json = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    response
}

/// [`answer`], and it keeps what was not read of the request's body until it has been sent: an
/// HTTP/2 stream whose body is dropped before that is reset, and its answer lost. An HTTP/1.1
/// connection ends after it if there was a body.
pub(crate) fn refuse<B: Body>(
    status: StatusCode,
    detail: &'static str,
    id: RequestId,
    version: Version,
    unread: B,
) -> Response<ProblemBody<B>> {
    let mut response = answer(status, detail, id);
    if !unread.is_end_stream() {
        close(&mut response, version);
    }
    response.map(|text| ProblemBody { text, unread: Some(unread) })
}

/// Ends an HTTP/1.1 connection after this answer.
pub(crate) fn close<B>(response: &mut Response<B>, version: Version) {
    if version < Version::HTTP_2 {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
}

pin_project! {
    /// The text of an answer that reports a failure.
    #[derive(Debug)]
    pub struct ProblemBody<B> {
        #[pin]
        text: Full<Bytes>,
        unread: Option<B>,
    }
}

impl<B> Body for ProblemBody<B> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.project().text.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.text.size_hint()
    }
}

//! Responses of the gate, the services and the extractors that report a failure:
//! `application/problem+json` (RFC 9457).
//!
//! A refused HTTP/2 request whose body is still being sent gets HEADERS, DATA with END_STREAM, then
//! RST_STREAM with NO_ERROR, as RFC 9113 section 8.1 has it; DATA that arrives later is ignored and
//! returned to the flow control of the connection. A client must not discard the response for that
//! reset. curl 7.88 does: it tries to send on, finds the stream closed and exits with 92 ("Stream
//! error in the HTTP/2 framing layer"), unless it happens to read the response first. With HTTP/1.1
//! it gets the response, as other HTTP/2 clients do.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use pin_project_lite::pin_project;

use crate::request_context::RequestContext;

/// The response to a request that fails. `detail` is fixed text for the client and reveals nothing
/// internal.
pub(crate) fn response(
    status: StatusCode,
    detail: &'static str,
    context: &RequestContext,
) -> Response<Full<Bytes>> {
    let title = status.canonical_reason().unwrap_or("Error");
    let (number, id) = (status.as_u16(), context.id());
    let mut json = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{number},"detail":"{detail}","request_id":"{id}""#
    );
    push_member(&mut json, "api_id", context.api_id());
    push_member(&mut json, "trace_id", context.trace_id());
    push_member(&mut json, "traceparent", context.traceparent());
    json.push_str("}\n");
    let mut response = Response::new(Full::from(json));
    *response.status_mut() = status;
    response.extensions_mut().insert(id);
    let json = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    response
}

/// Appends an id that the client sent. It is printable ASCII, or a tab.
fn push_member(json: &mut String, name: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    let _ = write!(json, r#","{name}":""#);
    for character in value.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            '\t' => json.push_str("\\t"),
            _ => json.push(character),
        }
    }
    json.push('"');
}

/// A [`response`] that keeps the unread request body until it has been sent.
pub(crate) fn refuse<B: Body>(
    status: StatusCode,
    detail: &'static str,
    context: &RequestContext,
    version: Version,
    unread: B,
) -> Response<ProblemBody<B>> {
    let mut response = response(status, detail, context);
    if !unread.is_end_stream() {
        close(&mut response, version);
    }
    response.map(|text| KeepUnread { inner: text, unread: Some(unread) })
}

/// How many bytes of an unread request body are discarded after a response that closes its
/// connection, in the response's extensions: a client that still sends would lose the response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiscardLimit(pub(crate) u64);

/// Closes an HTTP/1.1 connection after this response.
pub(crate) fn close<B>(response: &mut Response<B>, version: Version) {
    if version < Version::HTTP_2 {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
}

/// The body of a [`refuse`]d request's response.
pub(crate) type ProblemBody<B> = KeepUnread<Full<Bytes>, B>;

pin_project! {
    /// A response body that keeps the unread body of its request until the response has been sent:
    /// h2 resets a stream whose request body is dropped earlier, and the response is lost.
    #[derive(Debug)]
    pub struct KeepUnread<T, B> {
        #[pin]
        inner: T,
        unread: Option<B>,
    }
}

impl<T, B> KeepUnread<T, B> {
    pub(crate) fn new(inner: T, unread: Option<B>) -> Self {
        Self { inner, unread }
    }
}

impl<T: Body<Error = Infallible>, B> Body for KeepUnread<T, B> {
    type Data = T::Data;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<T::Data>, Infallible>>> {
        self.project().inner.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn problem_is_json_whatever_ids_the_client_sent() {
        let request = Request::get("/")
            .header("x-amzn-apigateway-api-id", "a\"b\\c\td")
            .header("x-amzn-trace-id", "\u{e9}")
            .body(())
            .unwrap();
        let context = RequestContext::new(&request);
        let response = response(StatusCode::BAD_GATEWAY, "It failed.", &context);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["api_id"], "a\"b\\c\td");
        assert_eq!(json["request_id"], context.id().to_string());
        let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(!keys.contains(&"trace_id") && !keys.contains(&"traceparent"), "{keys:?}");
    }
}

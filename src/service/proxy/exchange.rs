//! One request to the application and the head of its response.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header, request};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep_until};

use crate::service::headers::HeaderRules;
use crate::service::proxy::failure::{MAX_HEAD, ProxyError};
use crate::service::proxy::pool::{Slot, UpstreamConnection};
use crate::service::proxy::request::Target;
use crate::service::proxy::state::UpstreamState;
use crate::service::proxy::upload::{Upload, UploadError};
use crate::service::proxy::upstream::Upstream;
use crate::{ClientIdentity, PeerAddr};

/// A request to the application.
pub(super) struct Outgoing<'a> {
    /// As received.
    pub(super) head: &'a request::Parts,
    pub(super) target: Target,
    pub(super) client: &'a ClientIdentity,
    pub(super) upload: &'a Upload,
    pub(super) rules: &'a HeaderRules,
}

impl Outgoing<'_> {
    /// The request as the application gets it.
    fn request(&self, upstream: &Upstream) -> Request<Upload> {
        let peer = self.head.extensions.get::<PeerAddr>().map(|peer| peer.0.ip());
        let mut headers = self.rules.for_application(self.head, self.client, peer);
        if !headers.contains_key(header::HOST) {
            let host = self.target.host.clone().unwrap_or_else(|| upstream.host());
            headers.insert(header::HOST, host);
        }
        self.frame(&mut headers);
        let mut request = Request::new(self.upload.clone());
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.target.uri.clone();
        *request.headers_mut() = headers;
        request
    }

    /// Frames the body explicitly: hyper sends no body of unknown length with a GET.
    fn frame(&self, headers: &mut HeaderMap) {
        if self.upload.is_empty() {
            if self.head.headers.contains_key(header::CONTENT_LENGTH) {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
        } else if let Some(length) = self.upload.size_hint().exact() {
            headers.insert(header::CONTENT_LENGTH, length.into());
        } else {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }

    /// True if it is safe to send the request twice.
    fn is_repeatable(&self) -> bool {
        self.head.method.is_idempotent() && self.upload.is_empty()
    }
}

/// The deadlines of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    pub(super) connect: Duration,
    /// To the head of the response, from the start or the last progress of the body.
    pub(super) response: Duration,
    /// For each pause within the body.
    pub(super) body: Duration,
}

/// A response whose body is still to be read from a connection that the reader drives.
pub(super) struct UpstreamResponse {
    pub(super) response: Response<Incoming>,
    pub(super) connection: Box<UpstreamConnection>,
}

/// Sends a request and waits for the head of its response.
pub(super) async fn exchange(
    state: &UpstreamState,
    upstream: &Upstream,
    slot: &Slot,
    outgoing: &Outgoing<'_>,
    deadlines: Deadlines,
    began: Instant,
) -> Result<UpstreamResponse, ProxyError> {
    // A repeatable request needs no check: it is sent again if the connection is closed.
    let idle = slot.idle(!outgoing.is_repeatable());
    let is_reused = idle.is_some();
    let connection = match idle {
        Some(connection) => connection,
        // Boxed because it is rare: the future of a request without it is smaller.
        None => Box::pin(connect(state, upstream, deadlines)).await?,
    };
    let lost = match send(connection, upstream, outgoing, deadlines, began).await {
        Ok(response) => return Ok(response),
        Err(lost) => lost,
    };
    // RFC 9110 section 9.2.2. A new connection cannot be closed for idleness.
    let is_repeatable = match lost.sent {
        Sent::Responded => false,
        Sent::Nothing => true,
        Sent::Something => is_reused && outgoing.head.method.is_idempotent(),
    };
    let has_body_begun = outgoing.upload.progress().frames > 0;
    if !is_repeatable || has_body_begun || !matches!(lost.failure, ProxyError::Closed(_)) {
        return Err(lost.failure);
    }
    tracing::debug!(reason = %lost.failure, "request_sent_again");
    let connection = Box::pin(connect(state, upstream, deadlines)).await?;
    send(connection, upstream, outgoing, deadlines, began).await.map_err(|lost| lost.failure)
}

async fn connect(
    state: &UpstreamState,
    upstream: &Upstream,
    deadlines: Deadlines,
) -> Result<Box<UpstreamConnection>, ProxyError> {
    let connected = upstream.connect(deadlines.connect).await;
    state.record(connected.is_ok());
    let stream = connected?;
    UpstreamConnection::new(stream).await.map_err(ProxyError::Closed)
}

/// A request that got no response.
struct Lost {
    failure: ProxyError,
    sent: Sent,
}

/// How far a request without a response got, as seen on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// Nothing was written: the connection was closed before.
    Nothing,
    /// Something was written, and nothing was read.
    Something,
    /// Something was written, and something was read.
    Responded,
}

async fn send(
    mut connection: Box<UpstreamConnection>,
    upstream: &Upstream,
    outgoing: &Outgoing<'_>,
    deadlines: Deadlines,
    began: Instant,
) -> Result<UpstreamResponse, Lost> {
    connection.traffic.reset();
    // The connection is driven in this task, so the response needs no waker of its own, and
    // yielding to the runtime's budget would lose a wake-up.
    let sending = connection.sender.try_send_request(outgoing.request(upstream));
    let mut response = pin!(unconstrained(sending));
    let mut deadline = pin!(sleep_until(began + deadlines.response));
    let mut frames = 0;
    let outcome = poll_fn(|context| {
        connection.drive(context);
        let mut quiet = Context::from_waker(Waker::noop());
        if let Poll::Ready(response) = response.as_mut().poll(&mut quiet) {
            return Poll::Ready(Ok(response));
        }
        if !outgoing.upload.is_empty() {
            let progress = outgoing.upload.progress();
            if progress.frames > frames {
                frames = progress.frames;
                deadline.as_mut().reset(Instant::now() + deadlines.response);
            }
        }
        deadline.as_mut().poll(context).map(Err)
    });
    let failure = match outcome.await {
        Ok(Ok(response)) => match check(response, connection.traffic.read()) {
            Ok(response) => return Ok(UpstreamResponse { response, connection }),
            Err(failure) => failure,
        },
        Ok(Err(error)) => {
            let read = connection.traffic.read();
            classify(error.into_error(), outgoing.upload.progress().error, read)
        }
        Err(()) if outgoing.upload.progress().is_awaited => ProxyError::BodyTimeout,
        Err(()) => ProxyError::ResponseTimeout,
    };
    // What was read before anything was written, such as a 408 to an idle connection, is no
    // response.
    let sent = match (connection.traffic.has_written(), connection.traffic.read() > 0) {
        (false, _) => Sent::Nothing,
        (true, false) => Sent::Something,
        (true, true) => Sent::Responded,
    };
    Err(Lost { failure, sent })
}

/// The cause of a failed request. `read` is how many bytes of the response had arrived.
fn classify(error: hyper::Error, upload: Option<UploadError>, read: usize) -> ProxyError {
    match upload {
        Some(error) => error.into(),
        None if error.is_parse_too_large() && read < MAX_HEAD => ProxyError::TooManyHeaders,
        None if error.is_parse_too_large() => ProxyError::HeadTooLarge,
        None if error.is_parse() => ProxyError::BadResponse(Some(error)),
        None => ProxyError::Closed(error),
    }
}

/// The size of a response's head, without its first line.
fn head_size<B>(response: &Response<B>) -> usize {
    let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    response.headers().iter().map(line).sum()
}

/// Refuses responses that cannot be passed on. `read` is how many bytes have arrived.
fn check(response: Response<Incoming>, read: usize) -> Result<Response<Incoming>, ProxyError> {
    // hyper's limit is on its buffer, which may hold twice as much.
    if read > MAX_HEAD && head_size(&response) > MAX_HEAD {
        return Err(ProxyError::HeadTooLarge);
    }
    let mut encodings = response.headers().get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    let is_framed = encodings.next().is_none_or(is_chunked) && encodings.next().is_none();
    // No request asked to switch protocols.
    let is_http = response.status() != StatusCode::SWITCHING_PROTOCOLS;
    if is_framed && is_http { Ok(response) } else { Err(ProxyError::BadResponse(None)) }
}

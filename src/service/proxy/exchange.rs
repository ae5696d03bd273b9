//! One request to the application and the head of its answer.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, request};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep_until};

use crate::service::headers::HeaderRules;
use crate::service::proxy::failure::ProxyError;
use crate::service::proxy::pool::{Slot, UpstreamConnection};
use crate::service::proxy::request::Target;
use crate::service::proxy::upload::{Fault, Upload};
use crate::service::proxy::upstream::Upstream;
use crate::{ClientIdentity, PeerAddr};

/// A request on its way to the application.
pub(super) struct Outgoing<'a> {
    /// As it came.
    pub(super) head: &'a request::Parts,
    pub(super) target: Target,
    pub(super) client: &'a ClientIdentity,
    pub(super) upload: &'a Upload,
    pub(super) rules: &'a HeaderRules,
}

impl Outgoing<'_> {
    /// As the application gets it. Made anew where it is sent again, which is rare.
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

    /// Says in the headers how long the body is. hyper would send no body of unknown length with a
    /// GET.
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

    /// Whether it may be sent again if it is not known what became of it.
    fn is_repeatable(&self) -> bool {
        self.head.method.is_idempotent() && self.upload.is_empty()
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    pub(super) connect: Duration,
    /// To the head of the answer, from the beginning or from when a body last went on.
    pub(super) answer: Duration,
    /// In which something of a body must come.
    pub(super) body: Duration,
}

/// An answer whose body is still to come, by a connection that somebody must drive.
pub(super) struct UpstreamResponse {
    pub(super) response: Response<Incoming>,
    pub(super) link: Box<UpstreamConnection>,
}

/// Sends a request and waits for the head of its answer.
pub(super) async fn exchange(
    upstream: &Upstream,
    slot: &Slot,
    outgoing: &Outgoing<'_>,
    patience: Deadlines,
    began: Instant,
) -> Result<UpstreamResponse, ProxyError> {
    let idle = slot.idle(!outgoing.is_repeatable());
    let is_reused = idle.is_some();
    let link = match idle {
        Some(link) => link,
        // On the heap, for it is rare, and a request without it is smaller.
        None => Box::pin(connect(upstream, patience)).await?,
    };
    let lost = match send(link, upstream, outgoing, patience, began).await {
        Ok(answer) => return Ok(answer),
        Err(lost) => lost,
    };
    // RFC 9110 section 9.2.2. On a connection that is new, so that it is not lost in the same way.
    let may_repeat = match lost.trace {
        Trace::Answered => false,
        Trace::Unwritten => true,
        Trace::Written => is_reused && outgoing.head.method.is_idempotent(),
    };
    let has_body_begun = outgoing.upload.progress().frames > 0;
    if !may_repeat || has_body_begun || !matches!(lost.failure, ProxyError::Closed(_)) {
        return Err(lost.failure);
    }
    tracing::debug!(reason = %lost.failure, "request_sent_again");
    let link = Box::pin(connect(upstream, patience)).await?;
    send(link, upstream, outgoing, patience, began).await.map_err(|lost| lost.failure)
}

async fn connect(
    upstream: &Upstream,
    patience: Deadlines,
) -> Result<Box<UpstreamConnection>, ProxyError> {
    let stream = upstream.connect(patience.connect).await?;
    UpstreamConnection::new(stream).await.map_err(ProxyError::Closed)
}

/// A request that got no answer.
struct Lost {
    failure: ProxyError,
    trace: Trace,
}

/// What of a request that got no answer can be seen on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trace {
    /// Nothing of it went out.
    Unwritten,
    /// Something went out, and nothing came.
    Written,
    /// Something came.
    Answered,
}

async fn send(
    mut link: Box<UpstreamConnection>,
    upstream: &Upstream,
    outgoing: &Outgoing<'_>,
    patience: Deadlines,
    began: Instant,
) -> Result<UpstreamResponse, Lost> {
    link.seen.forget();
    // What it waits for comes from the connection that is driven here, in this very task. It needs
    // neither a waker of its own nor to yield: both would only cost, or lose a wake-up.
    let mut answer = pin!(unconstrained(link.sender.try_send_request(outgoing.request(upstream))));
    let mut alarm = pin!(sleep_until(began + patience.answer));
    let mut frames = 0;
    let answered = poll_fn(|context| {
        link.drive(context);
        if let Poll::Ready(answer) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Poll::Ready(Ok(answer));
        }
        if !outgoing.upload.is_empty() {
            let progress = outgoing.upload.progress();
            if progress.frames > frames {
                frames = progress.frames;
                alarm.as_mut().reset(Instant::now() + patience.answer);
            }
        }
        alarm.as_mut().poll(context).map(Err)
    });
    let failure = match answered.await {
        Ok(Ok(response)) => match check(response) {
            Ok(response) => return Ok(UpstreamResponse { response, link }),
            Err(failure) => failure,
        },
        Ok(Err(error)) => classify(error.into_error(), outgoing.upload.progress().fault),
        Err(()) if outgoing.upload.progress().is_awaited => ProxyError::BodyTimeout,
        Err(()) => ProxyError::ResponseTimeout,
    };
    let trace = match (link.seen.read(), link.seen.written()) {
        (true, _) => Trace::Answered,
        (false, true) => Trace::Written,
        (false, false) => Trace::Unwritten,
    };
    Err(Lost { failure, trace })
}

fn classify(error: hyper::Error, fault: Option<Fault>) -> ProxyError {
    match fault {
        Some(fault) => fault.into(),
        None if error.is_parse() => ProxyError::BadResponse(Some(error)),
        None => ProxyError::Closed(error),
    }
}

/// Refuses answers that cannot be passed on.
fn check(response: Response<Incoming>) -> Result<Response<Incoming>, ProxyError> {
    let mut encodings = response.headers().get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    let is_framed = encodings.next().is_none_or(is_chunked) && encodings.next().is_none();
    // Nobody has asked to speak another protocol.
    let is_http = response.status() != StatusCode::SWITCHING_PROTOCOLS;
    if is_framed && is_http { Ok(response) } else { Err(ProxyError::BadResponse(None)) }
}

//! What each request goes through on its way to the service: is this identity still in?

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use pin_project_lite::pin_project;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::error;

use crate::reload::Admission;
use crate::request_context::RequestContext;
use crate::server::http::access_log::Account;
use crate::server::http::progress::Progress;
use crate::server::meters::Meters;
use crate::server::{Limits, Phase};

/// The address of the peer of the connection that a request came by, in the request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// What the requests of one connection and the task that owns it know together.
#[derive(Debug)]
pub(in crate::server) struct Shared {
    pub(in crate::server) admission: Admission,
    pub(in crate::server) peer: SocketAddr,
    pub(in crate::server) phase: watch::Receiver<Phase>,
    /// Notified when a request was answered in the lame-duck phase: the last of its connection.
    pub(in crate::server) answered_last: Notify,
    has_answered_last: AtomicBool,
    pub(in crate::server) meters: Arc<Meters>,
    max_streams: u32,
    max_headers: usize,
    requests: AtomicU64,
    pub(in crate::server) progress: Progress,
    began: Instant,
    in_flight: AtomicU32,
    /// Since when nothing is in flight, in milliseconds since `began`.
    idle_since: AtomicU64,
    /// For the access log, whose lines all carry them.
    texts: OnceLock<(String, String)>,
}

impl Shared {
    pub(in crate::server) fn new(
        admission: Admission,
        peer: SocketAddr,
        phase: watch::Receiver<Phase>,
        meters: Arc<Meters>,
        limits: &Limits,
    ) -> Self {
        meters.opened();
        Self {
            meters,
            max_streams: limits.max_streams,
            max_headers: limits.max_headers,
            requests: AtomicU64::new(0),
            texts: OnceLock::new(),
            admission,
            peer,
            phase,
            answered_last: Notify::new(),
            has_answered_last: AtomicBool::new(false),
            progress: Progress::new(),
            began: Instant::now(),
            in_flight: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
        }
    }

    /// How many requests came by it.
    pub(in crate::server) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The fingerprint of its client's certificate.
    pub(in crate::server) fn fingerprint(&self) -> &str {
        &self.texts().0
    }

    pub(in crate::server) fn peer_text(&self) -> &str {
        &self.texts().1
    }

    fn texts(&self) -> &(String, String) {
        let fingerprint = || self.admission.identity().fingerprint();
        self.texts.get_or_init(|| (fingerprint().to_string(), self.peer.to_string()))
    }

    /// Whether there is no word for the connection, or only that its certificate was taken away,
    /// which it knows. Who gives word makes this false before.
    pub(in crate::server) fn has_no_pending_signal(&self, knows_of_certificate: bool) -> bool {
        (knows_of_certificate || !self.admission.is_removed())
            && matches!(self.phase.has_changed(), Ok(false))
            && !self.has_answered_last.load(Ordering::Acquire)
    }

    /// Whether a request is in flight.
    pub(in crate::server) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    /// Since when the client has taken nothing of any answer, where it is waited for with all that
    /// is in flight.
    pub(in crate::server) fn unread_since(&self) -> Option<Instant> {
        self.progress.unread_since(self.in_flight.load(Ordering::Acquire))
    }

    /// Whether no request has come yet.
    pub(in crate::server) fn is_unasked(&self) -> bool {
        !self.is_busy() && self.idle_since.load(Ordering::Acquire) == 0
    }

    /// Since when nothing has been in flight; `None` where something is.
    pub(in crate::server) fn idle_since(&self) -> Option<Instant> {
        let since = Duration::from_millis(self.idle_since.load(Ordering::Acquire));
        (!self.is_busy()).then(|| self.began + since)
    }

    /// When the connection was let in.
    pub(in crate::server) fn began(&self) -> Instant {
        self.began
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.meters.closed();
    }
}

/// A request that is in flight until its answer has been sent or given up.
#[derive(Debug)]
struct InFlight {
    shared: Arc<Shared>,
    account: Account,
    /// Whether it is the client that is waited for.
    is_offered: bool,
}

impl InFlight {
    fn new<B>(shared: &Arc<Shared>, request: &Request<B>, context: RequestContext) -> Self {
        shared.requests.fetch_add(1, Ordering::Relaxed);
        let others = shared.in_flight.fetch_add(1, Ordering::AcqRel);
        if others + 1 == shared.max_streams && request.version() == Version::HTTP_2 {
            shared.meters.streams_exhausted();
        }
        Self { shared: Arc::clone(shared), account: Account::open(context), is_offered: false }
    }

    /// Whether there is something of the answer for the client to take.
    fn offer(&mut self, is_offered: bool) {
        match (std::mem::replace(&mut self.is_offered, is_offered), is_offered) {
            (false, true) => self.shared.progress.offered(),
            (true, false) => self.shared.progress.exhausted(),
            (true, true) => self.shared.progress.taken(),
            (false, false) => {}
        }
    }

    /// Whether no request after this one will be answered on its connection; asked when its answer
    /// is there.
    fn is_last(&self) -> bool {
        let phase = *self.shared.phase.borrow();
        if phase != Phase::Serving {
            self.shared.has_answered_last.store(true, Ordering::Release);
            self.shared.answered_last.notify_one();
        }
        phase != Phase::Serving || !self.shared.admission.is_in()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let now = Instant::now();
        self.account.close(&self.shared, now);
        self.offer(false);
        let since_it_began = (now - self.shared.began).as_millis();
        let idle_since = u64::try_from(since_it_began).unwrap_or(u64::MAX).max(1);
        self.shared.idle_since.store(idle_since, Ordering::Release);
        self.shared.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The service of one connection.
pub(in crate::server) struct Gate<S> {
    service: Arc<S>,
    shared: Arc<Shared>,
}

impl<S> Gate<S> {
    pub(in crate::server) fn new(service: Arc<S>, shared: Arc<Shared>) -> Self {
        Self { service, shared }
    }
}

/// Why a request gets no answer.
#[derive(Debug)]
pub(in crate::server) enum NoResponse<E> {
    /// Its certificate is out.
    Out,
    /// The service failed.
    Service(E),
}

impl<E: fmt::Display> fmt::Display for NoResponse<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Out => write!(f, "the client's certificate is no longer trusted"),
            Self::Service(error) => write!(f, "the service failed: {error}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for NoResponse<E> {}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl<S, B> Service<Request<Incoming>> for Gate<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body,
{
    type Response = Response<GateBody<B>>;
    type Error = NoResponse<BoxError>;
    type Future = GateFuture<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let context = RequestContext::new(&request);
        if !self.shared.admission.admit_request(context.api_id_bytes()) {
            return GateFuture { inner: None, in_flight: None, version: request.version() };
        }
        context.store(request.extensions_mut());
        let in_flight = InFlight::new(&self.shared, &request, context);
        self.shared.progress.head_came();
        let extensions = request.extensions_mut();
        extensions.insert(self.shared.admission.identity().clone());
        extensions.insert(PeerAddr(self.shared.peer));
        let version = request.version();
        // HTTP/1.1 has been refused by now; in HTTP/2 nobody else counts them.
        if request.headers().len() > self.shared.max_headers {
            let inner = Inner::Unserved { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE };
            return GateFuture { inner: Some(inner), in_flight: Some(in_flight), version };
        }
        let inner = match catch_unwind(AssertUnwindSafe(|| self.service.call(request))) {
            Ok(future) => Inner::Running { future },
            Err(panic) => {
                log_panic(panic.as_ref(), &self.shared.meters);
                Inner::Unserved { status: StatusCode::INTERNAL_SERVER_ERROR }
            }
        };
        GateFuture { inner: Some(inner), in_flight: Some(in_flight), version }
    }
}

pin_project! {
    pub(in crate::server) struct GateFuture<F> {
        #[pin]
        inner: Option<Inner<F>>,
        in_flight: Option<InFlight>,
        version: Version,
    }
}

pin_project! {
    #[project = InnerProjection]
    enum Inner<F> {
        Running { #[pin] future: F },
        /// By the service: it is not asked, or has panicked.
        Unserved { status: StatusCode },
    }
}

impl<F, B, E> Future for GateFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
    E: Into<BoxError>,
{
    type Output = Result<Response<GateBody<B>>, NoResponse<BoxError>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = match this.inner.as_pin_mut().map(Inner::project) {
            None => return Poll::Ready(Err(NoResponse::Out)),
            Some(InnerProjection::Unserved { status }) => Err(*status),
            Some(InnerProjection::Running { future }) => {
                match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
                    Ok(poll) => Ok(ready!(poll)),
                    Err(panic) => {
                        if let Some(InFlight { shared, .. }) = this.in_flight {
                            log_panic(panic.as_ref(), &shared.meters);
                        }
                        Err(StatusCode::INTERNAL_SERVER_ERROR)
                    }
                }
            }
        };
        let mut in_flight = this.in_flight.take();
        let is_unserved = answer.is_err();
        let mut response = match answer {
            Ok(Ok(response)) => {
                response.map(|body| GateBody { inner: Some(body), in_flight: None })
            }
            Ok(Err(error)) => return Poll::Ready(Err(NoResponse::Service(error.into()))),
            Err(status) => {
                let mut response = Response::new(GateBody { inner: None, in_flight: None });
                *response.status_mut() = status;
                response
            }
        };
        if let Some(InFlight { shared, account, .. }) = &mut in_flight {
            shared.meters.answered(response.status());
            account.answered(response.status(), !response.body().is_end_stream());
        }
        // What of the request's body has been read nobody knows.
        let is_last = is_unserved || in_flight.as_ref().is_some_and(InFlight::is_last);
        if is_last && *this.version < Version::HTTP_2 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(in_flight) = &mut in_flight {
            in_flight.offer(true);
        }
        response.body_mut().in_flight = in_flight;
        Poll::Ready(Ok(response))
    }
}

fn log_panic(panic: &(dyn Any + Send), meters: &Meters) {
    meters.panicked();
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    error!(panic = text, "service_panicked");
}

pin_project! {
    /// The body of an answer, and that it is in flight.
    pub(in crate::server) struct GateBody<B> {
        #[pin]
        inner: Option<B>,
        in_flight: Option<InFlight>,
    }
}

impl<B: Body> Body for GateBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let Some(mut body) = this.inner.as_pin_mut() else { return Poll::Ready(None) };
        let poll = body.as_mut().poll_frame(context);
        if let Some(in_flight) = this.in_flight {
            // It is asked for more when the client has taken what it had.
            in_flight.offer(poll.is_ready());
            if let Poll::Ready(frame) = &poll {
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                let is_last = frame.is_none() || body.is_end_stream();
                in_flight.account.sent(data.map_or(0, Buf::remaining), is_last);
            }
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

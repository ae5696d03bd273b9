//! What each request goes through on its way to the service: is this identity still in?

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use pin_project_lite::pin_project;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::error;

use crate::reload::Admission;
use crate::server::Phase;
use crate::server::progress::Progress;

/// The address of the peer of the connection that a request came by, in the request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// What the requests of one connection and the task that owns it know together.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) admission: Admission,
    pub(super) peer: SocketAddr,
    pub(super) phase: watch::Receiver<Phase>,
    /// Notified when a request was answered in the lame-duck phase: the last of its connection.
    pub(super) answered_last: Notify,
    pub(super) progress: Progress,
    began: Instant,
    in_flight: AtomicU32,
    /// Since when nothing is in flight, in milliseconds since `began`.
    idle_since: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        admission: Admission,
        peer: SocketAddr,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        Self {
            admission,
            peer,
            phase,
            answered_last: Notify::new(),
            progress: Progress::new(),
            began: Instant::now(),
            in_flight: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
        }
    }

    /// Whether a request is in flight.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    /// Whether no request has come yet.
    pub(super) fn is_unasked(&self) -> bool {
        !self.is_busy() && self.idle_since.load(Ordering::Acquire) == 0
    }

    /// Since when nothing has been in flight; `None` where something is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let since = Duration::from_millis(self.idle_since.load(Ordering::Acquire));
        (!self.is_busy()).then(|| self.began + since)
    }

    /// When the connection was let in.
    pub(super) fn began(&self) -> Instant {
        self.began
    }
}

/// A request that is in flight until its answer has been sent or given up.
#[derive(Debug)]
struct InFlight(Arc<Shared>);

impl InFlight {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.in_flight.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(shared))
    }

    /// Whether no request after this one will be answered on its connection; asked when its answer
    /// is there.
    fn is_last(&self) -> bool {
        let phase = *self.0.phase.borrow();
        if phase != Phase::Serving {
            self.0.answered_last.notify_one();
        }
        phase != Phase::Serving || !self.0.admission.is_in()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.0.idle_since.store(now, Ordering::Release);
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The service of one connection.
pub(super) struct Gate<S> {
    service: Arc<S>,
    shared: Arc<Shared>,
}

impl<S> Gate<S> {
    pub(super) fn new(service: Arc<S>, shared: Arc<Shared>) -> Self {
        Self { service, shared }
    }
}

/// Why a request gets no answer.
#[derive(Debug)]
pub(super) enum Unanswered<E> {
    /// Its certificate is out.
    Out,
    /// The service failed.
    Service(E),
}

impl<E: fmt::Display> fmt::Display for Unanswered<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Out => write!(f, "the client's certificate is no longer trusted"),
            Self::Service(error) => write!(f, "the service failed: {error}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for Unanswered<E> {}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl<S, B> Service<Request<Incoming>> for Gate<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
{
    type Response = Response<GateBody<B>>;
    type Error = Unanswered<BoxError>;
    type Future = GateFuture<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if !self.shared.admission.is_in() {
            return GateFuture { inner: None, in_flight: None, version: request.version() };
        }
        self.shared.progress.head_came();
        let extensions = request.extensions_mut();
        extensions.insert(self.shared.admission.identity().clone());
        extensions.insert(PeerAddr(self.shared.peer));
        let in_flight = InFlight::new(&self.shared);
        let version = request.version();
        let inner = match catch_unwind(AssertUnwindSafe(|| self.service.call(request))) {
            Ok(future) => Inner::Running { future },
            Err(panic) => {
                say_panic(panic.as_ref());
                Inner::Panicked
            }
        };
        GateFuture { inner: Some(inner), in_flight: Some(in_flight), version }
    }
}

pin_project! {
    pub(super) struct GateFuture<F> {
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
        Panicked,
    }
}

impl<F, B, E> Future for GateFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<GateBody<B>>, Unanswered<BoxError>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = match this.inner.as_pin_mut().map(Inner::project) {
            None => return Poll::Ready(Err(Unanswered::Out)),
            Some(InnerProjection::Panicked) => None,
            Some(InnerProjection::Running { future }) => {
                match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
                    Ok(poll) => Some(ready!(poll)),
                    Err(panic) => {
                        say_panic(panic.as_ref());
                        None
                    }
                }
            }
        };
        let in_flight = this.in_flight.take();
        let has_panicked = answer.is_none();
        let mut response = match answer {
            Some(Ok(response)) => {
                response.map(|body| GateBody { inner: Some(body), in_flight: None })
            }
            Some(Err(error)) => return Poll::Ready(Err(Unanswered::Service(error.into()))),
            None => {
                let mut response = Response::new(GateBody { inner: None, in_flight: None });
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        };
        // What a service that panicked has read of the request's body nobody knows.
        let is_last = has_panicked || in_flight.as_ref().is_some_and(InFlight::is_last);
        if is_last && *this.version < Version::HTTP_2 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.body_mut().in_flight = in_flight;
        Poll::Ready(Ok(response))
    }
}

fn say_panic(panic: &(dyn Any + Send)) {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    error!(panic = text, "service_panicked");
}

pin_project! {
    /// The body of an answer, and that it is in flight.
    pub(super) struct GateBody<B> {
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
        match self.project().inner.as_pin_mut() {
            Some(body) => body.poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

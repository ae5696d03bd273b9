//! Checks each request before the service gets it: its certificate is still accepted, and it is
//! well formed.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use pin_project_lite::pin_project;
use tracing::error;

use crate::error::BoxError;
use crate::problem::{self, ProblemBody};
use crate::request_context::{API_ID, RequestContext, log_request};
use crate::server::http::in_flight::InFlight;
use crate::server::http::malformed::Malformed;
use crate::server::http::request_check::check;
use crate::server::http::response_body::GateBody;
use crate::server::http::state::{ConnectionState, PeerAddr};
use crate::server::meters::Meters;
use crate::server::service::HttpService;

/// The service of one connection.
pub(super) struct Gate<S> {
    service: Arc<S>,
    state: Arc<ConnectionState>,
}

impl<S> Gate<S> {
    pub(super) fn new(service: Arc<S>, state: Arc<ConnectionState>) -> Self {
        Self { service, state }
    }
}

/// Why a request gets no response.
#[derive(Debug)]
pub(super) enum NoResponse {
    /// Its certificate is no longer accepted.
    NotAccepted,
    /// The service failed.
    Service(BoxError),
}

impl fmt::Display for NoResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAccepted => write!(f, "the client's certificate is no longer trusted"),
            Self::Service(error) => write!(f, "the service failed: {error}"),
        }
    }
}

impl std::error::Error for NoResponse {}

impl<S> Gate<S> {
    /// Refuses a request that no service should see.
    fn check(&self, request: &Request<Incoming>) -> Result<(), Malformed> {
        // hyper enforces this limit in HTTP/1.1 only.
        if request.headers().len() > self.state.max_headers {
            return Err(Malformed::TooManyHeaders);
        }
        if self.state.has_target_fragment() {
            return Err(Malformed::BadTarget);
        }
        check(request)
    }
}

impl<S: HttpService> Service<Request<Incoming>> for Gate<S> {
    type Response = Response<GateBody<S::ResponseBody>>;
    type Error = NoResponse;
    type Future = GateFuture<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let version = request.version();
        let api_id = request.headers().get(API_ID).map(HeaderValue::as_bytes);
        if !self.state.admission.admit_request(api_id) {
            return GateFuture { inner: None, in_flight: None, version };
        }
        let in_flight = Some(InFlight::new(&self.state, &mut request));
        self.state.progress.head_completed();
        if version < Version::HTTP_2 {
            self.state.body_began(!request.body().is_end_stream());
        }
        if let Err(reason) = self.check(&request) {
            let response = refuse(reason, request, &self.state.meters);
            let inner = Inner::Refused { response: Some(response) };
            return GateFuture { inner: Some(inner), in_flight, version };
        }
        let extensions = request.extensions_mut();
        extensions.insert(self.state.admission.identity().clone());
        extensions.insert(PeerAddr(self.state.peer));
        let inner = match catch_unwind(AssertUnwindSafe(|| self.service.call(request))) {
            Ok(future) => Inner::Running { future },
            Err(panic) => {
                log_panic(panic.as_ref(), &self.state.meters);
                Inner::Refused { response: None }
            }
        };
        GateFuture { inner: Some(inner), in_flight, version }
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
        /// The service was not called and this is the response, or it panicked.
        Refused { response: Option<Refusal> },
    }
}

impl<F, B, E> Future for GateFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Error: Into<BoxError>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<GateBody<B>>, NoResponse>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = match this.inner.as_pin_mut().map(Inner::project) {
            None => return Poll::Ready(Err(NoResponse::NotAccepted)),
            Some(InnerProjection::Refused { response }) => Err(response.take()),
            Some(InnerProjection::Running { future }) => {
                match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
                    Ok(poll) => Ok(ready!(poll)),
                    Err(panic) => {
                        if let Some(in_flight) = this.in_flight {
                            log_panic(panic.as_ref(), &in_flight.state().meters);
                        }
                        Err(None)
                    }
                }
            }
        };
        let mut in_flight = this.in_flight.take();
        let is_refused = result.is_err();
        let mut response = match result {
            Ok(Ok(response)) => response.map(GateBody::service),
            Ok(Err(error)) => return Poll::Ready(Err(NoResponse::Service(error.into()))),
            Err(Some(refusal)) => refusal.map(GateBody::refusal),
            Err(None) => {
                let mut response = Response::new(GateBody::empty());
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        };
        let is_last = in_flight.as_mut().is_some_and(|in_flight| in_flight.respond(&response));
        // A refused request's body may be unread, and what follows it cannot be found.
        if (is_last || is_refused) && *this.version < Version::HTTP_2 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(in_flight) = &in_flight
            && *this.version < Version::HTTP_2
        {
            in_flight.state().responded(&response);
        }
        response.body_mut().set_in_flight(in_flight);
        Poll::Ready(Ok(response))
    }
}

type Refusal = Response<Box<ProblemBody<Incoming>>>;

/// The response to a request that is malformed or not allowed, which is counted and logged.
fn refuse(reason: Malformed, request: Request<Incoming>, meters: &Meters) -> Refusal {
    meters.request_malformed(reason);
    let context = RequestContext::of(&request);
    let (status, detail) = (reason.status(), reason.detail());
    log_request!(
        info,
        &context,
        "request_refused",
        reason = reason.as_str(),
        status = status.as_u16(),
        error = detail
    );
    let (version, unread) = (request.version(), request.into_body());
    let mut response = problem::refuse(status, detail, &context, version, unread).map(Box::new);
    if reason == Malformed::Method {
        let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

fn log_panic(panic: &(dyn Any + Send), meters: &Meters) {
    meters.service_panicked();
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    error!(panic = text, "service_panicked");
}

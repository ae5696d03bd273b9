//! Authorisation by a closure of the application.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Either;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::ClientIdentity;
use crate::problem::{self, ProblemBody};
use crate::request_context::{RequestContext, log_request};

/// A tower layer that calls a closure with each request's client identity and head, and refuses the
/// request with `403` where the closure returns `false` or the request has no identity.
///
/// ```
/// use axum::{Router, routing::get};
/// use portcullis::service::Authorize;
///
/// let gate = Authorize::new(|client, request| {
///     request.method.is_safe() || client.serial() == "1f"
/// });
/// let app: Router = Router::new().route("/", get(|| async { "hello" })).layer(gate);
/// ```
///
/// A closure that waits for something returns a future and owns its arguments:
///
/// ```
/// # async fn is_known(_: portcullis::Fingerprint) -> bool { true }
/// use portcullis::service::Authorize;
///
/// let gate = Authorize::new_async(|client, request| async move {
///     request.uri.path() == "/public" || is_known(client.fingerprint()).await
/// });
/// # let app: axum::Router = axum::Router::new().layer(gate);
/// ```
#[derive(Clone, Debug)]
pub struct Authorize<D>(D);

impl<F: Fn(&ClientIdentity, &Parts) -> bool> Authorize<SyncClosure<F>> {
    /// Authorises by this closure.
    pub fn new(is_allowed: F) -> Self {
        Self(SyncClosure(is_allowed))
    }
}

impl<F, V> Authorize<AsyncClosure<F>>
where
    F: Fn(ClientIdentity, Parts) -> V,
    V: Future<Output = bool>,
{
    /// Authorises by the future that this closure returns.
    pub fn new_async(is_allowed: F) -> Self {
        Self(AsyncClosure(is_allowed))
    }
}

/// A closure that returns its decision.
#[derive(Clone, Debug)]
pub struct SyncClosure<F>(F);

/// A closure that returns a future of its decision.
#[derive(Clone, Debug)]
pub struct AsyncClosure<F>(F);

/// What decides about requests: one of the two kinds of closures.
pub trait Decide {
    /// Resolves to `true` where the request is allowed.
    type Decision: Future<Output = bool>;

    /// Calls the closure.
    fn decide(&self, client: &ClientIdentity, head: &Parts) -> Self::Decision;
}

impl<F: Fn(&ClientIdentity, &Parts) -> bool> Decide for SyncClosure<F> {
    type Decision = Ready<bool>;

    fn decide(&self, client: &ClientIdentity, head: &Parts) -> Ready<bool> {
        ready(self.0(client, head))
    }
}

impl<F: Fn(ClientIdentity, Parts) -> V, V: Future<Output = bool>> Decide for AsyncClosure<F> {
    type Decision = V;

    fn decide(&self, client: &ClientIdentity, head: &Parts) -> V {
        self.0(client.clone(), head.clone())
    }
}

impl<D: Clone, S> Layer<S> for Authorize<D> {
    type Service = Authorized<D, S>;

    fn layer(&self, inner: S) -> Authorized<D, S> {
        Authorized { decide: self.0.clone(), inner }
    }
}

/// A service behind an [`Authorize`].
#[derive(Clone, Debug)]
pub struct Authorized<D, S> {
    decide: D,
    inner: S,
}

impl<D, S, B, R> Service<Request<B>> for Authorized<D, S>
where
    D: Decide,
    S: Service<Request<B>, Response = Response<R>> + Clone,
    B: Body,
{
    type Response = Response<Either<R, ProblemBody<B>>>;
    type Error = S::Error;
    type Future = Authorizing<D::Decision, S, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        let client = head.extensions.get::<ClientIdentity>();
        let decision = client.map(|client| self.decide.decide(client, &head));
        let request = Request::from_parts(head, body);
        let step = match decision {
            Some(decision) => {
                // The clone may not be ready; the service that was polled is.
                let unready = self.inner.clone();
                let service = std::mem::replace(&mut self.inner, unready);
                Step::Deciding { decision, waiting: Some((service, request)) }
            }
            None => Step::Refused { request: Some(request) },
        };
        Authorizing { step }
    }
}

pin_project! {
    /// The response future of an [`Authorized`].
    pub struct Authorizing<V, S: Service<Request<B>>, B> {
        #[pin]
        step: Step<V, S, S::Future, B>,
    }
}

pin_project! {
    #[project = StepProjection]
    enum Step<V, S, F, B> {
        Deciding { #[pin] decision: V, waiting: Option<(S, Request<B>)> },
        Calling { #[pin] future: F },
        Refused { request: Option<Request<B>> },
    }
}

impl<V, S, B, R> Future for Authorizing<V, S, B>
where
    V: Future<Output = bool>,
    S: Service<Request<B>, Response = Response<R>>,
    B: Body,
{
    type Output = Result<Response<Either<R, ProblemBody<B>>>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut step = self.project().step;
        loop {
            let next = match step.as_mut().project() {
                StepProjection::Deciding { decision, waiting } => {
                    let is_allowed = std::task::ready!(decision.poll(context));
                    match waiting.take() {
                        Some((mut service, request)) if is_allowed => {
                            Step::Calling { future: service.call(request) }
                        }
                        other => Step::Refused { request: other.map(|(_, request)| request) },
                    }
                }
                StepProjection::Calling { future } => {
                    return future.poll(context).map_ok(|response| response.map(Either::Left));
                }
                StepProjection::Refused { request } => {
                    // Taken once: a future that is ready is not polled again.
                    return match request.take() {
                        Some(request) => Poll::Ready(Ok(refuse(request))),
                        None => Poll::Pending,
                    };
                }
            };
            step.set(next);
        }
    }
}

fn refuse<B: Body, R>(request: Request<B>) -> Response<Either<R, ProblemBody<B>>> {
    let context = RequestContext::of(&request);
    let client = request.extensions().get::<ClientIdentity>();
    let fingerprint = client.map(|client| tracing::field::display(client.fingerprint()));
    let reason = "not_authorized";
    log_request!(info, &context, "request_refused", reason, status = 403, fingerprint);
    let (version, detail) = (request.version(), "This client is not authorized.");
    let body = request.into_body();
    problem::refuse(StatusCode::FORBIDDEN, detail, &context, version, body).map(Either::Right)
}

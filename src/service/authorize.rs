//! The application's own say: may this identity do this?

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
use tracing::info;

use crate::ClientIdentity;
use crate::service::problem::{self, ProblemBody, RequestId};

/// A tower layer that asks a closure for each request whether this identity may do this, and answers
/// `403` where it may not, or where there is no identity.
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
/// A closure that has to look something up returns a future, and gets what it asks about as its own:
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

impl<F> Authorize<AtOnce<F>>
where
    F: Fn(&ClientIdentity, &Parts) -> bool,
{
    /// Asks this closure.
    pub fn new(may: F) -> Self {
        Self(AtOnce(may))
    }
}

impl<F, V> Authorize<InTime<F>>
where
    F: Fn(ClientIdentity, Parts) -> V,
    V: Future<Output = bool>,
{
    /// Asks this closure, and waits for its verdict.
    pub fn new_async(may: F) -> Self {
        Self(InTime(may))
    }
}

/// A closure that decides at once.
#[derive(Clone, Debug)]
pub struct AtOnce<F>(F);

/// A closure that takes its time.
#[derive(Clone, Debug)]
pub struct InTime<F>(F);

/// The two kinds of closures that can be asked.
pub trait Decide {
    /// Becomes whether this identity may do this.
    type Verdict: Future<Output = bool>;

    /// Asks the closure.
    fn decide(&self, client: &ClientIdentity, head: &Parts) -> Self::Verdict;
}

impl<F: Fn(&ClientIdentity, &Parts) -> bool> Decide for AtOnce<F> {
    type Verdict = Ready<bool>;

    fn decide(&self, client: &ClientIdentity, head: &Parts) -> Ready<bool> {
        ready(self.0(client, head))
    }
}

impl<F: Fn(ClientIdentity, Parts) -> V, V: Future<Output = bool>> Decide for InTime<F> {
    type Verdict = V;

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
    type Future = Authorizing<D::Verdict, S, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        let verdict =
            head.extensions.get::<ClientIdentity>().map(|client| self.decide.decide(client, &head));
        let request = Request::from_parts(head, body);
        let step = match verdict {
            Some(verdict) => {
                // The one that is ready is the one that is called.
                let unready = self.inner.clone();
                let service = std::mem::replace(&mut self.inner, unready);
                Step::Asking { verdict, waiting: Some((service, request)) }
            }
            None => Step::Rejection { request: Some(request) },
        };
        Authorizing { step }
    }
}

pin_project! {
    /// The answer of an [`Authorized`] that is to come.
    pub struct Authorizing<V, S: Service<Request<B>>, B> {
        #[pin]
        step: Step<V, S, S::Future, B>,
    }
}

pin_project! {
    #[project = StepProjection]
    enum Step<V, S, F, B> {
        Asking { #[pin] verdict: V, waiting: Option<(S, Request<B>)> },
        Passed { #[pin] future: F },
        Rejection { request: Option<Request<B>> },
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
                StepProjection::Asking { verdict, waiting } => {
                    let may = std::task::ready!(verdict.poll(context));
                    match waiting.take() {
                        Some((mut service, request)) if may => {
                            Step::Passed { future: service.call(request) }
                        }
                        other => Step::Rejection { request: other.map(|(_, request)| request) },
                    }
                }
                StepProjection::Passed { future } => {
                    return future.poll(context).map_ok(|response| response.map(Either::Left));
                }
                StepProjection::Rejection { request } => {
                    // Taken once: nobody polls a future that is ready.
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
    let id = RequestId::new();
    let client = request.extensions().get::<ClientIdentity>();
    let fingerprint = client.map(|client| tracing::field::display(client.fingerprint()));
    info!(reason = "not_authorized", status = 403, fingerprint, request_id = %id, "request_refused");
    let (version, detail) = (request.version(), "This client may not do this.");
    let body = request.into_body();
    problem::refuse(StatusCode::FORBIDDEN, detail, id, version, body).map(Either::Right)
}

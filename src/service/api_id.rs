//! Only requests of the APIs that are listed.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Either;
use pin_project_lite::pin_project;
use tracing::info;

use crate::service::headers::API_ID;
use crate::service::problem::{self, ProblemBody, RequestId};

/// A service that lets through only requests of listed APIs, and answers `403` to others.
///
/// Any AWS account can have an API of its own that presents a certificate: the one that it was
/// given. An API that is given the same one is told apart by what API Gateway says in
/// `x-amzn-apigateway-api-id`. With no API listed every request passes.
///
/// It wraps a hyper service as well as a tower service; [`ApiIdLayer`] makes it from the latter.
#[derive(Clone, Debug)]
pub struct ApiId<S> {
    ids: Arc<HashSet<Vec<u8>>>,
    inner: S,
}

impl<S> ApiId<S> {
    /// Lets requests of these APIs through to a service.
    pub fn new(ids: impl IntoIterator<Item = impl Into<String>>, inner: S) -> Self {
        tower_layer::Layer::layer(&ApiIdLayer::new(ids), inner)
    }

    fn lets_through<B>(&self, request: &Request<B>) -> bool {
        let mut ids = request.headers().get_all(API_ID).iter();
        let is_listed = |id: &http::HeaderValue| self.ids.contains(id.as_bytes());
        // One that names several is of none of them.
        self.ids.is_empty() || ids.next().is_some_and(is_listed) && ids.next().is_none()
    }
}

/// Makes an [`ApiId`] of a service.
#[derive(Clone, Debug)]
pub struct ApiIdLayer(Arc<HashSet<Vec<u8>>>);

impl ApiIdLayer {
    /// Lets requests of these APIs through.
    pub fn new(ids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(Arc::new(ids.into_iter().map(|id| id.into().into_bytes()).collect()))
    }
}

impl<S> tower_layer::Layer<S> for ApiIdLayer {
    type Service = ApiId<S>;

    fn layer(&self, inner: S) -> ApiId<S> {
        ApiId { ids: Arc::clone(&self.0), inner }
    }
}

fn refuse<B: Body, R>(request: Request<B>) -> Response<Either<R, ProblemBody<B>>> {
    let id = RequestId::new();
    let api_id = request.headers().get(API_ID).and_then(|value| value.to_str().ok());
    info!(reason = "api_id", status = 403, api_id, request_id = %id, "request_refused");
    let (version, detail) = (request.version(), "This API may not ask here.");
    let body = request.into_body();
    problem::refuse(StatusCode::FORBIDDEN, detail, id, version, body).map(Either::Right)
}

impl<S, B, R> hyper::service::Service<Request<B>> for ApiId<S>
where
    S: hyper::service::Service<Request<B>, Response = Response<R>>,
    B: Body,
{
    type Response = Response<Either<R, ProblemBody<B>>>;
    type Error = S::Error;
    type Future = Guarded<S::Future, B>;

    fn call(&self, request: Request<B>) -> Self::Future {
        if self.lets_through(&request) {
            Guarded { passed: Some(self.inner.call(request)), refused: None }
        } else {
            Guarded { passed: None, refused: Some(request) }
        }
    }
}

impl<S, B, R> tower_service::Service<Request<B>> for ApiId<S>
where
    S: tower_service::Service<Request<B>, Response = Response<R>>,
    B: Body,
{
    type Response = Response<Either<R, ProblemBody<B>>>;
    type Error = S::Error;
    type Future = Guarded<S::Future, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if self.lets_through(&request) {
            Guarded { passed: Some(self.inner.call(request)), refused: None }
        } else {
            Guarded { passed: None, refused: Some(request) }
        }
    }
}

pin_project! {
    /// The answer of an [`ApiId`] that is to come.
    pub struct Guarded<F, B> {
        #[pin]
        passed: Option<F>,
        refused: Option<Request<B>>,
    }
}

impl<F, B, R, E> Future for Guarded<F, B>
where
    F: Future<Output = Result<Response<R>, E>>,
    B: Body,
{
    type Output = Result<Response<Either<R, ProblemBody<B>>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(future) = this.passed.as_pin_mut() {
            return future.poll(context).map_ok(|response| response.map(Either::Left));
        }
        // It is there once: nobody polls a future that is ready.
        this.refused.take().map_or(Poll::Pending, |request| Poll::Ready(Ok(refuse(request))))
    }
}

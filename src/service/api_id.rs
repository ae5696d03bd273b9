//! Admits requests of listed APIs only.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Either;
use pin_project_lite::pin_project;

use crate::problem::{self, ProblemBody};
use crate::request_context::{API_ID, RequestContext, log_request};

/// A service that admits requests of listed APIs only, and refuses others with `403`.
///
/// Several APIs may present the same client certificate. API Gateway writes the API's id into
/// `x-amzn-apigateway-api-id`, which distinguishes them. With no API listed, every request passes.
///
/// It wraps a hyper service as well as a tower service; [`ApiIdLayer`] is the tower layer.
#[derive(Clone, Debug)]
pub struct ApiId<S> {
    ids: Ids,
    inner: S,
}

impl<S> ApiId<S> {
    /// Admits requests of these APIs to a service. Empty ids are ignored: an empty header never
    /// passes.
    pub fn new(ids: impl IntoIterator<Item = impl Into<String>>, inner: S) -> Self {
        tower_layer::Layer::layer(&ApiIdLayer::new(ids), inner)
    }

    fn is_admitted<B>(&self, request: &Request<B>) -> bool {
        let Some(listed) = &self.ids else { return true };
        let mut ids = request.headers().get_all(API_ID).iter();
        let is_listed = |id: &http::HeaderValue| listed.contains(id.as_bytes());
        // A request that names several APIs is refused.
        ids.next().is_some_and(is_listed) && ids.next().is_none()
    }
}

/// The listed ids; `None` where no list was given.
type Ids = Option<Arc<HashSet<Vec<u8>>>>;

/// The tower layer that wraps a service in an [`ApiId`].
#[derive(Clone, Debug)]
pub struct ApiIdLayer(Ids);

impl ApiIdLayer {
    /// Admits requests of these APIs. Empty ids are ignored: an empty header never passes.
    pub fn new(ids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut is_given = false;
        let ids = ids.into_iter().map(|id| id.into().into_bytes());
        let ids = ids.inspect(|_| is_given = true).filter(|id| !id.is_empty()).collect();
        // A list of nothing but empty ids admits no request, rather than every one.
        Self(is_given.then(|| Arc::new(ids)))
    }
}

impl<S> tower_layer::Layer<S> for ApiIdLayer {
    type Service = ApiId<S>;

    fn layer(&self, inner: S) -> ApiId<S> {
        ApiId { ids: self.0.clone(), inner }
    }
}

fn refuse<B: Body, R>(request: Request<B>) -> Response<Either<R, ProblemBody<B>>> {
    let context = RequestContext::of(&request);
    log_request!(info, &context, "request_refused", reason = "api_id", status = 403);
    let (version, detail) = (request.version(), "This API is not admitted.");
    let body = request.into_body();
    problem::refuse(StatusCode::FORBIDDEN, detail, &context, version, body).map(Either::Right)
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
        if self.is_admitted(&request) {
            Guarded { admitted: Some(self.inner.call(request)), refused: None }
        } else {
            Guarded { admitted: None, refused: Some(request) }
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
        if self.is_admitted(&request) {
            Guarded { admitted: Some(self.inner.call(request)), refused: None }
        } else {
            Guarded { admitted: None, refused: Some(request) }
        }
    }
}

pin_project! {
    /// The response future of an [`ApiId`].
    pub struct Guarded<F, B> {
        #[pin]
        admitted: Option<F>,
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
        if let Some(future) = this.admitted.as_pin_mut() {
            return future.poll(context).map_ok(|response| response.map(Either::Left));
        }
        // Taken once: a future that is ready is not polled again.
        this.refused.take().map_or(Poll::Pending, |request| Poll::Ready(Ok(refuse(request))))
    }
}

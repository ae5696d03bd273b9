//! In front of an application: what is verified is passed on to it, and its answers back.
//!
//! A request takes this way: is it one that everybody reads alike (`request`)? a connection, an
//! idle one or a new one, or a place in the queue (`pool`, `upstream`), the headers
//! ([`headers`](crate::service::headers)), there and back (`exchange`, `upload`), and the answer
//! (`answer`). What can go wrong on it is one list (`failure`).

mod exchange;
mod failure;
mod pool;
mod request;
mod response;
mod upload;
mod upstream;

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, request as head};
use http_body::Body;
use tokio::time::Instant;

use crate::ClientIdentity;
use crate::error::BoxError;
use crate::problem;
use crate::request_context::{RequestContext, log_request};
use crate::service::headers::HeaderRules;
use crate::service::proxy::exchange::{Deadlines, Outgoing, exchange};
use crate::service::proxy::failure::ProxyError;
use crate::service::proxy::pool::Pool;
use crate::service::proxy::request::check;
use crate::service::proxy::upload::Upload;

pub use response::ProxyBody;
pub use upstream::{BadUpstream, Upstream};

/// A service that passes requests on to an application, by HTTP/1.1.
///
/// It tells the application who asks, in the headers of [`headers`](crate::service::headers), and takes that from the
/// extensions of the request, where the server has put it. Cloning it is cheap, and all clones share
/// their connections.
///
/// ```no_run
/// use portcullis::Config;
/// use portcullis::service::Proxy;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let proxy = Proxy::new("http://127.0.0.1:3000".parse()?).max_body(1 << 20);
/// let server = Config::new("server-cert.pem", "server-key.pem").trust("trust").bind()?;
/// server.serve_hyper(proxy).stopped().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    upstream: Upstream,
    pool: Arc<Pool>,
    patience: Deadlines,
    max_body: u64,
    limits: PoolLimits,
    headers: HeaderRules,
}

/// What a pool is made from.
#[derive(Clone, Copy, Debug)]
struct PoolLimits {
    connections: usize,
    queue: usize,
    idle_timeout: Duration,
}

impl PoolLimits {
    fn pool(self) -> Arc<Pool> {
        Arc::new(Pool::new(self.connections, self.queue, self.idle_timeout))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("upstream", &self.0.upstream).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Passes requests on to this application.
    pub fn new(upstream: Upstream) -> Self {
        let limits =
            PoolLimits { connections: 1024, queue: 1024, idle_timeout: Duration::from_secs(4) };
        ProxyError::begin_counting();
        Self(Arc::new(Inner {
            upstream,
            pool: limits.pool(),
            patience: Deadlines {
                connect: Duration::from_secs(5),
                answer: Duration::from_secs(29),
                body: Duration::from_secs(30),
            },
            max_body: super::MAX_BODY,
            limits,
            headers: HeaderRules::default(),
        }))
    }

    fn with(mut self, set: impl FnOnce(&mut Inner)) -> Self {
        set(Arc::make_mut(&mut self.0));
        self
    }

    /// How long it may take to connect to the application. 5 s. A connection that is refused is
    /// tried again for two seconds within it, for an application that is being started anew.
    #[must_use]
    pub fn connect_timeout(self, limit: Duration) -> Self {
        self.with(|proxy| proxy.patience.connect = limit)
    }

    /// How long it may take until the head of the application's answer is there, from the request
    /// or from the last piece of its body. 29 s, as API Gateway has it.
    #[must_use]
    pub fn timeout(self, limit: Duration) -> Self {
        self.with(|proxy| proxy.patience.answer = limit)
    }

    /// How long nothing may come of a request's body. 30 s.
    #[must_use]
    pub fn body_timeout(self, limit: Duration) -> Self {
        self.with(|proxy| proxy.patience.body = limit)
    }

    /// How many bytes the body of a request may have. 10 MiB, as API Gateway has it.
    #[must_use]
    pub fn max_body(self, bytes: u64) -> Self {
        self.with(|proxy| proxy.max_body = bytes)
    }

    /// For how long an idle connection to the application is kept. 4 s: shorter than applications
    /// keep it, which is 5 s for Node.js, or a request meets a connection that just ends.
    #[must_use]
    pub fn idle_timeout(self, limit: Duration) -> Self {
        self.with_limits(|limits| limits.idle_timeout = limit)
    }

    /// How many connections to the application there may be, one for each request in progress.
    /// 1024.
    #[must_use]
    pub fn max_connections(self, most: usize) -> Self {
        self.with_limits(|limits| limits.connections = most)
    }

    /// How many requests may wait for a connection once there are so many. 1024.
    #[must_use]
    pub fn queue(self, most: usize) -> Self {
        self.with_limits(|limits| limits.queue = most)
    }

    /// Which headers of a request reach the application, beside the default rules.
    #[must_use]
    pub fn headers(self, rules: HeaderRules) -> Self {
        self.with(|proxy| proxy.headers = rules)
    }

    fn with_limits(self, set: impl FnOnce(&mut PoolLimits)) -> Self {
        self.with(|proxy| {
            set(&mut proxy.limits);
            proxy.pool = proxy.limits.pool();
        })
    }
}

impl Inner {
    async fn pass(
        &self,
        head: &head::Parts,
        upload: &Upload,
    ) -> Result<Response<ProxyBody>, ProxyError> {
        let began = Instant::now();
        let target = check(head).map_err(ProxyError::Rejection)?;
        let client = head.extensions.get::<ClientIdentity>().ok_or(ProxyError::NoIdentity)?;
        let outgoing = Outgoing { head, target, client, upload, rules: &self.headers };
        let slot = self.pool.enter(began + self.patience.answer).await?;
        let answer = exchange(&self.upstream, &slot, &outgoing, self.patience, began).await?;
        let mut response = response::relay(answer, slot, upload.clone());
        // A connection of HTTP/1 on which a request has not been read to its end is of no further
        // use, and the client has to hear of it: its next request would be lost.
        if !upload.is_over() {
            problem::close(&mut response, head.version);
        }
        Ok(response)
    }
}

/// What the client gets instead of an answer; the log gets the reason.
fn report(failure: &ProxyError, head: &head::Parts, upload: Upload) -> Response<ProxyBody> {
    failure.count();
    let context = RequestContext::of_head(head);
    let (status, reason) = (failure.status(), failure.reason());
    let number = status.as_u16();
    if failure.is_of_client() {
        log_request!(info, &context, "request_refused", reason, status = number, error = %failure);
    } else {
        log_request!(warn, &context, "upstream_failed", reason, status = number, error = %failure);
    }
    let mut response = problem::response(status, failure.detail(), &context);
    // What of its body is still to come must not be taken for a request.
    if matches!(failure, ProxyError::Rejection(_)) || !upload.is_empty() {
        problem::close(&mut response, head.version);
    }
    response.map(|text| ProxyBody::text(text, upload))
}

/// The answer of a [`Proxy`] that is to come.
pub type ProxyFuture =
    Pin<Box<dyn Future<Output = Result<Response<ProxyBody>, Infallible>> + Send>>;

impl<B> hyper::service::Service<Request<B>> for Proxy
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = ProxyFuture;

    fn call(&self, request: Request<B>) -> ProxyFuture {
        let (head, body) = request.into_parts();
        let (upload, fits) = Upload::new(body, self.0.max_body, self.0.patience.body);
        let proxy = Arc::clone(&self.0);
        Box::pin(async move {
            let passed = match fits {
                Ok(()) => proxy.pass(&head, &upload).await,
                Err(fault) => Err(fault.into()),
            };
            Ok(passed.unwrap_or_else(|failure| report(&failure, &head, upload)))
        })
    }
}

impl<B> tower_service::Service<Request<B>> for Proxy
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = ProxyFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ProxyFuture {
        hyper::service::Service::call(self, request)
    }
}

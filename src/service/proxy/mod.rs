//! The reverse proxy: it forwards requests with the verified identity to an application.
//!
//! A request is checked (`request`), gets an idle or a new connection or a place in the queue
//! (`pool`, `upstream`, `state`), gets its headers ([`headers`](crate::service::headers)), is sent
//! (`exchange`, `upload`), and its response is relayed (`response`). All failures are one list
//! (`failure`).

mod exchange;
mod failure;
mod pool;
mod request;
mod response;
mod state;
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
use crate::problem::{self, DiscardLimit};
use crate::request_context::{RequestContext, log_request};
use crate::service::body_timeout::MAX_BODY;
use crate::service::headers::HeaderRules;
use crate::service::proxy::exchange::{Deadlines, Outgoing, UpstreamResponse, exchange};
use crate::service::proxy::failure::ProxyError;
use crate::service::proxy::pool::{Pool, Slot};
use crate::service::proxy::request::check;
use crate::service::proxy::upload::Upload;

pub use response::ProxyBody;
pub use state::UpstreamState;
pub use upstream::{BadUpstream, Upstream};

/// A service that forwards requests to an application, by HTTP/1.1.
///
/// The server stores the verified identity in each request's extensions. The proxy sends it to the
/// application in [headers](crate::service::headers). Cloning is cheap; clones share their
/// connections.
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
    state: UpstreamState,
    deadlines: Deadlines,
    max_body: u64,
    limits: PoolLimits,
    headers: HeaderRules,
}

/// The limits of a pool.
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
    /// Forwards requests to this application.
    pub fn new(upstream: Upstream) -> Self {
        let limits =
            PoolLimits { connections: 1024, queue: 1024, idle_timeout: Duration::from_secs(4) };
        ProxyError::register_counters();
        Self(Arc::new(Inner {
            state: UpstreamState::new(upstream.clone()),
            upstream,
            pool: limits.pool(),
            deadlines: Deadlines {
                connect: Duration::from_secs(5),
                response: Duration::from_secs(29),
                body: Duration::from_secs(30),
            },
            max_body: MAX_BODY,
            limits,
            headers: HeaderRules::default(),
        }))
    }

    fn with(mut self, set: impl FnOnce(&mut Inner)) -> Self {
        set(Arc::make_mut(&mut self.0));
        self
    }

    /// The deadline to connect to the application. 5 s. A refused connection is retried for up to
    /// two seconds of it, while the application restarts.
    #[must_use]
    pub fn connect_timeout(self, limit: Duration) -> Self {
        self.with(|proxy| proxy.deadlines.connect = limit)
    }

    /// The deadline to the head of the application's response, from the request or the last
    /// progress of its body. 29 s, as in API Gateway.
    #[must_use]
    pub fn timeout(self, limit: Duration) -> Self {
        self.with(|proxy| proxy.deadlines.response = limit)
    }

    /// The longest pause within a request's body. 30 s.
    #[must_use]
    pub fn body_timeout(self, limit: Duration) -> Self {
        self.with(|proxy| proxy.deadlines.body = limit)
    }

    /// The largest request body in bytes. 10 MiB, as in API Gateway.
    #[must_use]
    pub fn max_body(self, bytes: u64) -> Self {
        self.with(|proxy| proxy.max_body = bytes)
    }

    /// How long an idle connection to the application is kept. 4 s: shorter than the application
    /// keeps it, which is 5 s for Node.js, or a request meets a connection that is closing.
    #[must_use]
    pub fn idle_timeout(self, limit: Duration) -> Self {
        self.with_limits(|limits| limits.idle_timeout = limit)
    }

    /// The most connections to the application, one for each request in flight. 1024.
    #[must_use]
    pub fn max_connections(self, most: usize) -> Self {
        self.with_limits(|limits| limits.connections = most)
    }

    /// The most requests that wait for a connection. 1024.
    #[must_use]
    pub fn queue(self, most: usize) -> Self {
        self.with_limits(|limits| limits.queue = most)
    }

    /// Which headers of a request reach the application, beside the default rules.
    #[must_use]
    pub fn headers(self, rules: HeaderRules) -> Self {
        self.with(|proxy| proxy.headers = rules)
    }

    /// Whether the application can be reached, for a readiness endpoint.
    pub fn upstream_state(&self) -> UpstreamState {
        self.0.state.clone()
    }

    fn with_limits(self, set: impl FnOnce(&mut PoolLimits)) -> Self {
        self.with(|proxy| {
            set(&mut proxy.limits);
            proxy.pool = proxy.limits.pool();
        })
    }
}

impl Inner {
    async fn forward(
        &self,
        head: &head::Parts,
        upload: &Upload,
    ) -> Result<(UpstreamResponse, Slot), ProxyError> {
        let began = Instant::now();
        let target = check(head).map_err(ProxyError::Rejection)?;
        let client = head.extensions.get::<ClientIdentity>().ok_or(ProxyError::NoIdentity)?;
        let outgoing = Outgoing { head, target, client, upload, rules: &self.headers };
        let slot = self.pool.enter(began + self.deadlines.response).await?;
        let (state, upstream) = (&self.state, &self.upstream);
        let response = exchange(state, upstream, &slot, &outgoing, self.deadlines, began).await?;
        Ok((response, slot))
    }

    fn relay(
        &self,
        response: UpstreamResponse,
        slot: Slot,
        head: Box<head::Parts>,
        upload: Upload,
    ) -> Response<ProxyBody> {
        let version = head.version;
        let is_early = !upload.is_over() || response.connection.traffic.has_write_failed();
        let mut response = response::relay(response, slot, head, upload);
        // An early response: the unread request body makes the connection unusable for another
        // request of HTTP/1, which the client must know.
        if is_early {
            problem::close(&mut response, version);
            response.extensions_mut().insert(DiscardLimit(self.max_body));
        }
        response
    }
}

/// The response to a request that failed. The log gets the reason.
fn report(
    failure: &ProxyError,
    head: &head::Parts,
    upload: Upload,
    max_body: u64,
) -> Response<ProxyBody> {
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
    // The unread body must not be read as the next request.
    if matches!(failure, ProxyError::Rejection(_)) || !upload.is_empty() {
        problem::close(&mut response, head.version);
        response.extensions_mut().insert(DiscardLimit(max_body));
    }
    response.map(|text| ProxyBody::text(text, upload))
}

/// The response future of a [`Proxy`].
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
        let head = Box::new(head);
        let (upload, fits) = Upload::new(body, self.0.max_body, self.0.deadlines.body);
        let proxy = Arc::clone(&self.0);
        Box::pin(async move {
            let forwarded = match fits {
                Ok(()) => proxy.forward(&head, &upload).await,
                Err(error) => Err(error.into()),
            };
            Ok(match forwarded {
                Ok((response, slot)) => proxy.relay(response, slot, head, upload),
                Err(failure) => report(&failure, &head, upload, proxy.max_body),
            })
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

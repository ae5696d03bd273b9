//! Plain HTTP for the operator, on a port of its own and with bounds of its own.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::host::AllowedHosts;
use super::metrics::Metrics;
use super::page::{PAGE, POLICY};
use super::status;
use crate::Handle;
use crate::server::Pending;
use crate::service::proxy::UpstreamState;

/// At this many connections a new one takes the place of the oldest, so that no client can hold
/// connections open until health checks fail.
const MAX_CONNECTIONS: usize = 64;
/// For a request's head, and for a connection without a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For a connection as a whole, whether or not its client reads.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two attempts to accept while the machine has no descriptors left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";

/// The operator's port: bound, and not serving yet.
#[must_use = "it does not respond until it serves"]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    hosts: AllowedHosts,
    upstream: Option<UpstreamState>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Admin {
    /// Listens at an address. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, hosts: AllowedHosts::default(), upstream: None })
    }

    /// The bound address, with the port that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Allows these names in `Host`, besides addresses and internal names.
    pub fn hosts(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.hosts = AllowedHosts::new(names);
        self
    }

    /// The application that `/readyz?upstream` includes.
    pub fn upstream(mut self, state: UpstreamState) -> Self {
        self.upstream = Some(state);
        self
    }

    /// Serves until the process ends, also while the server stops.
    pub async fn serve(self, server: Handle, metrics: Metrics) {
        info!(addr = %self.address, "admin_listening");
        let Self { listener, hosts, upstream, .. } = self;
        let routes = Arc::new(Routes { server, metrics, hosts, upstream });
        let pending = Arc::new(Pending::new(MAX_CONNECTIONS));
        let accept = async {
            loop {
                match listener.accept().await {
                    Ok((socket, _)) => {
                        let (routes, pending) = (Arc::clone(&routes), Arc::clone(&pending));
                        tokio::spawn(async move {
                            let place = pending.enter();
                            tokio::select! {
                                // A failed connection concerns its client only.
                                _ = timeout(CONNECTION_TIMEOUT, routes.serve(socket)) => {}
                                () = place.dropped() => {}
                            }
                        });
                    }
                    Err(error) => {
                        warn!(%error, remedy = "raise the limit on open files", "accept_failed");
                        sleep(ACCEPT_BACKOFF).await;
                    }
                }
            }
        };
        tokio::join!(accept, routes.metrics.keep_up());
    }
}

struct Routes {
    server: Handle,
    metrics: Metrics,
    hosts: AllowedHosts,
    upstream: Option<UpstreamState>,
}

type FullResponse = Response<Full<Bytes>>;

impl Routes {
    async fn serve(&self, socket: TcpStream) -> hyper::Result<()> {
        let service = service_fn(async |request: Request<Incoming>| {
            Ok::<_, Infallible>(self.respond(&request).await)
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(socket), service)
            .await
    }

    async fn respond(&self, request: &Request<Incoming>) -> FullResponse {
        let (method, uri) = (request.method(), request.uri());
        if method != Method::GET && method != Method::HEAD {
            let mut response = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        // Health checks may use any host name: they reveal little.
        match uri.path() {
            "/livez" => return response(StatusCode::OK, TEXT, "live\n"),
            "/readyz" => return self.ready(uri.query()).await,
            _ => {}
        }
        if !self.hosts.allow(uri, request.headers()) {
            let remedy = "this name is not allowed: use an address or localhost, or allow the name \
                          with --admin-host\n";
            return response(StatusCode::MISDIRECTED_REQUEST, TEXT, remedy);
        }
        self.state(uri.path())
    }

    async fn ready(&self, query: Option<&str>) -> FullResponse {
        let not_ready = match (self.server.not_ready(), query) {
            (Some(reason), _) => Some(reason.as_str().to_owned()),
            (None, Some("upstream" | "upstream=" | "upstream=1" | "upstream=true")) => {
                match &self.upstream {
                    Some(upstream) if !upstream.is_reachable().await => {
                        Some("the application cannot be reached".to_owned())
                    }
                    _ => None,
                }
            }
            (None, None) => None,
            (None, Some(_)) => {
                return response(StatusCode::BAD_REQUEST, TEXT, "the one parameter is upstream\n");
            }
        };
        match not_ready {
            None => response(StatusCode::OK, TEXT, "ready\n"),
            Some(reason) => {
                let reason = format!("not ready: {reason}\n");
                response(StatusCode::SERVICE_UNAVAILABLE, TEXT, reason)
            }
        }
    }

    fn state(&self, path: &str) -> FullResponse {
        match path {
            "/metrics" => {
                let kind = "text/plain; version=0.0.4; charset=utf-8";
                response(StatusCode::OK, kind, self.metrics.render(&self.server))
            }
            "/status" => match status::json(&self.server.snapshot()) {
                Ok(json) => response(StatusCode::OK, "application/json", json),
                Err(error) => {
                    error!(%error, "status_failed");
                    response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "see the log\n")
                }
            },
            "/" => {
                let mut page = response(StatusCode::OK, "text/html; charset=utf-8", PAGE.as_str());
                if let Ok(policy) = HeaderValue::from_str(&POLICY) {
                    page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
                }
                page
            }
            _ => {
                let paths = "there is /livez, /readyz, /metrics, /status and /\n";
                response(StatusCode::NOT_FOUND, TEXT, paths)
            }
        }
    }
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> FullResponse {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers: &mut HeaderMap = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Only the page loads anything, and it has a policy of its own.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

//! Plain HTTP for the operator, on a port of its own and with bounds of its own.

use std::convert::Infallible;
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

use super::metrics::Metrics;
use super::page::{PAGE, POLICY};
use super::status;
use crate::Handle;
use crate::server::Pending;

/// So many connections at once; whoever comes then takes the place of the oldest, so that nobody
/// who holds theirs can make a health check fail.
const MOST_CONNECTIONS: usize = 64;
/// How long a request's head may take, and a connection go without one.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may last: a client that does not read its answer has it no longer.
const CONNECTION: Duration = Duration::from_secs(60);
/// Between two attempts where the machine has no more descriptors.
const STARVED: Duration = Duration::from_millis(100);

/// The operator's port, which listens and answers nobody yet.
#[derive(Debug)]
#[must_use = "it answers nobody until it serves"]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

impl Admin {
    /// Listens at an address. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// It cannot be listened at.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { address: listener.local_addr()?, listener })
    }

    /// The address that it listens at, with the port that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers for a server, for ever: also while that stops.
    pub async fn serve(self, server: Handle, metrics: Metrics) {
        info!(addr = %self.address, "admin_listening");
        let answers = Arc::new(Answers { server, metrics });
        let pending = Arc::new(Pending::new(MOST_CONNECTIONS));
        let accept = async {
            loop {
                match self.listener.accept().await {
                    Ok((socket, _)) => {
                        let (answers, pending) = (Arc::clone(&answers), Arc::clone(&pending));
                        tokio::spawn(async move {
                            let place = pending.enter();
                            tokio::select! {
                                // However it ends, it has had its time.
                                _ = timeout(CONNECTION, answers.serve(socket)) => {}
                                () = place.dropped() => {}
                            }
                        });
                    }
                    Err(error) => {
                        warn!(%error, remedy = "raise the limit on open files", "accept_failed");
                        sleep(STARVED).await;
                    }
                }
            }
        };
        tokio::join!(accept, answers.metrics.keep_up());
    }
}

struct Answers {
    server: Handle,
    metrics: Metrics,
}

type Answer = Response<Full<Bytes>>;

impl Answers {
    async fn serve(&self, socket: TcpStream) -> hyper::Result<()> {
        let service = service_fn(async |request: Request<Incoming>| {
            Ok::<_, Infallible>(self.answer(request.method(), request.uri().path()))
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(socket), service)
            .await
    }

    fn answer(&self, method: &Method, path: &str) -> Answer {
        const TEXT: &str = "text/plain; charset=utf-8";
        if method != Method::GET && method != Method::HEAD {
            let mut answer = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n");
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match path {
            "/livez" => answer(StatusCode::OK, TEXT, "live\n"),
            "/readyz" => match self.server.not_ready() {
                None => answer(StatusCode::OK, TEXT, "ready\n"),
                Some(reason) => {
                    let reason = format!("not ready: {}\n", reason.as_str());
                    answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, reason)
                }
            },
            "/metrics" => {
                let kind = "text/plain; version=0.0.4; charset=utf-8";
                answer(StatusCode::OK, kind, self.metrics.render(&self.server))
            }
            "/status" => match status::json(&self.server.snapshot()) {
                Ok(json) => answer(StatusCode::OK, "application/json", json),
                Err(error) => {
                    error!(%error, "status_failed");
                    answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "see the log\n")
                }
            },
            "/" => {
                let mut answer = answer(StatusCode::OK, "text/html; charset=utf-8", PAGE.as_str());
                if let Ok(policy) = HeaderValue::from_str(&POLICY) {
                    answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
                }
                answer
            }
            _ => {
                let paths = "there is /livez, /readyz, /metrics, /status and /\n";
                answer(StatusCode::NOT_FOUND, TEXT, paths)
            }
        }
    }
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers: &mut HeaderMap = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        // What is not a page needs nothing at all; the page has a policy of its own.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

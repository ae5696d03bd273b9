//! What the daemon counts, and the small HTTP server that shows it on `--admin`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::failure::{Failure, Kind};

/// Connections at once; a scraper needs one.
const MAX_CONNECTIONS: usize = 16;
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two attempts where the machine has no more descriptors.
const ACCEPT_DELAY: Duration = Duration::from_millis(100);

/// What the daemon counts.
#[derive(Debug, Default)]
pub(crate) struct Metrics(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last_success: Option<SystemTime>,
    successes: u64,
    failures: BTreeMap<Kind, u64>,
    certificates: usize,
}

impl Metrics {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count_success(&self, certificates: usize) {
        let mut state = self.state();
        state.last_success = Some(SystemTime::now());
        state.successes += 1;
        state.certificates = certificates;
    }

    pub(super) fn count_failure(&self, failure: &Failure) {
        *self.state().failures.entry(failure.kind).or_default() += 1;
    }

    fn render(&self) -> String {
        let state = self.state();
        let since_1970 = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let last = state.last_success.map(since_1970).unwrap_or_default().as_secs();
        let mut text = String::new();
        let mut series = |name: &str, kind: &str, help: &str, lines: &[(String, u64)]| {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for (labels, value) in lines {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let one = |value| [(String::new(), value)];
        let failures: Vec<_> = Kind::all()
            .map(|kind| {
                let count = state.failures.get(&kind).copied().unwrap_or_default();
                (format!("{{kind=\"{}\"}}", kind.as_str()), count)
            })
            .collect();
        series(
            "portcullis_fetch_last_success_timestamp_seconds",
            "gauge",
            "When a poll last succeeded, in seconds since 1970; 0 before the first.",
            &one(last),
        );
        series(
            "portcullis_fetch_successes_total",
            "counter",
            "Polls that brought the directory in step with the account.",
            &one(state.successes),
        );
        series(
            "portcullis_fetch_failures_total",
            "counter",
            "Failures of polls, by kind.",
            &failures,
        );
        series(
            "portcullis_fetch_certificates",
            "gauge",
            "Certificates in the directory that fetch keeps, after the last success.",
            &one(u64::try_from(state.certificates).unwrap_or(u64::MAX)),
        );
        text
    }

    fn respond(&self, method: &Method, path: &str) -> Response<String> {
        let (status, body) = match (method, path) {
            (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, self.render()),
            (&Method::GET | &Method::HEAD, "/livez") => (StatusCode::OK, "live\n".to_owned()),
            (&Method::GET | &Method::HEAD, "/readyz") => match self.state().last_success {
                Some(_) => (StatusCode::OK, "ready\n".to_owned()),
                None => (StatusCode::SERVICE_UNAVAILABLE, "not ready: no poll succeeded\n".into()),
            },
            (&Method::GET | &Method::HEAD, _) => {
                let paths = "there is /livez, /readyz and /metrics\n";
                (StatusCode::NOT_FOUND, paths.to_owned())
            }
            _ => (StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n".to_owned()),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let kind = match path {
            "/metrics" => "text/plain; version=0.0.4; charset=utf-8",
            _ => "text/plain; charset=utf-8",
        };
        let kind = header::HeaderValue::from_static(kind);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

/// Where the metrics are shown.
#[derive(Debug)]
pub(crate) struct Endpoint(TcpListener);

impl Endpoint {
    /// # Errors
    /// The address cannot be listened at.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        info!(addr = %listener.local_addr()?, "admin_listening");
        Ok(Self(listener))
    }

    /// Responds until it is dropped.
    pub(crate) async fn serve(self, metrics: Arc<Metrics>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.0.accept().await {
                Ok((socket, _)) => {
                    let metrics = Arc::clone(&metrics);
                    tokio::spawn(async move {
                        let _ = timeout(CONNECTION_TIMEOUT, serve(socket, metrics)).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, remedy = "raise the limit on open files", "accept_failed");
                    sleep(ACCEPT_DELAY).await;
                }
            }
        }
    }
}

async fn serve(socket: TcpStream, metrics: Arc<Metrics>) -> hyper::Result<()> {
    let service = service_fn(async |request: Request<Incoming>| {
        Ok::<_, Infallible>(metrics.respond(request.method(), request.uri().path()))
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(socket), service)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::ErrorKind;

    #[test]
    fn failures_are_counted_by_kind_and_success_has_its_time() {
        let metrics = Metrics::default();
        let shown = metrics.render();
        assert!(shown.contains("portcullis_fetch_last_success_timestamp_seconds 0\n"), "{shown}");
        let failure = Failure::new(Kind::Call(ErrorKind::Throttled), "", "");
        metrics.count_failure(&failure);
        metrics.count_failure(&failure);
        metrics.count_success(3);
        let shown = metrics.render();
        assert!(shown.contains("portcullis_fetch_failures_total{kind=\"throttled\"} 2\n"));
        assert!(shown.contains("portcullis_fetch_failures_total{kind=\"disk\"} 0\n"));
        assert!(shown.contains("portcullis_fetch_certificates 3\n"));
        assert!(!shown.contains("timestamp_seconds 0\n"), "{shown}");
    }
}

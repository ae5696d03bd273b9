//! From loaded files and listening sockets to a running server.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body::Body;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tracing::info;

use crate::error::BoxError;
use crate::reload::{Reload, ReloadRequest};
use crate::server::accept::limiter::HandshakeLimiter;
use crate::server::accept::pending::Pending;
use crate::server::accept::{self, Acceptor};
#[cfg(feature = "acme")]
use crate::server::acme_link::AcmeLink;
use crate::server::handle::Handle;
use crate::server::http::failure_log::FailureLog;
use crate::server::limits::Limits;
use crate::server::meters::Meters;
use crate::server::phase::Phase;
use crate::server::rejections::RejectionLog;
use crate::server::running::Running;
use crate::server::service::HttpService;
use crate::server::stop::{Stop, StopSequence};

/// A server whose files are loaded and whose sockets listen. Connections wait until it serves.
#[must_use = "it accepts no connection until it serves"]
pub struct Bound {
    pub(super) listeners: Vec<TcpListener>,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) reload: Reload,
    pub(super) reload_requests: mpsc::UnboundedSender<ReloadRequest>,
    pub(super) limits: Limits,
    pub(super) shutdown_delay: Duration,
    pub(super) server_file: PathBuf,
    #[cfg(feature = "acme")]
    pub(super) acme: Option<Arc<AcmeLink>>,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Bound {
    /// The addresses that it listens on, with the ports that the system chose.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves a tower service, for example an axum `Router`, which is cloned for each request.
    ///
    /// The extensions of each request hold a [`ClientIdentity`](crate::ClientIdentity) and a
    /// [`PeerAddr`](crate::PeerAddr). Must be called within a tokio runtime.
    pub fn serve<S, B>(self, service: S) -> Running
    where
        S: tower_service::Service<Request<Incoming>, Response = Response<B>, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        self.serve_hyper(TowerToHyperService::new(service))
    }

    /// Serves a hyper service as [`Bound::serve`] does a tower service.
    pub fn serve_hyper(self, service: impl HttpService) -> Running {
        let current = Arc::clone(self.reload.current());
        let results = Arc::clone(self.reload.results());
        let (phase, phase_seen) = watch::channel(Phase::Serving);
        let meters = Arc::new(Meters::new());
        let acceptor = Arc::new(Acceptor {
            service: Arc::new(service),
            current: Arc::clone(&current),
            pending: Arc::new(Pending::new(self.limits.max_handshakes)),
            limiter: HandshakeLimiter::new(self.limits.handshakes_at_once, Arc::clone(&meters)),
            connection_permits: Arc::new(Semaphore::new(self.limits.max_connections)),
            #[cfg(feature = "acme")]
            challenges: self.acme.as_ref().map(|link| Arc::clone(&link.challenges)),
            #[cfg(not(feature = "acme"))]
            challenges: None,
            limits: self.limits.clone(),
            meters,
            rejections: Arc::new(RejectionLog::new(Arc::clone(&results))),
            failures: FailureLog::default(),
        });
        for (listener, address) in self.listeners.into_iter().zip(&self.addresses) {
            info!(addr = %address, "listening");
            tokio::spawn(accept::accept(listener, Arc::clone(&acceptor), phase_seen.clone()));
        }
        let stop = Arc::new(Stop::default());
        let stopped = StopSequence {
            stop: Arc::clone(&stop),
            phase,
            current: Arc::clone(&current),
            rejections: Arc::clone(&acceptor.rejections),
            reload: tokio::spawn(self.reload.run()),
            shutdown_delay: self.shutdown_delay,
            drain_timeout: self.limits.drain_timeout,
        };
        let handle = Handle {
            stop,
            reload_requests: self.reload_requests,
            since: current.clock().now(),
            current,
            results,
            meters: Arc::clone(&acceptor.meters),
            rejections: Arc::clone(&acceptor.rejections),
            server_file: self.server_file.into(),
            #[cfg(feature = "acme")]
            acme: self.acme,
        };
        Running { handle, task: tokio::spawn(stopped.run()) }
    }
}

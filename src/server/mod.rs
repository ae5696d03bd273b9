//! One connection's life: accept → handshake → who is it → HTTP → drain.

pub(crate) mod accept;
mod config;
mod http;
mod meters;
mod rejections;
mod snapshot;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use http_body::Body;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::reload::{Current, Problem, Reload, ReloadRequest};
use crate::server::accept::Acceptor;
use crate::server::accept::limiter::HandshakeLimiter;
use crate::server::meters::Meters;
use crate::server::rejections::RejectionLog;

pub use accept::cidr::Cidr;
pub(crate) use accept::pending::Pending;
#[cfg(feature = "parts")]
pub(crate) use config::provider;
pub use config::{CheckReport, Config, StartError};
pub use http::gate::PeerAddr;
pub use meters::Handshakes;
pub use rejections::RejectedClient;
pub use snapshot::{NotReady, ServerCertificate, Snapshot, TrustedCertificate};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long connections that are cut may take to notice.
const CUT: Duration = Duration::from_secs(1);

/// How long those who came just before a drain may take to ask.
const GRACE: Duration = Duration::from_secs(1);

/// The bounds of a connection's life.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) handshake_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) head_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) max_connection_age: Option<Duration>,
    pub(crate) max_connections: usize,
    pub(crate) max_handshakes: usize,
    pub(crate) max_head_size: usize,
    pub(crate) max_headers: usize,
    pub(crate) max_streams: u32,
    pub(crate) max_resets: usize,
    pub(crate) max_stream_errors: usize,
    pub(crate) handshakes_at_once: usize,
    /// Who must begin with a PROXY protocol header, and nobody else may connect.
    pub(crate) proxy_protocol_from: Option<Vec<Cidr>>,
}

/// Where the server is on its way from serving to the end. It only ever goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It serves.
    Serving,
    /// It still accepts and serves, and asks each client to go elsewhere.
    LameDuck,
    /// It accepts nobody, and finishes what runs.
    Draining,
    /// What still runs is ended.
    Aborting,
}

/// A server whose files are loaded and whose sockets listen, and which answers nobody yet.
#[must_use = "it accepts nobody until it serves"]
pub struct Bound {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    reload: Reload,
    limits: Limits,
    shutdown_delay: Duration,
    asked: mpsc::UnboundedSender<ReloadRequest>,
    server_file: PathBuf,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Bound {
    /// The addresses that it listens at, with the ports that the system chose.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves with a tower service, an axum `Router` for one: it is cloned for each request.
    ///
    /// Each request carries a [`ClientIdentity`](crate::ClientIdentity) and a [`PeerAddr`] in its
    /// extensions. Must be called within a tokio runtime.
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

    /// Serves with a hyper service, as [`Bound::serve`] does with a tower service.
    pub fn serve_hyper<S, B>(self, service: S) -> Running
    where
        S: hyper::service::Service<
                Request<Incoming>,
                Response = Response<B>,
                Future: Send + 'static,
            > + Send
            + Sync
            + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let current = Arc::clone(self.reload.current());
        let (phase, seen) = watch::channel(Phase::Serving);
        let meters = Arc::new(Meters::new());
        let acceptor = Arc::new(Acceptor {
            service: Arc::new(service),
            current: Arc::clone(&current),
            pending: Arc::new(Pending::new(self.limits.max_handshakes)),
            limiter: HandshakeLimiter::new(self.limits.handshakes_at_once, Arc::clone(&meters)),
            room: Arc::new(Semaphore::new(self.limits.max_connections)),
            limits: self.limits.clone(),
            meters,
            refusals: Arc::default(),
        });
        for (listener, address) in self.listeners.into_iter().zip(&self.addresses) {
            info!(addr = %address, "listening");
            tokio::spawn(accept::accept(listener, Arc::clone(&acceptor), seen.clone()));
        }
        drop(seen);
        let reload = tokio::spawn(self.reload.run());
        let stop = Arc::new(Stop::default());
        let handle = Handle {
            stop,
            asked: self.asked,
            since: current.clock().now(),
            current,
            meters: Arc::clone(&acceptor.meters),
            refusals: Arc::clone(&acceptor.refusals),
            server_file: self.server_file.into(),
        };
        let task = tokio::spawn(run_to_the_end(
            phase,
            handle.clone(),
            reload,
            self.shutdown_delay,
            self.limits.drain_timeout,
        ));
        Running { handle, task }
    }
}

/// A server that serves. Dropping it leaves it serving.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    task: JoinHandle<Stopped>,
}

impl Running {
    /// A handle to stop it and to see its state.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until it has been stopped and everything has ended.
    pub async fn stopped(self) -> Stopped {
        self.task.await.unwrap_or(Stopped { connections_aborted: 0 })
    }
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// How many connections were cut because they had not finished in time.
    pub connections_aborted: usize,
}

#[derive(Debug, Default)]
struct Stop {
    has_begun: AtomicBool,
    gracefully: Notify,
    at_once: Notify,
}

impl Stop {
    fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }
}

/// Stops a running server, has it look at its files, and tells its state. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    stop: Arc<Stop>,
    asked: mpsc::UnboundedSender<ReloadRequest>,
    current: Arc<Current>,
    meters: Arc<Meters>,
    refusals: Arc<RejectionLog>,
    since: SystemTime,
    server_file: Arc<std::path::Path>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

impl Handle {
    /// Begins to stop: the shutdown delay, then the drain. Later calls change nothing.
    pub fn stop(&self) {
        self.stop.has_begun.store(true, Ordering::Release);
        self.stop.gracefully.notify_one();
    }

    /// Ends at once what a stop would wait for.
    pub fn abort(&self) {
        self.stop.has_begun.store(true, Ordering::Release);
        self.stop.at_once.notify_one();
    }

    /// Has every file read again now. What is returned is done when what they say is in force; it
    /// need not be waited for. A server that has stopped reads nothing.
    pub fn reload(&self) -> impl Future<Output = ()> + Send + use<> {
        let (asked, done) = oneshot::channel();
        // A server that has stopped hears of it by the channel's end, and so does who waits.
        let _ = self.asked.send(asked);
        async move {
            let _ = done.await;
        }
    }

    /// The number of the generation in force: 1 at start, one more at each change.
    pub fn generation(&self) -> u64 {
        self.current.newest().number
    }

    /// Waits until a generation after this one is in force; returns its number.
    pub async fn generation_after(&self, number: u64) -> u64 {
        let mut newest = self.current.subscribe();
        match newest.wait_for(|generation| generation.number > number).await {
            Ok(generation) => generation.number,
            // The sender lives as long as this handle.
            Err(_) => std::future::pending().await,
        }
    }

    /// How many connections are let in now.
    pub fn connections(&self) -> usize {
        self.current.live_count()
    }

    /// How many connections there were at once at most since this was last asked, those that were
    /// not let in included.
    pub fn take_peak_connections(&self) -> usize {
        self.meters.take_peak_open()
    }

    /// What is wrong or odd with the files as they were last read.
    pub fn problems(&self) -> Vec<Problem> {
        self.current.problems()
    }
}

async fn run_to_the_end(
    phase: watch::Sender<Phase>,
    handle: Handle,
    reload: JoinHandle<()>,
    shutdown_delay: Duration,
    drain_timeout: Duration,
) -> Stopped {
    let Handle { stop, current, refusals, .. } = handle;
    let mut at_once = std::pin::pin!(stop.at_once.notified());
    let is_graceful = tokio::select! {
        () = stop.gracefully.notified() => true,
        () = &mut at_once => false,
    };
    info!(connections = current.live_count(), ?shutdown_delay, ?drain_timeout, "draining");
    if is_graceful {
        let steps = [(Phase::LameDuck, shutdown_delay), (Phase::Draining, drain_timeout)];
        for (step, lasts) in steps {
            phase.send_replace(step);
            let end = Instant::now() + lasts;
            tokio::select! {
                biased;
                () = phase.closed() => break,
                () = &mut at_once => break,
                () = sleep_until(end) => {}
            }
        }
    }
    let connections_aborted = current.live_count();
    phase.send_replace(Phase::Aborting);
    if timeout(CUT, phase.closed()).await.is_err() {
        warn!(connections = current.live_count(), "still_running");
    }
    reload.abort();
    refusals.log_suppressed();
    info!(connections_aborted, "stopped");
    Stopped { connections_aborted }
}

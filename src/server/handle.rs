//! The handle of a running server, for its operator and for the binary's signals.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot};

use crate::reload::{Current, Problem, ReloadRequest, ScanResults};
#[cfg(feature = "acme")]
use crate::server::acme_link::AcmeLink;
use crate::server::meters::Meters;
use crate::server::rejections::RejectionLog;
use crate::server::stop::Stop;

/// Stops a running server, reloads its files and reports its state. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) stop: Arc<Stop>,
    pub(super) reload_requests: mpsc::UnboundedSender<ReloadRequest>,
    pub(super) current: Arc<Current>,
    pub(super) results: Arc<ScanResults>,
    pub(super) meters: Arc<Meters>,
    pub(super) rejections: Arc<RejectionLog>,
    pub(super) since: SystemTime,
    pub(super) server_file: Arc<Path>,
    #[cfg(feature = "acme")]
    pub(super) acme: Option<Arc<AcmeLink>>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

impl Handle {
    /// Begins to stop: the shutdown delay, then the drain. Later calls change nothing.
    pub fn stop(&self) {
        self.stop.drain();
    }

    /// Stops without waiting for requests in flight.
    pub fn abort(&self) {
        self.stop.abort();
    }

    /// Reads every file again now. The future completes when the result is active; the reload goes
    /// on if it is dropped. A server that has stopped reads nothing.
    pub fn reload(&self) -> impl Future<Output = ()> + Send + use<> {
        let (request, done) = oneshot::channel();
        // A server that has stopped drops the request, which completes the future.
        let _ = self.reload_requests.send(request);
        async move {
            let _ = done.await;
        }
    }

    /// The number of the active generation: 1 at start, one more at each change.
    pub fn generation(&self) -> u64 {
        self.current.newest().number
    }

    /// Waits until a generation after this one is active; returns its number.
    pub async fn generation_after(&self, number: u64) -> u64 {
        let mut newest = self.current.subscribe();
        match newest.wait_for(|generation| generation.number > number).await {
            Ok(generation) => generation.number,
            // Not reached: this handle keeps the sender alive.
            Err(_) => std::future::pending().await,
        }
    }

    /// The number of admitted connections that are open.
    pub fn connections(&self) -> usize {
        self.current.live_count()
    }

    /// The problems of the files as they were last read.
    pub fn problems(&self) -> Vec<Problem> {
        self.results.problems()
    }
}

#[cfg(feature = "acme")]
impl Handle {
    /// What the server presents now.
    pub(crate) fn server_identity(&self) -> Option<Arc<crate::reload::ServerIdentity>> {
        self.current.newest().identity.clone()
    }
}

//! Whether the application can be reached.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use metrics::{describe_gauge, gauge};
use tokio::time::timeout;

use crate::service::proxy::upstream::Upstream;

const UNKNOWN: u8 = 0;
const REACHED: u8 = 1;
const FAILED: u8 = 2;

/// How long a check may take to connect: a readiness probe waits for it.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether the last connect to an application succeeded. Clones share it.
#[derive(Clone)]
pub struct UpstreamState(Arc<Inner>);

struct Inner {
    upstream: Upstream,
    last: AtomicU8,
}

impl fmt::Debug for UpstreamState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamState").field("last_connect", &self.last_connect()).finish()
    }
}

impl UpstreamState {
    pub(super) fn new(upstream: Upstream) -> Self {
        describe_gauge!(
            "portcullis_upstream_up",
            "1 if the last connect to the application succeeded, 0 if it failed, NaN before the first."
        );
        gauge!("portcullis_upstream_up").set(f64::NAN);
        Self(Arc::new(Inner { upstream, last: AtomicU8::new(UNKNOWN) }))
    }

    /// Whether the last connect succeeded; `None` before the first.
    pub fn last_connect(&self) -> Option<bool> {
        match self.0.last.load(Ordering::Relaxed) {
            UNKNOWN => None,
            last => Some(last == REACHED),
        }
    }

    /// Connects once, within a second, and closes the connection. A readiness endpoint calls this:
    /// where no request comes, nothing else would notice that the application is back.
    pub async fn is_reachable(&self) -> bool {
        let connected = timeout(CHECK_TIMEOUT, self.0.upstream.connect_once()).await;
        let is_reached = matches!(connected, Ok(Ok(_)));
        self.record(is_reached);
        is_reached
    }

    pub(super) fn record(&self, is_reached: bool) {
        let last = if is_reached { REACHED } else { FAILED };
        self.0.last.store(last, Ordering::Relaxed);
        gauge!("portcullis_upstream_up").set(if is_reached { 1.0 } else { 0.0 });
    }
}

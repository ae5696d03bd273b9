//! The stop sequence: serving → lame duck → draining → aborting.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::reload::Current;
use crate::server::phase::Phase;
use crate::server::rejections::RejectionLog;

/// How long aborted connections may take to close.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// How many connections were aborted because they had not finished in time.
    pub connections_aborted: usize,
}

/// The request to stop, which handles share.
#[derive(Debug, Default)]
pub(super) struct Stop {
    has_begun: AtomicBool,
    drain: Notify,
    abort: Notify,
}

impl Stop {
    pub(super) fn drain(&self) {
        self.has_begun.store(true, Ordering::Release);
        self.drain.notify_one();
    }

    pub(super) fn abort(&self) {
        self.has_begun.store(true, Ordering::Release);
        self.abort.notify_one();
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }
}

/// What the stop sequence acts on.
#[derive(Debug)]
pub(super) struct StopSequence {
    pub(super) stop: Arc<Stop>,
    /// Every connection holds a receiver: the channel closes with the last of them.
    pub(super) phase: watch::Sender<Phase>,
    pub(super) current: Arc<Current>,
    pub(super) rejections: Arc<RejectionLog>,
    pub(super) reload: JoinHandle<()>,
    pub(super) shutdown_delay: Duration,
    pub(super) drain_timeout: Duration,
}

impl StopSequence {
    /// Waits for the request to stop, then goes through the phases.
    pub(super) async fn run(self) -> Stopped {
        let Self { stop, phase, current, shutdown_delay, drain_timeout, .. } = self;
        let mut abort = pin!(stop.abort.notified());
        let is_graceful = tokio::select! {
            () = stop.drain.notified() => true,
            () = &mut abort => false,
        };
        info!(
            connections = current.live_count(),
            shutdown_delay = shutdown_delay.as_secs_f64(),
            drain_timeout = drain_timeout.as_secs_f64(),
            "draining"
        );
        if is_graceful {
            let steps = [(Phase::LameDuck, shutdown_delay), (Phase::Draining, drain_timeout)];
            for (step, duration) in steps {
                phase.send_replace(step);
                let end = Instant::now() + duration;
                tokio::select! {
                    biased;
                    () = phase.closed() => break,
                    () = &mut abort => break,
                    () = sleep_until(end) => {}
                }
            }
        }
        let connections_aborted = current.live_count();
        phase.send_replace(Phase::Aborting);
        if timeout(ABORT_TIMEOUT, phase.closed()).await.is_err() {
            warn!(connections = current.live_count(), "still_running");
        }
        self.reload.abort();
        self.rejections.log_suppressed();
        info!(connections_cut = connections_aborted, "stopped");
        Stopped { connections_aborted }
    }
}

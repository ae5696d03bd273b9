//! The signals that `serve` handles.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use super::systemd;
use crate::Handle;

/// SIGTERM and SIGINT stop the server, a second one at once; SIGHUP reloads its files.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    is_stopping: bool,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            is_stopping: false,
        })
    }

    /// Waits for the next signal and handles it.
    pub(super) async fn handle_next(&mut self, handle: &Handle) {
        let is_stop = tokio::select! {
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => true,
            _ = self.hang_up.recv() => false,
        };
        match (is_stop, self.is_stopping) {
            (true, false) => {
                systemd::stopping();
                handle.stop();
            }
            (true, true) => handle.abort(),
            (false, false) => {
                systemd::reloading();
                let (reloaded, handle) = (handle.reload(), handle.clone());
                tokio::spawn(async move {
                    reloaded.await;
                    systemd::ready();
                    info!(generation = handle.generation(), "reloaded");
                });
            }
            (false, true) => {}
        }
        self.is_stopping |= is_stop;
    }
}

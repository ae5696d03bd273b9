//! A running server: how it is stopped and awaited.

use std::future::IntoFuture;
use std::pin::Pin;

use tokio::task::JoinHandle;

use crate::server::handle::Handle;
use crate::server::stop::Stopped;

/// A running server. Await it to wait for its end; dropping it does not stop the server.
#[derive(Debug)]
#[must_use = "await it, or the process may end while it serves"]
pub struct Running {
    pub(super) handle: Handle,
    pub(super) task: JoinHandle<Stopped>,
}

impl Running {
    /// A handle to stop the server and to see its state.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Stops the server gracefully when this future completes, as [`Handle::stop`] does.
    pub fn with_graceful_shutdown(
        self,
        signal: impl Future<Output: Send> + Send + 'static,
    ) -> Self {
        let handle = self.handle();
        tokio::spawn(async move {
            signal.await;
            handle.stop();
        });
        self
    }

    /// Waits until the server has been stopped and every connection is closed.
    pub async fn stopped(self) -> Stopped {
        self.task.await.unwrap_or(Stopped { connections_aborted: 0 })
    }
}

impl IntoFuture for Running {
    type Output = Stopped;
    type IntoFuture = Pin<Box<dyn Future<Output = Stopped> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.stopped())
    }
}

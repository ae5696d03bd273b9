//! The protocols of systemd, which other service managers have too: sockets by `LISTEN_FDS`, and
//! notifications by `NOTIFY_SOCKET`. Nothing happens where neither is set.

use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tracing::warn;

/// Takes the sockets that the service manager has passed. It changes the environment, so it must run
/// before there is a second thread.
///
/// # Errors
/// One of them is not a TCP socket.
pub(super) fn sockets() -> io::Result<Vec<TcpListener>> {
    let mut passed = ListenFd::from_env();
    (0..passed.len()).filter_map(|index| passed.take_tcp_listener(index).transpose()).collect()
}

/// Notifies that the server is ready, with its files as they are now.
pub(super) fn ready() {
    notify(Ok(vec![NotifyState::Ready]));
}

/// Notifies that a reload begins; [`ready`] follows.
pub(super) fn reloading() {
    let now = NotifyState::monotonic_usec_now();
    notify(now.map(|now| vec![NotifyState::Reloading, now]));
}

/// Notifies that a stop begins.
pub(super) fn stopping() {
    notify(Ok(vec![NotifyState::Stopping]));
}

fn notify(state: io::Result<Vec<NotifyState<'_>>>) {
    if let Err(error) = state.and_then(|state| sd_notify::notify(&state)) {
        warn!(%error, remedy = "check NOTIFY_SOCKET, or unset it", "notify_failed");
    }
}

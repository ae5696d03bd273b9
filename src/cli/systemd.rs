//! What a service manager passes and is told: sockets that it has opened, and how far this is.
//!
//! systemd's protocols, which others speak too: `LISTEN_FDS`, and `NOTIFY_SOCKET`. Where neither is
//! set, nothing is done.

use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tracing::warn;

/// The sockets that were passed. They can be taken once, and before there is a second thread: it
/// changes the environment.
///
/// # Errors
/// One of them is no TCP socket.
pub fn sockets() -> io::Result<Vec<TcpListener>> {
    let mut passed = ListenFd::from_env();
    (0..passed.len()).filter_map(|index| passed.take_tcp_listener(index).transpose()).collect()
}

/// Says that it serves, with what its files now say.
pub fn ready() {
    say(Ok(vec![NotifyState::Ready]));
}

/// Says that it reads its files again; [`ready`] follows.
pub fn reloading() {
    let now = NotifyState::monotonic_usec_now();
    say(now.map(|now| vec![NotifyState::Reloading, now]));
}

/// Says that it begins to stop.
pub fn stopping() {
    say(Ok(vec![NotifyState::Stopping]));
}

fn say(state: io::Result<Vec<NotifyState<'_>>>) {
    if let Err(error) = state.and_then(|state| sd_notify::notify(&state)) {
        warn!(%error, remedy = "check NOTIFY_SOCKET, or unset it", "notify_failed");
    }
}

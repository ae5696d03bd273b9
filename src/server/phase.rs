//! The phases of a stop, which every connection follows.

use std::time::Duration;

/// How long a client that connected just before the drain may take to send its first request.
pub(super) const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// Where the server is on its way from serving to its end. Phases never go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Serving,
    /// It accepts and serves; each response is the last of its connection.
    LameDuck,
    /// It accepts no connection and finishes the requests in flight.
    Draining,
    /// It closes what is still open.
    Aborting,
}

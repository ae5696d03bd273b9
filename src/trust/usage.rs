//! How much a trusted certificate is used: the evidence that another one may go.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use rustls::pki_types::UnixTime;

use super::certificate::system_time;

/// What has been seen of a trusted certificate since it was loaded; for a trust anchor, of all
/// chains to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// How many connections were let in with it.
    pub handshakes: u64,
    /// How many requests came by them.
    pub requests: u64,
    /// How many of them are open.
    pub connections: u64,
    /// When it was first used.
    pub first_seen: Option<SystemTime>,
    /// When it was last used: a handshake or a request.
    pub last_seen: Option<SystemTime>,
    /// When it last had a request.
    pub last_request: Option<SystemTime>,
    /// Whether it has been trusted since the server started.
    pub since_start: bool,
}

/// The same, while it is being counted. Carried over from generation to generation while the
/// certificate stays, and shared by its connections, so that counting is an addition and no lookup.
#[derive(Debug, Default)]
pub(crate) struct UsageCounters {
    handshakes: AtomicU64,
    requests: AtomicU64,
    connections: AtomicU64,
    /// In seconds since 1970; 0 for never.
    first_seen: AtomicU64,
    last_seen: AtomicU64,
    last_request: AtomicU64,
    since_start: bool,
}

impl UsageCounters {
    pub(crate) fn new(since_start: bool) -> Self {
        Self { since_start, ..Self::default() }
    }

    pub(crate) fn connected(&self, now: UnixTime) {
        self.handshakes.fetch_add(1, Relaxed);
        self.connections.fetch_add(1, Relaxed);
        // Only the first one finds it empty.
        let _ = self.first_seen.compare_exchange(0, now.as_secs(), Relaxed, Relaxed);
        store_second(&self.last_seen, now);
    }

    pub(crate) fn requested(&self, now: UnixTime) {
        self.requests.fetch_add(1, Relaxed);
        store_second(&self.last_request, now);
        store_second(&self.last_seen, now);
    }

    pub(crate) fn left(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    pub(crate) fn usage(&self) -> Usage {
        let time = |seconds: &AtomicU64| match seconds.load(Relaxed) {
            0 => None,
            seconds => Some(system_time(UnixTime::since_unix_epoch(
                std::time::Duration::from_secs(seconds),
            ))),
        };
        Usage {
            handshakes: self.handshakes.load(Relaxed),
            requests: self.requests.load(Relaxed),
            connections: self.connections.load(Relaxed),
            first_seen: time(&self.first_seen),
            last_seen: time(&self.last_seen),
            last_request: time(&self.last_request),
            since_start: self.since_start,
        }
    }
}

/// Once a second is enough: the other processors keep their copy in between.
fn store_second(time: &AtomicU64, now: UnixTime) {
    if time.load(Relaxed) != now.as_secs() {
        time.store(now.as_secs(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_counted_is_told() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let counts = UsageCounters::default();
        assert_eq!(counts.usage(), Usage::default());
        counts.connected(at(10));
        counts.requested(at(11));
        counts.requested(at(12));
        counts.connected(at(13));
        counts.left();
        let usage = counts.usage();
        assert_eq!((usage.handshakes, usage.requests, usage.connections), (2, 2, 1));
        assert_eq!(usage.first_seen, Some(system_time(at(10))));
        assert_eq!(usage.last_seen, Some(system_time(at(13))));
    }
}

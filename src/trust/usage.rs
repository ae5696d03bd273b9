//! How much each trusted certificate is used, which shows an operator which one to remove.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;

use super::validity::system_time;

/// The use of a trusted certificate since it was loaded; for a trust anchor, of all chains to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// How many connections were accepted with it.
    pub handshakes: u64,
    /// How many requests these connections had.
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

/// The requests of one API with one trusted certificate since the certificate was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiUsage {
    /// Requests that named the API.
    pub requests: u64,
    /// The time of the last one.
    pub last_seen: Option<SystemTime>,
}

/// Only so many APIs of one certificate are counted: the ids come from a header.
const MAX_APIS: usize = 100;
/// An id of API Gateway has ten characters.
const MAX_API_ID: usize = 64;

/// One API's part of [`UsageCounters`].
#[derive(Debug)]
pub(crate) struct ApiCounts {
    id: Box<str>,
    requests: AtomicU64,
    last_seen: AtomicU64,
}

/// The API of a connection's first request. API Gateway opens connections for each API, so that
/// counting a request compares one id and takes no lock.
pub(crate) type ConnectionApi = OnceLock<Arc<ApiCounts>>;

/// The counters behind [`Usage`]. They pass from generation to generation while the certificate
/// stays, and its connections share them, so that counting is an addition and no lookup.
#[derive(Debug, Default)]
pub(crate) struct UsageCounters {
    handshakes: AtomicU64,
    requests: AtomicU64,
    connections: AtomicU64,
    /// In seconds since 1970; 0 for never.
    first_seen: AtomicU64,
    last_connected: AtomicU64,
    last_request: AtomicU64,
    since_start: bool,
    apis: RwLock<Vec<Arc<ApiCounts>>>,
}

impl UsageCounters {
    pub(crate) fn new(since_start: bool) -> Self {
        Self { since_start, ..Self::default() }
    }

    pub(crate) fn connected(&self, now: UnixTime) {
        self.handshakes.fetch_add(1, Relaxed);
        self.connections.fetch_add(1, Relaxed);
        // Only the first connection finds it empty.
        let _ = self.first_seen.compare_exchange(0, now.as_secs(), Relaxed, Relaxed);
        store_second(&self.last_connected, now);
    }

    pub(crate) fn requested(&self, now: UnixTime) {
        self.requests.fetch_add(1, Relaxed);
        store_second(&self.last_request, now);
    }

    /// Counts a request that names its API.
    pub(crate) fn requested_by_api(&self, id: &[u8], connection: &ConnectionApi, now: UnixTime) {
        let is_known = |api: &&Arc<ApiCounts>| api.id.as_bytes() == id;
        if let Some(api) = connection.get().filter(is_known) {
            return api.requested(now);
        }
        if let Some(api) = self.api(id) {
            api.requested(now);
            // A connection that carries several APIs keeps its first one.
            let _ = connection.set(api);
        }
    }

    fn api(&self, id: &[u8]) -> Option<Arc<ApiCounts>> {
        let find = |apis: &[Arc<ApiCounts>]| {
            apis.iter().find(|api| api.id.as_bytes() == id).map(Arc::clone)
        };
        if let Some(api) = find(&self.apis.read().unwrap_or_else(PoisonError::into_inner)) {
            return Some(api);
        }
        let is_id = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        if id.is_empty() || id.len() > MAX_API_ID || !id.iter().all(is_id) {
            return None;
        }
        let mut apis = self.apis.write().unwrap_or_else(PoisonError::into_inner);
        // Another connection may have added it in between.
        if let Some(api) = find(&apis) {
            return Some(api);
        }
        if apis.len() == MAX_APIS {
            return None;
        }
        let (requests, last_seen) = (AtomicU64::new(0), AtomicU64::new(0));
        let api = Arc::new(ApiCounts { id: str::from_utf8(id).ok()?.into(), requests, last_seen });
        apis.push(Arc::clone(&api));
        Some(api)
    }

    /// The usage by each API that has been seen.
    pub(crate) fn apis(&self) -> BTreeMap<String, ApiUsage> {
        let apis = self.apis.read().unwrap_or_else(PoisonError::into_inner);
        let usage = |api: &Arc<ApiCounts>| ApiUsage {
            requests: api.requests.load(Relaxed),
            last_seen: time(&api.last_seen),
        };
        apis.iter().map(|api| (api.id.to_string(), usage(api))).collect()
    }

    pub(crate) fn disconnected(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            handshakes: self.handshakes.load(Relaxed),
            requests: self.requests.load(Relaxed),
            connections: self.connections.load(Relaxed),
            first_seen: time(&self.first_seen),
            last_seen: time(&self.last_connected).max(time(&self.last_request)),
            last_request: time(&self.last_request),
            since_start: self.since_start,
        }
    }
}

impl ApiCounts {
    fn requested(&self, now: UnixTime) {
        self.requests.fetch_add(1, Relaxed);
        store_second(&self.last_seen, now);
    }
}

fn time(seconds: &AtomicU64) -> Option<SystemTime> {
    match seconds.load(Relaxed) {
        0 => None,
        seconds => Some(system_time(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))),
    }
}

/// Once a second is enough: in between, the other cores keep their copy of the cache line.
fn store_second(time: &AtomicU64, now: UnixTime) {
    if time.load(Relaxed) != now.as_secs() {
        time.store(now.as_secs(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_for_each_api() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let counts = UsageCounters::default();
        let [one, other] = [ConnectionApi::new(), ConnectionApi::new()];
        counts.requested_by_api(b"abc123defg", &one, at(10));
        counts.requested_by_api(b"abc123defg", &other, at(11));
        counts.requested_by_api(b"other", &one, at(12));
        counts.requested_by_api(b"abc123defg", &one, at(13));
        let usage =
            |requests, seconds| ApiUsage { requests, last_seen: Some(system_time(at(seconds))) };
        let expected = [("abc123defg", usage(3, 13)), ("other", usage(1, 12))];
        assert_eq!(counts.apis(), expected.map(|(id, usage)| (id.to_owned(), usage)).into());
    }

    #[test]
    fn at_most_100_apis_are_counted_and_only_what_may_be_an_id() {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(10));
        let counts = UsageCounters::default();
        for id in ["", "a b", "a,b", "\u{e9}", &"a".repeat(65)] {
            counts.requested_by_api(id.as_bytes(), &ConnectionApi::new(), now);
        }
        assert_eq!(counts.apis(), BTreeMap::new());
        for number in 0..101 {
            let id = format!("api-{number}");
            counts.requested_by_api(id.as_bytes(), &ConnectionApi::new(), now);
        }
        assert_eq!(counts.apis().len(), 100);
        assert!(counts.apis().contains_key("api-99"));
    }

    #[test]
    fn usage_reports_each_counter_and_the_latest_time() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let counts = UsageCounters::default();
        assert_eq!(counts.usage(), Usage::default());
        counts.connected(at(10));
        counts.requested(at(11));
        counts.requested(at(12));
        counts.connected(at(13));
        counts.disconnected();
        let usage = counts.usage();
        assert_eq!((usage.handshakes, usage.requests, usage.connections), (2, 2, 1));
        assert_eq!(usage.first_seen, Some(system_time(at(10))));
        assert_eq!(usage.last_seen, Some(system_time(at(13))));
    }
}

//! Tracks traffic: which APIs use a certificate, and since when a certificate is quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::replicas::Replica;

/// The requests of each API with one certificate, counted from a moment on.
#[derive(Debug, Default)]
pub(crate) struct ApiTracker {
    fingerprint: String,
    /// By process and API.
    last: BTreeMap<(String, String), u64>,
    instances: BTreeSet<String>,
    is_begun: bool,
    /// When each API's counter last grew.
    seen: BTreeMap<String, Instant>,
}

impl ApiTracker {
    pub(crate) fn of(fingerprint: &str) -> Self {
        Self { fingerprint: fingerprint.to_owned(), ..Self::default() }
    }

    /// Records the counters. The first call only sets the baseline; a process that
    /// appears later began with nothing.
    pub(crate) fn observe(&mut self, replicas: &[Replica], now: Instant) {
        for replica in replicas {
            let counters = replica.trusted.get(&self.fingerprint);
            let is_counted = self.is_begun;
            for (api, requests) in counters.iter().flat_map(|counters| &counters.apis) {
                let key = (replica.instance.clone(), api.clone());
                let last = self.last.insert(key, *requests).unwrap_or_default();
                // A smaller counter has restarted.
                if is_counted && *requests != last && *requests > 0 {
                    self.seen.insert(api.clone(), now);
                }
            }
            self.instances.insert(replica.instance.clone());
        }
        self.is_begun = true;
    }

    pub(crate) fn is_seen(&self, api: &str) -> bool {
        self.seen.contains_key(api)
    }

    pub(crate) fn is_seen_at_all(&self) -> bool {
        !self.seen.is_empty()
    }

    /// True if the API used the certificate within this time.
    pub(crate) fn is_recent(&self, api: &str, within: Duration, now: Instant) -> bool {
        self.seen.get(api).is_some_and(|seen| now.duration_since(*seen) < within)
    }
}

/// Since when each process has counted no request with a certificate.
#[derive(Debug)]
pub(crate) struct QuietTracker {
    fingerprint: String,
    processes: BTreeMap<String, (u64, Instant)>,
}

impl QuietTracker {
    pub(crate) fn of(fingerprint: &str) -> Self {
        Self { fingerprint: fingerprint.to_owned(), processes: BTreeMap::new() }
    }

    /// For how long all of these processes have been quiet.
    pub(crate) fn observe(&mut self, replicas: &[Replica], now: Instant) -> Duration {
        let mut shortest = None;
        for replica in replicas {
            let requests =
                replica.trusted.get(&self.fingerprint).map_or(0, |counters| counters.requests);
            let known = self.processes.entry(replica.instance.clone()).or_insert((requests, now));
            if known.0 != requests {
                *known = (requests, now);
            }
            let quiet = now.duration_since(known.1);
            shortest = Some(shortest.map_or(quiet, |shortest: Duration| shortest.min(quiet)));
        }
        shortest.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::replicas::Counters;
    use super::*;

    fn replica(instance: &str, requests: u64, api: Option<(&str, u64)>) -> Replica {
        let apis = api.into_iter().map(|(api, requests)| (api.to_owned(), requests)).collect();
        let counters = Counters { requests, apis, ..Counters::default() };
        Replica {
            address: "127.0.0.1:9".parse().unwrap(),
            instance: instance.to_owned(),
            trusted: [("f".to_owned(), counters)].into(),
        }
    }

    fn second(start: Instant, second: u64) -> Instant {
        start + Duration::from_secs(second)
    }

    #[test]
    fn request_or_restart_on_one_replica_starts_its_quiet_time_again() {
        let start = Instant::now();
        let mut quiet = QuietTracker::of("f");
        let mut observe =
            |at, replicas: &[Replica]| quiet.observe(replicas, second(start, at)).as_secs();
        assert_eq!(observe(0, &[replica("a", 7, None), replica("b", 0, None)]), 0);
        assert_eq!(observe(10, &[replica("a", 7, None), replica("b", 0, None)]), 10);
        assert_eq!(observe(20, &[replica("a", 8, None), replica("b", 0, None)]), 0);
        assert_eq!(observe(50, &[replica("a", 8, None), replica("b", 0, None)]), 30);
        assert_eq!(observe(60, &[replica("a", 8, None), replica("c", 0, None)]), 0);
        assert_eq!(observe(65, &[replica("a", 8, None), replica("c", 0, None)]), 5);
        assert_eq!(observe(70, &[replica("a", 0, None), replica("c", 0, None)]), 0);
        assert_eq!(observe(80, &[]), 0);
    }

    #[test]
    fn api_counts_as_seen_only_after_counting_began() {
        let start = Instant::now();
        let mut seen = ApiTracker::of("f");
        seen.observe(&[replica("a", 5, Some(("api", 5)))], start);
        assert!(!seen.is_seen("api") && !seen.is_seen_at_all());
        seen.observe(&[replica("a", 5, Some(("api", 5)))], second(start, 1));
        assert!(!seen.is_seen("api"));
        seen.observe(&[replica("a", 6, Some(("api", 6)))], second(start, 2));
        assert!(seen.is_seen("api") && !seen.is_seen("other"));
        assert!(seen.is_recent("api", Duration::from_secs(2), second(start, 3)));
        assert!(!seen.is_recent("api", Duration::from_secs(2), second(start, 5)));
    }

    #[test]
    fn api_is_seen_by_a_process_that_started_later() {
        let start = Instant::now();
        let mut seen = ApiTracker::of("f");
        seen.observe(&[replica("a", 5, Some(("api", 5)))], start);
        seen.observe(&[replica("b", 1, Some(("api", 1)))], second(start, 1));
        assert!(seen.is_seen("api"));
    }
}

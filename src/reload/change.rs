//! What a change of the trusted certificates adds and removes.

use std::collections::{BTreeMap, HashMap};

use rustls::pki_types::UnixTime;
use tracing::{info, warn};

use crate::fields::List;
use crate::reload::generation::Generation;
use crate::trust::{
    Fingerprint, LatestEnds, LoadedCertificate, Role, TrustStore, rfc3339, step_after_end,
};

/// A log line names at most this many certificates.
const MAX_NAMED: usize = 20;

/// The difference between a generation and the trust store that follows it.
#[derive(Default)]
pub(super) struct Change {
    added: Vec<LoadedCertificate>,
    pub(super) removed: Vec<LoadedCertificate>,
    /// Still trusted, and now valid.
    became_valid: Vec<LoadedCertificate>,
    /// Still trusted, and now expired, by their next step.
    expired: BTreeMap<&'static str, Vec<LoadedCertificate>>,
    /// The same certificates, in other files.
    is_moved: bool,
}

impl Change {
    pub(super) fn between(before: &Generation, store: &TrustStore, now: UnixTime) -> Self {
        let by_key = |store: &TrustStore| -> HashMap<(Role, Fingerprint), LoadedCertificate> {
            store.certificates().iter().map(|loaded| (loaded.key(), loaded.clone())).collect()
        };
        let (old, new) = (by_key(&before.store), by_key(store));
        let mut change = Self::default();
        for loaded in before.store.certificates() {
            if !new.contains_key(&loaded.key()) {
                change.removed.push(loaded.clone());
            }
        }
        let latest = LatestEnds::of(store.certificates().iter());
        for loaded in store.certificates() {
            let is_valid = loaded.certificate.validity().contains(now);
            match old.get(&loaded.key()) {
                None => change.added.push(loaded.clone()),
                Some(same) => {
                    match (before.active.contains(&loaded.key()), is_valid) {
                        (false, true) => change.became_valid.push(loaded.clone()),
                        (true, false) => {
                            let has_successor =
                                latest.has_successor(loaded.role, loaded.certificate.validity());
                            let step = step_after_end(loaded.role, has_successor);
                            change.expired.entry(step).or_default().push(loaded.clone());
                        }
                        _ => {}
                    }
                    change.is_moved |= same.file != loaded.file;
                }
            }
        }
        change
    }

    /// True if some client is accepted no longer.
    pub(super) fn removes_any(&self) -> bool {
        !self.removed.is_empty() || !self.expired.is_empty()
    }

    pub(super) fn is_nothing(&self) -> bool {
        !self.removes_any()
            && self.added.is_empty()
            && self.became_valid.is_empty()
            && !self.is_moved
    }

    pub(super) fn log(&self, generation: u64, connections_ended: usize) {
        if !self.added.is_empty() || !self.removed.is_empty() {
            info!(
                generation,
                added = names(&self.added).field(),
                removed = names(&self.removed).field(),
                connections_ended,
                "trust_reloaded"
            );
        }
        for (remedy, expired) in &self.expired {
            warn!(
                generation,
                certificates = names(expired).field(),
                connections_ended,
                remedy,
                "certificate_ended"
            );
        }
        if !self.became_valid.is_empty() {
            info!(
                generation,
                certificates = names(&self.became_valid).field(),
                "certificate_begun"
            );
        }
    }
}

/// Certificates for a log line: file, fingerprint and end of each, up to [`MAX_NAMED`].
pub(super) fn names(certificates: &[LoadedCertificate]) -> List {
    let named = certificates.iter().take(MAX_NAMED).map(|loaded| {
        let summary = loaded.certificate.summary();
        let not_after = rfc3339(summary.validity.not_after);
        format!("{} {} until {not_after}", loaded.file.display(), summary.fingerprint)
    });
    let more = certificates.len().saturating_sub(MAX_NAMED);
    List::new(named.chain((more > 0).then(|| format!("and {more} more"))))
}

//! What the scans of the files found, for the log, the metrics and the status page.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::reload::problem::Problem;
use crate::reload::removed::RemovedCertificates;
use crate::reload::state::ReloadState;
use crate::trust::{LoadedCertificate, Nearest, PresentedCertificate, Relation, TrustStore};

/// The problems of the files, the outcome of the reloads, and the removed certificates.
#[derive(Debug, Default)]
pub(crate) struct ScanResults(Mutex<Results>);

#[derive(Debug, Default)]
struct Results {
    problems: Vec<Problem>,
    state: ReloadState,
    removed: RemovedCertificates,
}

impl ScanResults {
    /// The problems of the files as they were last read.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        self.lock().problems.clone()
    }

    /// The outcome of the reloads.
    pub(crate) fn state(&self) -> ReloadState {
        self.lock().state
    }

    /// The certificate, trusted now or removed, that is nearest to a rejected one.
    pub(crate) fn nearest(
        &self,
        store: &TrustStore,
        presented: &PresentedCertificate,
    ) -> Option<Nearest> {
        match store.nearest(presented) {
            Some(nearest) if nearest.relation == Relation::Same => Some(nearest),
            nearest => self.lock().removed.find(presented).or(nearest),
        }
    }

    pub(super) fn set_problems(&self, problems: Vec<Problem>) {
        self.lock().problems = problems;
    }

    /// Records a scan. It `counts` as a reload if something changed or was requested.
    pub(super) fn record_scan(&self, identity: [&Path; 2], counts: bool, now: SystemTime) {
        let Results { problems, state, .. } = &mut *self.lock();
        state.record_scan(problems, identity, counts, now);
    }

    pub(super) fn remember_removed(&self, removed: &[LoadedCertificate], now: SystemTime) {
        self.lock().removed.remember(removed, now);
    }

    fn lock(&self) -> MutexGuard<'_, Results> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

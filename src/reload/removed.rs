//! Remembers removed certificates, so that a rejection can name the removed one.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::trust::{Fingerprint, LoadedCertificate, Nearest, PresentedCertificate};

const MAX_REMEMBERED: usize = 256;

/// The last certificates that were removed, the latest last.
#[derive(Debug, Default)]
pub(super) struct RemovedCertificates(VecDeque<RemovedCertificate>);

#[derive(Debug)]
struct RemovedCertificate {
    fingerprint: Fingerprint,
    file: Arc<Path>,
    at: SystemTime,
}

impl RemovedCertificates {
    pub(super) fn remember(&mut self, removed: &[LoadedCertificate], at: SystemTime) {
        for loaded in removed {
            let fingerprint = loaded.certificate.summary().fingerprint;
            self.0.retain(|past| past.fingerprint != fingerprint);
            if self.0.len() == MAX_REMEMBERED {
                self.0.pop_front();
            }
            self.0.push_back(RemovedCertificate { fingerprint, file: loaded.file.clone(), at });
        }
    }

    pub(super) fn find(&self, presented: &PresentedCertificate) -> Option<Nearest> {
        let past = self.0.iter().find(|past| past.fingerprint == presented.fingerprint)?;
        Some(Nearest::removed(past.fingerprint, past.file.to_path_buf(), past.at))
    }
}

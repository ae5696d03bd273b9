//! How keeping it current goes: what the last look at the files came to, and what was removed.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::time::SystemTime;

use metrics::{counter, describe_counter, describe_gauge, gauge};

use crate::reload::generation::Generation;
use crate::reload::problem::{Problem, Severity};
use crate::trust::{Fingerprint, Loaded, Nearest, Presented, Relation};

/// So many removed certificates are remembered.
const MOST_REMOVED: usize = 256;

/// What the looks at the files have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReloadState {
    /// Whether all files were good when they were last looked at.
    pub last_successful: bool,
    /// When all files were last found good.
    pub last_success: Option<SystemTime>,
    /// How many changes of the files, and requests to read them again, went well.
    pub succeeded: u64,
    /// How many did not.
    pub failed: u64,
    /// How many trust files and directories have faults.
    pub files_failed: usize,
}

impl Default for ReloadState {
    fn default() -> Self {
        let never = (None, 0, 0, 0);
        let (last_success, succeeded, failed, files_failed) = never;
        Self { last_successful: true, last_success, succeeded, failed, files_failed }
    }
}

impl ReloadState {
    /// Takes in what a look found. `counts` says that somebody should hear of it: something
    /// changed, or was asked for.
    pub(super) fn looked(
        &mut self,
        problems: &[Problem],
        identity: [&Path; 2],
        counts: bool,
        now: SystemTime,
    ) {
        let faults = problems.iter().filter(|problem| problem.severity == Severity::Error);
        let files: BTreeSet<_> = faults.map(|problem| problem.file.as_path()).collect();
        self.last_successful = files.is_empty();
        self.files_failed = files.iter().filter(|file| !identity.contains(file)).count();
        if self.last_successful {
            self.last_success = Some(now);
        }
        if counts && self.last_successful {
            self.succeeded += 1;
            counter!("portcullis_reloads_total", "result" => "success").increment(1);
        } else if counts {
            self.failed += 1;
            counter!("portcullis_reloads_total", "result" => "failure").increment(1);
        }
        self.report();
    }

    fn report(&self) {
        let successful = if self.last_successful { 1.0 } else { 0.0 };
        gauge!("portcullis_reload_last_successful").set(successful);
        if let Some(at) = self.last_success {
            let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            gauge!("portcullis_reload_last_success_timestamp_seconds").set(at.as_secs_f64());
        }
        let failed = u32::try_from(self.files_failed).unwrap_or(u32::MAX);
        gauge!("portcullis_trust_files_failed").set(failed);
    }
}

/// Tells the metrics recorder which generation is in force.
pub(super) fn report_generation(generation: &Generation) {
    // Neither comes near 2^53, past which an f64 leaves out numbers.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let as_f64 = |number: u64| number as f64;
    gauge!("portcullis_trust_generation").set(as_f64(generation.number));
    let not_after = generation.identity.summary.validity.not_after.as_secs();
    gauge!("portcullis_server_certificate_expiration_timestamp_seconds").set(as_f64(not_after));
}

/// Says once what each of these metrics means, and lets the counters begin at zero.
pub(super) fn describe() {
    describe_gauge!(
        "portcullis_trust_generation",
        "The number of the trust generation in force: 1 at start, one more at each change."
    );
    describe_gauge!(
        "portcullis_server_certificate_expiration_timestamp_seconds",
        "When the server's own certificate ends."
    );
    describe_gauge!(
        "portcullis_reload_last_successful",
        "Whether all files were good when they were last looked at."
    );
    describe_gauge!(
        "portcullis_reload_last_success_timestamp_seconds",
        "When all files were last found good."
    );
    describe_counter!(
        "portcullis_reloads_total",
        "Changes of the files, and requests to read them again, by result."
    );
    describe_gauge!(
        "portcullis_trust_files_failed",
        "How many trust files and directories have faults; what they last held stays in force."
    );
    for result in ["success", "failure"] {
        counter!("portcullis_reloads_total", "result" => result).absolute(0);
    }
}

/// The certificates that were removed, the latest last.
#[derive(Debug, Default)]
pub(super) struct Removed(VecDeque<RemovedCertificate>);

#[derive(Debug)]
struct RemovedCertificate {
    fingerprint: Fingerprint,
    file: std::sync::Arc<Path>,
    at: SystemTime,
}

impl Removed {
    pub(super) fn remember(&mut self, removed: &[Loaded], at: SystemTime) {
        for loaded in removed {
            let fingerprint = loaded.certificate.summary().fingerprint;
            self.0.retain(|past| past.fingerprint != fingerprint);
            if self.0.len() == MOST_REMOVED {
                self.0.pop_front();
            }
            self.0.push_back(RemovedCertificate { fingerprint, file: loaded.file.clone(), at });
        }
    }

    pub(super) fn find(&self, presented: &Presented) -> Option<Nearest> {
        let past = self.0.iter().find(|past| past.fingerprint == presented.fingerprint)?;
        Some(Nearest::removed(past.fingerprint, past.file.to_path_buf(), past.at))
    }

    /// Whether it found more than a resemblance.
    pub(super) fn is_exact(nearest: &Nearest) -> bool {
        nearest.relation == Relation::Same
    }
}

//! The outcome of the reloads, for metrics and the status page.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use metrics::{counter, describe_counter, describe_gauge, gauge};

use crate::reload::generation::Generation;
use crate::reload::problem::{Problem, Severity};

/// The outcome of the reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReloadState {
    /// Whether all files were good when they were last read.
    pub last_successful: bool,
    /// When all files were last found good.
    pub last_success: Option<SystemTime>,
    /// How many changes of the files, and requests to read them again, succeeded.
    pub succeeded: u64,
    /// How many failed.
    pub failed: u64,
    /// How many trust files and directories have errors.
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
    /// Records what a scan of the files found. It `counts` as a reload if something changed or was
    /// requested.
    pub(super) fn record_scan(
        &mut self,
        problems: &[Problem],
        identity: [&Path; 2],
        counts: bool,
        now: SystemTime,
    ) {
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
        let files: BTreeSet<_> = errors.map(|problem| problem.file.as_path()).collect();
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

/// Reports the active generation to the metrics recorder.
pub(super) fn report_generation(generation: &Generation) {
    // Both stay below 2^53, up to which an f64 is exact.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let as_f64 = |number: u64| number as f64;
    gauge!("portcullis_trust_generation").set(as_f64(generation.number));
    if let Some(identity) = &generation.identity {
        let not_after = identity.summary.validity.not_after.as_secs();
        gauge!("portcullis_server_certificate_expiration_timestamp_seconds").set(as_f64(not_after));
    }
}

/// Describes each of these metrics, and starts the counters at zero.
pub(super) fn describe() {
    describe_gauge!(
        "portcullis_trust_generation",
        "The number of the active trust generation: 1 at start, one more at each change."
    );
    describe_gauge!(
        "portcullis_server_certificate_expiration_timestamp_seconds",
        "When the server's own certificate ends."
    );
    describe_gauge!(
        "portcullis_reload_last_successful",
        "Whether all files were good when they were last read."
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
        "How many trust files and directories have errors; their last good content stays active."
    );
    for result in ["success", "failure"] {
        counter!("portcullis_reloads_total", "result" => result).absolute(0);
    }
}

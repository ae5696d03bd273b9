//! Logs certificates that expire soon.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use crate::reload::generation::Generation;
use crate::trust::{
    Assessment, Fingerprint, SOON, Summary, Urgency, Validity, ValidityState, assess,
    assess_server, days_left, rfc3339, system_time, unix_time,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The expiring certificates that the log has reported.
#[derive(Debug, Default)]
pub(super) struct ExpiryLog(HashMap<Fingerprint, Reported>);

#[derive(Clone, Copy, Debug)]
struct Reported {
    at: SystemTime,
    /// The highest since then.
    urgency: Urgency,
    lacks_successor: bool,
}

impl ExpiryLog {
    /// Logs the certificates whose end is urgent: daily, hourly in their last day, and when one
    /// becomes more urgent.
    pub(super) fn report(
        &mut self,
        generation: &Generation,
        server_file: &Path,
        since: SystemTime,
        now: SystemTime,
    ) {
        self.forget_removed(generation);
        if let Some(identity) = &generation.identity {
            let summary = &identity.summary;
            let assessment = assess_server(summary, identity.is_ordered, now);
            self.report_one(summary, server_file, &assessment, false, now);
        }
        let trusted = generation.store.certificates();
        // To assess ten thousand certificates takes a while, and most often none ends soon.
        if !trusted.iter().any(|loaded| ends_soon(loaded.certificate.validity(), now)) {
            return;
        }
        for (loaded, assessed) in trusted.iter().zip(assess(&generation.store, since, now)) {
            let summary = loaded.certificate.summary();
            if assessed.has_successor {
                self.withdraw_lack_of_successor(summary, &loaded.file, &assessed.assessment);
            }
            let lacks_successor = !assessed.has_successor;
            let assessment = &assessed.assessment;
            self.report_one(summary, &loaded.file, assessment, lacks_successor, now);
        }
    }

    fn report_one(
        &mut self,
        summary: &Summary,
        file: &Path,
        assessment: &Assessment,
        lacks_successor: bool,
        now: SystemTime,
    ) {
        let ValidityState::Valid(left) = summary.validity.at(unix_time(now)) else { return };
        let Some(next_step) = assessment.next_step else { return };
        if assessment.urgency == Urgency::None
            || !self.is_due(summary, left, assessment.urgency, lacks_successor, now)
        {
            return;
        }
        let remedy = match lacks_successor {
            true => format!("no successor is loaded: {next_step}"),
            false => next_step.to_owned(),
        };
        warn!(
            file = %file.display(),
            fingerprint = %summary.fingerprint,
            not_after = rfc3339(summary.validity.not_after),
            days_left = days_left(system_time(summary.validity.not_after), now),
            urgency = assessment.urgency.as_str(),
            verdict = assessment.verdict,
            remedy,
            "certificate_expiring"
        );
    }

    fn forget_removed(&mut self, generation: &Generation) {
        if !self.0.is_empty() {
            let trusted = generation.store.certificates().iter();
            let known: HashSet<_> = trusted
                .map(|loaded| loaded.certificate.summary().fingerprint)
                .chain(generation.identity.iter().map(|identity| identity.summary.fingerprint))
                .collect();
            self.0.retain(|fingerprint, _| known.contains(fingerprint));
        }
    }

    /// Logs that a successor is loaded, if the log has reported that there is none.
    fn withdraw_lack_of_successor(
        &mut self,
        summary: &Summary,
        file: &Path,
        assessment: &Assessment,
    ) {
        if let Some(reported) = self.0.get_mut(&summary.fingerprint)
            && std::mem::take(&mut reported.lacks_successor)
        {
            info!(
                file = %file.display(),
                fingerprint = %summary.fingerprint,
                not_after = rfc3339(summary.validity.not_after),
                urgency = assessment.urgency.as_str(),
                verdict = assessment.verdict,
                remedy = assessment.next_step,
                "successor_loaded"
            );
        }
    }

    fn is_due(
        &mut self,
        summary: &Summary,
        left: Duration,
        urgency: Urgency,
        lacks_successor: bool,
        now: SystemTime,
    ) -> bool {
        let interval = if left <= DAY { DAY / 24 } else { DAY };
        let reported = self.0.get(&summary.fingerprint);
        // A clock that was set back is no reason to repeat a report.
        let is_reported = reported.is_some_and(|last| {
            urgency <= last.urgency && now.duration_since(last.at).unwrap_or_default() < interval
        });
        if !is_reported {
            self.0.insert(summary.fingerprint, Reported { at: now, urgency, lacks_successor });
        }
        !is_reported
    }
}

fn ends_soon(validity: Validity, now: SystemTime) -> bool {
    matches!(validity.at(unix_time(now)), ValidityState::Valid(left) if left <= SOON)
}

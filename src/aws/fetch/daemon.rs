//! `fetch --every`: polls until it is stopped, with jitter, and less often while it fails.

use std::time::Duration;

use tokio::time::sleep;
use tracing::info;

use super::metrics::Metrics;
use super::{Failure, Fetcher, Report};
use crate::random::random;

/// The longest interval after failed polls, unless `--every` is longer.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5 * 60);

/// Polls once, and logs what failed.
pub(crate) async fn poll(fetcher: &mut Fetcher) -> Result<Report, Failure> {
    let polled = fetcher.poll().await;
    match &polled {
        Ok(report) => report.failures.iter().for_each(Failure::log),
        Err(failure) => failure.log(),
    }
    polled
}

pub(crate) fn log_fetched(report: &Report) {
    let Report { certificates, written, removed, .. } = report;
    info!(certificates, written, removed, "fetched");
}

/// Polls for ever; `on_ready` runs once the directory has what a server needs to start.
///
/// # Errors
/// A failure that another poll cannot resolve.
pub(crate) async fn run(
    mut fetcher: Fetcher,
    every: Duration,
    metrics: &Metrics,
    on_ready: impl FnOnce(),
) -> Failure {
    let mut on_ready = Some(on_ready);
    let mut failed_polls = 0;
    let mut is_first = true;
    loop {
        let polled = poll(&mut fetcher).await;
        let (failures, report) = match &polled {
            Ok(report) => (report.failures.as_slice(), Some(report)),
            Err(failure) if failure.is_final => return failure.clone(),
            Err(failure) => (std::slice::from_ref(failure), None),
        };
        failures.iter().for_each(|failure| metrics.count_failure(failure));
        let asked = failures.iter().filter_map(|failure| failure.retry_after).max();
        let succeeded = report.filter(|report| report.failures.is_empty());
        if let Some(report) = succeeded {
            metrics.count_success(report.certificates);
            let has_changed = report.written + report.removed > 0;
            if is_first || has_changed || failed_polls > 0 {
                log_fetched(report);
            }
            failed_polls = 0;
        } else {
            failed_polls += 1;
        }
        is_first = false;
        // The last good set is enough for a server, even if the account cannot be read now.
        if (succeeded.is_some() || fetcher.is_usable())
            && let Some(on_ready) = on_ready.take()
        {
            on_ready();
        }
        let delay = delay(every, failed_polls, random());
        sleep(delay.max(asked.unwrap_or_default())).await;
    }
}

/// `every`, doubled for each failed poll, a tenth more or less.
fn delay(every: Duration, failed_polls: u32, random: f64) -> Duration {
    let most = LONGEST_BACK_OFF.max(every);
    let doubled = every.saturating_mul(1 << failed_polls.min(16)).min(most);
    doubled.mul_f64(0.9 + random / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_are_spread_and_back_off_has_an_end() {
        let minute = Duration::from_secs(60);
        assert_eq!(delay(minute, 0, 0.0), Duration::from_secs(54));
        assert_eq!(delay(minute, 0, 0.5), minute);
        assert_eq!(delay(minute, 1, 0.5), 2 * minute);
        assert_eq!(delay(minute, 30, 0.5), LONGEST_BACK_OFF);
        assert_eq!(delay(60 * minute, 3, 0.5), 60 * minute);
    }
}

//! When the next order begins: pure functions of the certificate, of what failed and of the clock.
//!
//! Times are seconds since 1970, as they are stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::failure::Failure;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The first and the longest pause after a failure.
const SHORTEST_PAUSE: u64 = MINUTE;
const LONGEST_PAUSE: u64 = HOUR;
/// The longest `Retry-After` that is obeyed: the certificate would expire meanwhile.
const LONGEST_RETRY_AFTER: u64 = 7 * DAY;
/// How many validations of a name may fail within an hour.
const MOST_FAILED_VALIDATIONS: usize = 5;
/// How often renewal information is fetched: what the directory asks for, within these.
const ARI_INTERVAL: std::ops::RangeInclusive<u64> = 10..=DAY;

/// The history of orders. It is stored, so that a restart does not skip a pause.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct History {
    /// What was ordered, and from whom: a pause is for no other order.
    pub(super) order: String,
    /// Orders that failed since the last certificate.
    pub(super) failures: u32,
    /// No order begins before.
    pub(super) not_before: u64,
    pub(super) last_failure: Option<LastFailure>,
    pub(super) last_issued: Option<u64>,
    /// When validations failed within the last hour, by name.
    pub(super) failed_validations: BTreeMap<String, Vec<u64>>,
    pub(super) renewal: Option<Renewal>,
    /// Certificates in a row that were issued within an hour of the one before.
    pub(super) early_renewals: u32,
}

/// The last order that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LastFailure {
    pub(super) at: u64,
    pub(super) step: String,
    pub(super) problem_type: Option<String>,
    pub(super) detail: String,
}

/// The moment that was chosen in the window of RFC 9773. It is stored with the window, so that a
/// restart does not choose again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Renewal {
    /// The fingerprint of the certificate that it is for.
    pub(super) certificate: String,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) at: u64,
}

impl History {
    /// Records a failure, and when the next order may begin. `random` is from 0 to 1.
    pub(super) fn record_failure(&mut self, failure: &Failure, now: u64, random: f64) {
        self.failures = self.failures.saturating_add(1);
        let hour_ago = now.saturating_sub(HOUR);
        for name in &failure.invalid {
            self.failed_validations.entry(name.clone()).or_default().push(now);
        }
        self.failed_validations.retain(|_, times| {
            // A time in the future was stored by a wrong clock.
            times.retain(|at| *at > hour_ago && *at <= now);
            !times.is_empty()
        });
        let mut next = now + jittered(pause(self.failures), random);
        if let Some(at) = failure.retry_after {
            next = next.max(at.min(now + LONGEST_RETRY_AFTER));
        }
        if failure.is_final() {
            next = next.max(now + DAY);
        }
        for times in self.failed_validations.values() {
            let nth_last = times.len().checked_sub(MOST_FAILED_VALIDATIONS);
            if let Some(at) = nth_last.and_then(|at| times.get(at)) {
                next = next.max(at + HOUR);
            }
        }
        self.last_failure = Some(LastFailure {
            at: now,
            step: failure.step.as_str().to_owned(),
            problem_type: failure.problem_type.clone(),
            detail: failure.detail.clone(),
        });
        self.not_before = next;
    }

    /// Records that a certificate was issued.
    pub(super) fn record_success(&mut self, now: u64) {
        let is_early = self.last_issued.is_some_and(|before| now < before.saturating_add(HOUR));
        *self = Self {
            order: std::mem::take(&mut self.order),
            last_issued: Some(now),
            failed_validations: std::mem::take(&mut self.failed_validations),
            early_renewals: if is_early { self.early_renewals.saturating_add(1) } else { 0 },
            ..Self::default()
        };
    }

    /// In how many seconds renewal information is fetched for a certificate that was just issued:
    /// later and later, if the directory wants each one renewed at once.
    pub(super) fn first_ari(&self) -> u64 {
        match self.early_renewals {
            0 => 0,
            early => (*ARI_INTERVAL.start() << early.min(16)).min(HOUR),
        }
    }

    /// Begins with an order. A pause after failures of another one is dropped: an operator who
    /// corrects a name or the directory waits for nothing.
    pub(super) fn begin(&mut self, order: String) {
        if self.order != order {
            self.order = order;
            (self.failures, self.not_before, self.last_failure) = (0, 0, None);
        }
    }

    /// Drops a pause that no rule could have led to: the clock was wrong when it was stored.
    pub(super) fn forget_impossible_pause(&mut self, now: u64) {
        if self.not_before > now + LONGEST_RETRY_AFTER {
            self.not_before = 0;
        }
    }
}

fn pause(failures: u32) -> u64 {
    let doublings = failures.saturating_sub(1).min(16);
    (SHORTEST_PAUSE << doublings).min(LONGEST_PAUSE)
}

/// A tenth more or less, so that replicas that failed together do not try together.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a pause is an hour at most"
)]
fn jittered(pause: u64, random: f64) -> u64 {
    (pause as f64 * (0.9 + 0.2 * random)).ceil() as u64
}

/// The time at which one third of the lifetime is left.
pub(super) fn renewal_by_lifetime(not_before: u64, not_after: u64) -> u64 {
    not_after - not_after.saturating_sub(not_before) / 3
}

/// A random moment in the window that the directory suggests; the one that was chosen before, if
/// the window is the same. `None` if the window makes no sense for this certificate.
pub(super) fn renewal_by_window(
    certificate: &str,
    not_after: u64,
    (start, end): (u64, u64),
    before: Option<&Renewal>,
    random: f64,
) -> Option<Renewal> {
    let is_usable = start < end && start < not_after;
    let same = |before: &&Renewal| {
        before.certificate == certificate && (before.start, before.end) == (start, end)
    };
    if let Some(before) = before.filter(same) {
        return is_usable.then(|| before.clone());
    }
    // A moment past the end of the certificate would be an outage.
    let at = start + between(end.min(not_after).saturating_sub(start), random);
    let certificate = certificate.to_owned();
    is_usable.then_some(Renewal { certificate, start, end, at })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a window is days; beyond 2^53 seconds a few are lost"
)]
fn between(span: u64, random: f64) -> u64 {
    (span as f64 * random) as u64
}

/// When renewal information is fetched again.
pub(super) fn next_ari(now: u64, asked: u64) -> u64 {
    now + asked.clamp(*ARI_INTERVAL.start(), *ARI_INTERVAL.end())
}

/// The same after it could not be fetched.
pub(super) fn next_ari_after_failure(now: u64) -> u64 {
    now + HOUR
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::failure::Step;
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn failure() -> Failure {
        Failure::new(Step::Validation, "it did not work")
    }

    /// Records a failure, and returns when the next order may begin.
    fn next_order(history: &mut History, failure: &Failure, now: u64, random: f64) -> u64 {
        history.record_failure(failure, now, random);
        history.not_before
    }

    #[test]
    fn pauses_double_from_a_minute_to_an_hour() {
        let mut history = History::default();
        let pauses: Vec<u64> =
            (0..9).map(|_| next_order(&mut history, &failure(), NOW, 0.5) - NOW).collect();
        assert_eq!(pauses, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
    }

    #[test]
    fn pauses_vary_by_a_tenth() {
        for (random, pause) in [(0.0, 54), (1.0, 66)] {
            assert_eq!(next_order(&mut History::default(), &failure(), NOW, random), NOW + pause);
        }
    }

    #[test]
    fn retry_after_is_obeyed_and_shortens_no_pause() {
        for (asked, pause) in [(10, 60), (7200, 7200), (400 * DAY, 7 * DAY)] {
            let failure = Failure { retry_after: Some(NOW + asked), ..failure() };
            assert_eq!(next_order(&mut History::default(), &failure, NOW, 0.5), NOW + pause);
        }
    }

    #[test]
    fn a_final_error_is_tried_again_after_a_day_and_another_is_not_final() {
        for (name, pause) in [("rejectedIdentifier", DAY), ("caa", DAY), ("connection", 60)] {
            let problem_type = Some(format!("urn:ietf:params:acme:error:{name}"));
            let failure = Failure { problem_type, ..failure() };
            assert_eq!(next_order(&mut History::default(), &failure, NOW, 0.5), NOW + pause);
        }
    }

    #[test]
    fn no_more_than_five_validations_of_a_name_fail_in_an_hour() {
        let mut history = History::default();
        let failure = Failure { invalid: vec!["a.example".to_owned()], ..failure() };
        let (mut now, mut tried) = (NOW, Vec::new());
        for _ in 0..12 {
            tried.push(now);
            now = next_order(&mut history, &failure, now, 0.0);
        }
        for at in &tried {
            let within = tried.iter().filter(|other| (*at..*at + HOUR).contains(other)).count();
            assert!(within <= MOST_FAILED_VALIDATIONS, "{tried:?}");
        }
        assert_eq!(tried[5], NOW + HOUR, "the sixth waits for the first to be an hour old");
    }

    #[test]
    fn a_history_that_is_stored_is_the_same_when_it_is_read() {
        let mut history = History::default();
        next_order(&mut history, &Failure { invalid: vec!["a".to_owned()], ..failure() }, NOW, 0.3);
        let stored = serde_json::to_string(&history).unwrap();
        assert_eq!(serde_json::from_str::<History>(&stored).unwrap(), history);
    }

    #[test]
    fn a_pause_is_for_the_order_that_failed_and_not_for_another() {
        let mut history = History::default();
        history.begin("a.example".to_owned());
        let failure = Failure { invalid: vec!["a.example".to_owned()], ..failure() };
        let next = next_order(&mut history, &failure, NOW, 0.5);
        history.begin("a.example".to_owned());
        assert_eq!((history.failures, history.not_before), (1, next));
        history.begin("b.example".to_owned());
        assert_eq!((history.failures, history.not_before, &history.last_failure), (0, 0, &None));
        assert_eq!(history.failed_validations.len(), 1, "they count for the hour");
    }

    #[test]
    fn a_success_ends_the_pause() {
        let mut history = History::default();
        next_order(&mut history, &failure(), NOW, 0.5);
        history.record_success(NOW + 1);
        assert_eq!((history.failures, history.not_before), (0, 0));
        assert_eq!(history.last_issued, Some(NOW + 1));
    }

    #[test]
    fn a_window_that_is_always_now_leads_to_fewer_and_fewer_orders() {
        let mut history = History::default();
        let (mut now, mut pauses) = (NOW, Vec::new());
        for _ in 0..12 {
            history.record_success(now);
            pauses.push(history.first_ari());
            now += history.first_ari();
        }
        assert_eq!(pauses[..4], [0, 20, 40, 80]);
        assert!(pauses[9..].contains(&HOUR), "{pauses:?}");
        history.record_success(now + DAY);
        assert_eq!(history.first_ari(), 0);
    }

    #[test]
    fn a_success_forgets_no_failed_validation_of_the_last_hour() {
        let mut history = History::default();
        let failure = Failure { invalid: vec!["a.example".to_owned()], ..failure() };
        for _ in 0..4 {
            next_order(&mut history, &failure, NOW, 0.5);
        }
        history.record_success(NOW + 1);
        assert_eq!(next_order(&mut history, &failure, NOW + 2, 0.5), NOW + HOUR);
    }

    #[test]
    fn a_pause_from_a_wrong_clock_is_forgotten_and_a_real_one_is_not() {
        for (not_before, kept) in [(NOW + 400 * DAY, 0), (NOW + DAY, NOW + DAY)] {
            let mut history = History { not_before, ..History::default() };
            history.forget_impossible_pause(NOW);
            assert_eq!(history.not_before, kept);
        }
    }

    #[test]
    fn a_third_of_the_lifetime_is_left_for_six_days_and_for_ninety() {
        for days in [6, 90] {
            let end = NOW + days * DAY;
            assert_eq!(end - renewal_by_lifetime(NOW, end), days * DAY / 3);
        }
    }

    #[test]
    fn a_moment_is_chosen_once_for_a_window_and_again_for_another() {
        let end = NOW + 90 * DAY;
        let first = renewal_by_window("a", end, (NOW, NOW + 1000), None, 0.25).unwrap();
        assert_eq!(first.at, NOW + 250);
        let again = renewal_by_window("a", end, (NOW, NOW + 1000), Some(&first), 0.75).unwrap();
        assert_eq!(again, first);
        for (certificate, window) in [("b", (NOW, NOW + 1000)), ("a", (NOW, NOW + 2000))] {
            let other = renewal_by_window(certificate, end, window, Some(&first), 0.75).unwrap();
            assert_eq!(other.at, NOW + (window.1 - NOW) * 3 / 4);
        }
    }

    proptest! {
        #[test]
        fn a_moment_lies_in_its_window_and_before_the_end_of_the_certificate(
            start in 0..2 * NOW, length in 0..100 * DAY, random in 0.0..1.0,
        ) {
            let not_after = NOW + 90 * DAY;
            match renewal_by_window("a", not_after, (start, start + length), None, random) {
                Some(renewal) => {
                    prop_assert!((start..start + length).contains(&renewal.at));
                    prop_assert!(renewal.at < not_after);
                }
                None => prop_assert!(length == 0 || start >= not_after),
            }
        }

        #[test]
        fn the_next_order_is_never_at_once_and_never_in_more_than_a_week(
            failures in 0..40_u32, retry_after in proptest::option::of(0..u64::MAX / 2),
            random in 0.0..1.0,
        ) {
            let mut history = History { failures, ..History::default() };
            let failure = Failure { retry_after, ..failure() };
            let next = next_order(&mut history, &failure, NOW, random);
            prop_assert!((NOW + 54..=NOW + LONGEST_RETRY_AFTER).contains(&next));
        }
    }
}

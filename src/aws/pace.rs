//! How often the control plane is called, and how long a failed call waits for its next attempt.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::error::{CallError, ErrorKind};
use crate::random::random;

/// Less than five calls a second, wherever a second begins: half of what the whole account has.
const INTERVAL: Duration = Duration::from_millis(220);
/// How many times a call is sent.
const ATTEMPTS: u32 = 5;
const FIRST_DELAY: Duration = Duration::from_millis(300);
/// The longest `Retry-After` that is obeyed here. After a longer one the call fails.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// Spaces the calls of a process.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    pub(crate) async fn wait(&self) {
        let mut next = self.0.lock().await;
        let now = Instant::now();
        let at = next.filter(|next| *next > now).unwrap_or(now);
        *next = Some(at + INTERVAL);
        drop(next);
        sleep_until(at).await;
    }
}

/// Which failures a call may be repeated after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// All transient ones: a second effect is the same as the first.
    Idempotent,
    /// Only those after which the call certainly had no effect.
    IfWithoutEffect,
}

/// How long to wait before the next attempt; `None` if the failure is final.
pub(crate) fn delay(repeat: Repeat, attempt: u32, error: &CallError) -> Option<Duration> {
    let passes = match (repeat, error.kind) {
        (_, ErrorKind::Throttled) => true,
        // The name of a quota, used for the rate as well. Where something is created, it is the quota.
        (Repeat::Idempotent, ErrorKind::LimitExceeded) => true,
        (Repeat::Idempotent, kind) => kind.is_ambiguous(),
        (Repeat::IfWithoutEffect, _) => false,
    };
    if !passes || attempt >= ATTEMPTS {
        return None;
    }
    let asked = error.retry_after.unwrap_or_default();
    let most = FIRST_DELAY.saturating_mul(1 << attempt.saturating_sub(1).min(10));
    let own = most / 2 + most.mul_f64(random() / 2.0);
    (asked <= LONGEST_DELAY).then(|| asked + own)
}

#[cfg(test)]
mod tests {
    use super::super::error::Call;
    use super::*;

    fn error(kind: ErrorKind, retry_after: Option<u64>) -> CallError {
        let mut error = Call::new("GET", "/clientcertificates").error(kind, "");
        error.retry_after = retry_after.map(Duration::from_secs);
        error
    }

    #[test]
    fn call_that_creates_is_repeated_only_after_certain_failures() {
        let is_repeated = |repeat, kind| delay(repeat, 1, &error(kind, None)).is_some();
        for kind in [ErrorKind::Server, ErrorKind::NoResponse, ErrorKind::LimitExceeded] {
            assert!(is_repeated(Repeat::Idempotent, kind), "{kind:?}");
            assert!(!is_repeated(Repeat::IfWithoutEffect, kind), "{kind:?}");
        }
        assert!(is_repeated(Repeat::IfWithoutEffect, ErrorKind::Throttled));
        assert!(!is_repeated(Repeat::Idempotent, ErrorKind::NotFound));
    }

    #[test]
    fn delays_grow_differ_end_and_respect_retry_after() {
        let delay =
            |attempt, after| delay(Repeat::Idempotent, attempt, &error(ErrorKind::Server, after));
        let delays: Vec<_> = (0..50).filter_map(|_| delay(3, None)).collect();
        assert!(delays.iter().all(|delay| (600..=1200).contains(&delay.as_millis())));
        assert!(delays.iter().any(|delay| Some(delay) != delays.first()));
        assert!(delay(1, Some(3)).unwrap() >= Duration::from_secs(3));
        assert_eq!(delay(1, Some(600)), None);
        assert_eq!(delay(ATTEMPTS, None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn sixth_call_waits_for_the_next_second() {
        let (pace, start) = (Pace::default(), Instant::now());
        for _ in 0..6 {
            pace.wait().await;
        }
        assert_eq!(start.elapsed().as_millis(), 1100);
    }
}

//! A limit on the lines of one log event.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How many lines are logged within a `WINDOW`.
const MAX_LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// Limits an event that clients can cause to a few lines a second.
#[derive(Debug, Default)]
pub(super) struct LogLimiter(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl LogLimiter {
    /// `None` if the line must not be logged; otherwise how many were suppressed before it.
    pub(super) fn admit(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= *window.began.get_or_insert(now) + WINDOW {
            (window.began, window.lines) = (Some(now), 0);
        }
        if window.lines == MAX_LINES {
            window.suppressed += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_past_the_limit_are_suppressed_and_counted_in_the_next_window() {
        let (limiter, now) = (LogLimiter::default(), Instant::now());
        let logged = (0..25).filter_map(|_| limiter.admit(now)).collect::<Vec<_>>();
        assert_eq!(logged, [0; MAX_LINES as usize]);
        assert_eq!(limiter.admit(now + WINDOW), Some(25 - u64::from(MAX_LINES)));
        assert_eq!(limiter.admit(now + WINDOW), Some(0));
    }
}

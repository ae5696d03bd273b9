//! The wall clock, which tests replace.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;

/// The time by which certificates are judged.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The time now. It may step in either direction.
    fn now(&self) -> SystemTime;
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

pub(crate) fn unix_now(clock: &dyn Clock) -> UnixTime {
    UnixTime::since_unix_epoch(since_epoch(clock))
}

/// The time since 1970, in the clock's own precision.
pub(crate) fn since_epoch(clock: &dyn Clock) -> Duration {
    clock.now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

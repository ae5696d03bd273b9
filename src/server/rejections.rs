//! The clients that were refused: the last of them, and a log that says each, or in a flood their
//! sum.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::reload::Current;
use crate::server::accept::handshake::Rejection;
use crate::trust::{Fingerprint, Nearest, Reason, rfc3339, system_time, unix_time};

/// So many are remembered.
const MOST_REMEMBERED: usize = 50;
/// So many are said one by one within a `WINDOW`, and the first of each reason in any case, so that
/// a flood of one kind hides no other; the rest is summed up at its end.
const MOST_SAID: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);
/// So much is kept of what the TLS library says of a failure: a client may have a part in it.
const LONGEST_DETAIL: usize = 200;

/// A client that was refused.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RejectedClient {
    /// When.
    pub at: SystemTime,
    /// Why.
    pub reason: Reason,
    /// Where it came from.
    pub peer: SocketAddr,
    /// SHA-256 of the certificate that it presented, where it did.
    pub fingerprint: Option<Fingerprint>,
    /// The subject that it claims: anybody can write anything there.
    pub subject: Option<String>,
    /// The serial number of that certificate.
    pub serial: Option<String>,
    /// From when it says that it is valid,
    pub not_before: Option<SystemTime>,
    /// and until when.
    pub not_after: Option<SystemTime>,
    /// What the TLS library said.
    pub detail: Option<String>,
    /// The trusted certificate that is nearest to it.
    pub nearest: Option<Nearest>,
}

impl RejectedClient {
    fn new(peer: SocketAddr, refused: Rejection, current: &Current) -> Self {
        let Rejection { reason, presented, detail } = refused;
        let nearest = presented.as_ref().and_then(|presented| current.nearest(presented));
        let fingerprint = presented.as_ref().map(|presented| presented.fingerprint);
        let summary = presented.and_then(|presented| presented.summary);
        let validity = summary.as_ref().map(|summary| summary.validity);
        let (subject, serial) = summary.map(|summary| (summary.subject, summary.serial)).unzip();
        Self {
            at: current.clock().now(),
            reason,
            peer,
            fingerprint,
            subject,
            serial,
            not_before: validity.map(|validity| system_time(validity.not_before)),
            not_after: validity.map(|validity| system_time(validity.not_after)),
            detail: detail.map(|detail| detail.chars().take(LONGEST_DETAIL).collect()),
            nearest,
        }
    }

    fn say(&self) {
        let date = |time: Option<SystemTime>| time.map(|time| rfc3339(unix_time(time)));
        warn!(
            reason = self.reason.as_str(),
            peer = %self.peer,
            fingerprint = self.fingerprint.map(|fingerprint| fingerprint.to_string()),
            subject = self.subject,
            serial = self.serial,
            not_before = date(self.not_before),
            not_after = date(self.not_after),
            nearest = self.nearest.as_ref().map(Nearest::to_string),
            detail = self.detail,
            remedy = self.reason.remedy(),
            "client_rejected"
        );
    }
}

#[derive(Debug, Default)]
pub(super) struct RejectionLog {
    recent: Mutex<VecDeque<RejectedClient>>,
    flood: Mutex<Flood>,
}

/// The refusals since the beginning of a window.
#[derive(Debug, Default)]
struct Flood {
    /// `None` where nobody was refused lately.
    began: Option<Instant>,
    said: u32,
    said_reasons: [bool; Reason::ALL.len()],
    unsaid: [u64; Reason::ALL.len()],
    /// Whether somebody waits for the end of the window to say the sum.
    is_awaited: bool,
}

impl Flood {
    /// Whether the next one is to be said by itself; otherwise it is added to the sum. The time is
    /// that of the window's end, where its sum has nobody yet to say it.
    fn take(&mut self, reason: Reason, now: Instant) -> Result<(), Option<Instant>> {
        let began = *self.began.get_or_insert(now);
        if !self.is_awaited && now >= began + WINDOW {
            *self = Self { began: Some(now), ..Self::default() };
        }
        let was_said = self.said_reasons.get_mut(reason as usize);
        let is_first = was_said.is_some_and(|was_said| !std::mem::replace(was_said, true));
        if is_first || self.said < MOST_SAID {
            self.said += 1;
            return Ok(());
        }
        if let Some(unsaid) = self.unsaid.get_mut(reason as usize) {
            *unsaid += 1;
        }
        if self.is_awaited {
            return Err(None);
        }
        self.is_awaited = true;
        Err(Some(self.began.unwrap_or(now) + WINDOW))
    }
}

impl RejectionLog {
    /// Takes a refusal down, and says it or adds it to what is said soon.
    pub(super) fn take(self: &Arc<Self>, peer: SocketAddr, refused: Rejection, current: &Current) {
        let client = RejectedClient::new(peer, refused, current);
        let verdict = self.flood().take(client.reason, Instant::now());
        match verdict {
            Ok(()) => client.say(),
            Err(None) => {}
            Err(Some(end)) => {
                let refusals = Arc::clone(self);
                tokio::spawn(async move {
                    sleep_until(end).await;
                    refusals.log_suppressed();
                });
            }
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.truncate(MOST_REMEMBERED - 1);
        recent.push_front(client);
    }

    /// Says how many were not said by themselves; at the end of each window, and at the end.
    pub(super) fn log_suppressed(&self) {
        let Flood { unsaid, .. } = std::mem::take(&mut *self.flood());
        let count: u64 = unsaid.iter().sum();
        if count == 0 {
            return;
        }
        let reasons = Reason::ALL.iter().zip(unsaid).filter(|(_, count)| *count > 0);
        let reasons: Vec<_> = reasons.map(|(reason, count)| format!("{reason} {count}")).collect();
        warn!(count, reasons = reasons.join(", "), "refusals_summed");
    }

    /// The last of them, the latest first.
    pub(super) fn recent(&self) -> Vec<RejectedClient> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().cloned().collect()
    }

    fn flood(&self) -> MutexGuard<'_, Flood> {
        self.flood.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_said_one_by_one_and_the_rest_of_the_window_is_summed_up_once() {
        let mut flood = Flood::default();
        let now = Instant::now();
        let said = (0..100).filter(|_| flood.take(Reason::NotTls, now).is_ok()).count();
        assert_eq!(said, MOST_SAID as usize);
        assert_eq!(flood.unsaid.iter().sum::<u64>(), 100 - u64::from(MOST_SAID));
    }

    #[test]
    fn a_flood_of_one_kind_does_not_hide_another() {
        let mut flood = Flood::default();
        let now = Instant::now();
        for _ in 0..100 {
            let _ = flood.take(Reason::NotTls, now);
        }
        assert!(flood.take(Reason::Expired, now).is_ok());
        assert!(flood.take(Reason::Expired, now).is_err());
    }

    #[test]
    fn the_first_that_is_not_said_knows_when_the_sum_is_due_and_no_other_waits_for_it() {
        let mut flood = Flood::default();
        let now = Instant::now();
        let due: Vec<_> = (0..20).filter_map(|_| flood.take(Reason::Expired, now).err()).collect();
        assert_eq!(due.first(), Some(&Some(now + WINDOW)));
        assert_eq!(due.iter().filter(|due| due.is_some()).count(), 1);
    }

    #[test]
    fn after_a_quiet_window_they_are_said_one_by_one_again() {
        let mut flood = Flood::default();
        let now = Instant::now();
        for second in 0..10 {
            for _ in 0..MOST_SAID {
                assert!(flood.take(Reason::Expired, now + second * WINDOW).is_ok());
            }
        }
    }
}

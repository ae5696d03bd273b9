//! Remembers the last rejected clients, and logs each rejection, or their sum in a flood.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::fields::List;
use crate::reload::{Current, ScanResults};
use crate::trust::{
    Fingerprint, Nearest, PresentedCertificate, Reason, rfc3339, system_time, unix_time,
};

/// How many are remembered.
const MAX_REMEMBERED: usize = 50;
/// How many are logged one by one within a `WINDOW`. The first of each reason is always logged, so
/// that a flood of one kind hides no other; the others are summed up at the end of the window.
const MAX_LOGGED: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);
/// How much is kept of the TLS library's error, which a client can influence.
const MAX_DETAIL: usize = 200;

/// Why a client was rejected, and what it presented.
#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) reason: Reason,
    pub(super) presented: Option<PresentedCertificate>,
    pub(super) detail: Option<String>,
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        Self { reason, presented: None, detail: None }
    }
}

/// A client that was rejected.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RejectedClient {
    /// When.
    pub at: SystemTime,
    /// Why.
    pub reason: Reason,
    /// Its address.
    pub peer: SocketAddr,
    /// SHA-256 of the certificate that it presented, if it did.
    pub fingerprint: Option<Fingerprint>,
    /// The subject of that certificate, which proves nothing.
    pub subject: Option<String>,
    /// The serial number of that certificate.
    pub serial: Option<String>,
    /// The begin of its validity period.
    pub not_before: Option<SystemTime>,
    /// The end of its validity period.
    pub not_after: Option<SystemTime>,
    /// The error in detail, as a rule the TLS library's.
    pub detail: Option<String>,
    /// The trusted certificate that is most similar to it.
    pub nearest: Option<Nearest>,
}

impl RejectedClient {
    fn new(
        peer: SocketAddr,
        rejection: Rejection,
        current: &Current,
        results: &ScanResults,
    ) -> Self {
        let Rejection { reason, presented, detail } = rejection;
        let nearest = presented
            .as_ref()
            .and_then(|presented| results.nearest(&current.newest().store, presented));
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
            detail: detail.map(|detail| detail.chars().take(MAX_DETAIL).collect()),
            nearest,
        }
    }

    fn log(&self) {
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

/// Remembers and logs rejected clients.
#[derive(Debug, Default)]
pub(super) struct RejectionLog {
    results: Arc<ScanResults>,
    recent: Mutex<VecDeque<RejectedClient>>,
    flood: Mutex<Flood>,
}

/// The rejections since the beginning of a window.
#[derive(Debug, Default)]
struct Flood {
    /// `None` before the first rejection.
    began: Option<Instant>,
    logged: u32,
    logged_reasons: [bool; Reason::ALL.len()],
    suppressed: [u64; Reason::ALL.len()],
    /// True if a task waits for the end of the window to log the sum.
    is_scheduled: bool,
}

/// What happens to one rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Log,
    /// It is part of the sum, which a task will log.
    Suppress,
    /// It is the first of the sum, which must be logged at this time.
    SuppressUntil(Instant),
}

impl Flood {
    /// Decides whether the next one is logged by itself or added to the sum.
    fn admit(&mut self, reason: Reason, now: Instant) -> Verdict {
        let mut began = *self.began.get_or_insert(now);
        if !self.is_scheduled && now >= began + WINDOW {
            *self = Self { began: Some(now), ..Self::default() };
            began = now;
        }
        let was_logged = self.logged_reasons.get_mut(reason as usize);
        let is_first = was_logged.is_some_and(|was_logged| !std::mem::replace(was_logged, true));
        if is_first || self.logged < MAX_LOGGED {
            self.logged += 1;
            return Verdict::Log;
        }
        if let Some(suppressed) = self.suppressed.get_mut(reason as usize) {
            *suppressed += 1;
        }
        if self.is_scheduled {
            return Verdict::Suppress;
        }
        self.is_scheduled = true;
        Verdict::SuppressUntil(began + WINDOW)
    }
}

impl RejectionLog {
    pub(super) fn new(results: Arc<ScanResults>) -> Self {
        Self { results, ..Self::default() }
    }

    /// Remembers a rejection, and logs it or adds it to the sum.
    pub(super) fn record(
        self: &Arc<Self>,
        peer: SocketAddr,
        rejection: Rejection,
        current: &Current,
    ) {
        let client = RejectedClient::new(peer, rejection, current, &self.results);
        let verdict = self.flood().admit(client.reason, Instant::now());
        match verdict {
            Verdict::Log => client.log(),
            Verdict::Suppress => {}
            Verdict::SuppressUntil(end) => {
                let log = Arc::clone(self);
                tokio::spawn(async move {
                    sleep_until(end).await;
                    log.log_suppressed();
                });
            }
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.truncate(MAX_REMEMBERED - 1);
        recent.push_front(client);
    }

    /// Logs the sum of the suppressed ones, at the end of each window and of the server.
    pub(super) fn log_suppressed(&self) {
        let Flood { suppressed, .. } = std::mem::take(&mut *self.flood());
        let count: u64 = suppressed.iter().sum();
        if count == 0 {
            return;
        }
        let reasons = Reason::ALL.iter().zip(suppressed).filter(|(_, count)| *count > 0);
        let reasons: Vec<_> = reasons.map(|(reason, count)| format!("{reason} {count}")).collect();
        warn!(count, reasons = List(reasons).field(), "refusals_summed");
    }

    /// The most recent ones, the latest first.
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
    fn first_rejections_of_a_window_are_logged_and_the_others_summed() {
        let mut flood = Flood::default();
        let now = Instant::now();
        let is_logged = |_: &_| flood.admit(Reason::NotTls, now) == Verdict::Log;
        assert_eq!((0..100).filter(is_logged).count(), MAX_LOGGED as usize);
        assert_eq!(flood.suppressed.iter().sum::<u64>(), 100 - u64::from(MAX_LOGGED));
    }

    #[test]
    fn flood_of_one_reason_does_not_hide_another() {
        let mut flood = Flood::default();
        let now = Instant::now();
        for _ in 0..100 {
            flood.admit(Reason::NotTls, now);
        }
        assert_eq!(flood.admit(Reason::Expired, now), Verdict::Log);
        assert_ne!(flood.admit(Reason::Expired, now), Verdict::Log);
    }

    #[test]
    fn sum_of_a_window_is_scheduled_once() {
        let mut flood = Flood::default();
        let now = Instant::now();
        let verdicts = (0..20).map(|_| flood.admit(Reason::Expired, now));
        let suppressed: Vec<_> = verdicts.filter(|verdict| *verdict != Verdict::Log).collect();
        assert_eq!(suppressed.len(), 20 - MAX_LOGGED as usize);
        assert_eq!(suppressed[0], Verdict::SuppressUntil(now + WINDOW));
        assert!(suppressed[1..].iter().all(|verdict| *verdict == Verdict::Suppress));
    }

    #[test]
    fn rejections_are_logged_one_by_one_again_after_a_window() {
        let mut flood = Flood::default();
        let now = Instant::now();
        for second in 0..10 {
            for _ in 0..MAX_LOGGED {
                let verdict = flood.admit(Reason::Expired, now + second * WINDOW);
                assert_eq!(verdict, Verdict::Log);
            }
        }
    }
}

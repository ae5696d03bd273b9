//! What may be done with a certificate, in a few words.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::{ServerCertificate, TrustedCertificate};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// From then on before its end a trusted certificate needs a successor.
const SOON: Duration = Duration::from_secs(60 * 24 * 60 * 60);
/// From then on before its end the server's own is to be renewed. Those of public CAs live for 90
/// days and less, and are renewed in their last third.
const RENEWAL: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Who has not been seen for so many days, while another one was, may go.
const DAYS_OF_QUIET: u64 = 3;

/// What may be done with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Expired,
    NotYetValid(Duration),
    /// It ends soon, and nothing can take its place.
    EndsWithoutSuccessor(Duration),
    /// The server's own ends soon.
    Renew(Duration),
    InUse,
    Waiting,
    /// Not seen for so many days.
    Quiet(u64),
    /// The same, and another one has been seen since.
    SafeToRemove(u64),
    /// The same for long, and no other one has been seen since.
    QuietAlone(u64),
}

impl Verdict {
    /// `last_seen` is when any certificate was last seen.
    pub(super) fn of(
        certificate: &TrustedCertificate,
        last_seen: Option<SystemTime>,
        now: SystemTime,
    ) -> Self {
        let left = match dates(certificate.not_before, certificate.not_after, now) {
            Ok(left) => left,
            Err(verdict) => return verdict,
        };
        if left <= SOON && !certificate.has_successor {
            return Self::EndsWithoutSuccessor(left);
        }
        let usage = certificate.usage;
        let Some(seen) = usage.last_seen else { return Self::Waiting };
        // A clock that was set back has seen it in the future: just now.
        let quiet = now.duration_since(seen).unwrap_or_default();
        match quiet.as_secs() / DAY.as_secs() {
            _ if usage.connections > 0 => Self::InUse,
            0 => Self::InUse,
            days if days < DAYS_OF_QUIET => Self::Quiet(days),
            days if last_seen > Some(seen) => Self::SafeToRemove(days),
            days => Self::QuietAlone(days),
        }
    }

    pub(super) fn of_server(certificate: &ServerCertificate, now: SystemTime) -> Self {
        match dates(certificate.not_before, certificate.not_after, now) {
            Ok(left) if left <= RENEWAL => Self::Renew(left),
            Ok(_) => Self::InUse,
            Err(verdict) => verdict,
        }
    }

    /// Its stable name.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotYetValid(_) => "not_yet_valid",
            Self::EndsWithoutSuccessor(_) => "ends_without_successor",
            Self::Renew(_) => "renew",
            Self::InUse => "in_use",
            Self::Waiting => "waiting",
            Self::Quiet(_) | Self::QuietAlone(_) => "quiet",
            Self::SafeToRemove(_) => "safe_to_remove",
        }
    }
}

/// How long it is still valid, or that it is not.
fn dates(
    not_before: SystemTime,
    not_after: SystemTime,
    now: SystemTime,
) -> Result<Duration, Verdict> {
    match (not_before.duration_since(now), not_after.duration_since(now)) {
        (_, Err(_) | Ok(Duration::ZERO)) => Err(Verdict::Expired),
        (Ok(until), _) if !until.is_zero() => Err(Verdict::NotYetValid(until)),
        (_, Ok(left)) => Ok(left),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Expired => write!(f, "expired"),
            Self::NotYetValid(until) => write!(f, "not yet valid: begins in {}", Span(until)),
            Self::EndsWithoutSuccessor(left) => {
                write!(f, "ends in {} and no successor is loaded", Span(left))
            }
            Self::Renew(left) => write!(f, "ends in {}: renew it in place", Span(left)),
            Self::InUse => write!(f, "in use"),
            Self::Waiting => write!(f, "waiting for its first use"),
            Self::Quiet(days) => write!(f, "quiet for {}", days_of(days)),
            Self::SafeToRemove(days) => write!(f, "quiet for {}: safe to remove", days_of(days)),
            Self::QuietAlone(days) => {
                write!(f, "quiet for {}, and no other was used since: keep it", days_of(days))
            }
        }
    }
}

fn days_of(days: u64) -> impl fmt::Display {
    Span(DAY * u32::try_from(days).unwrap_or(u32::MAX))
}

/// A time that is left, for people.
pub(super) struct Span(pub(super) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // To the nearest: what was made for nine days has a little less left when it is looked at.
        let round = |unit: Duration| (self.0.as_secs() + unit.as_secs() / 2) / unit.as_secs();
        let (count, unit) = match (round(DAY), round(HOUR)) {
            (_, 0) => return write!(f, "less than an hour"),
            (_, hours) if self.0 < DAY && hours < 24 => (hours, "hour"),
            (days, _) => (days.max(1), "day"),
        };
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{Fingerprint, Role, Usage};

    const NOW: SystemTime = UNIX_EPOCH;

    fn now() -> SystemTime {
        NOW + 1000 * DAY
    }

    fn certificate(ends_in: Duration, has_successor: bool) -> TrustedCertificate {
        TrustedCertificate {
            role: Role::Pin,
            file: PathBuf::from("a.pem"),
            fingerprint: Fingerprint::of(b"a"),
            subject: "CN=a".to_owned(),
            serial: "01".to_owned(),
            key: "RSA 2048".to_owned(),
            not_before: now() - 10 * DAY,
            not_after: now() + ends_in,
            has_successor,
            usage: Usage::default(),
            apis: Default::default(),
        }
    }

    fn seen(mut certificate: TrustedCertificate, ago: Duration) -> TrustedCertificate {
        certificate.usage.last_seen = Some(now() - ago);
        certificate
    }

    fn said(certificate: &TrustedCertificate, last_seen: Option<SystemTime>) -> String {
        Verdict::of(certificate, last_seen, now()).to_string()
    }

    #[test]
    fn the_verdicts_are_said_in_these_words() {
        let year = certificate(200 * DAY, false);
        let (three, other) = (seen(year.clone(), 3 * DAY), Some(now() - HOUR));
        let cases = [
            (seen(year.clone(), HOUR), "in use"),
            (year.clone(), "waiting for its first use"),
            (seen(year.clone(), 2 * DAY), "quiet for 2 days"),
            (seen(year, DAY), "quiet for 1 day"),
            (three.clone(), "quiet for 3 days: safe to remove"),
            (certificate(9 * DAY, false), "ends in 9 days and no successor is loaded"),
            (certificate(9 * DAY - HOUR, false), "ends in 9 days and no successor is loaded"),
            (certificate(5 * HOUR, false), "ends in 5 hours and no successor is loaded"),
            (seen(certificate(9 * DAY, true), HOUR), "in use"),
            (certificate(Duration::ZERO, false), "expired"),
        ];
        for (certificate, expected) in cases {
            assert_eq!(said(&certificate, other), expected);
        }
        let mut connected = three;
        connected.usage.connections = 1;
        assert_eq!(said(&connected, other), "in use");
    }

    #[test]
    fn what_nothing_else_has_taken_the_place_of_is_not_safe_to_remove() {
        let alone = seen(certificate(200 * DAY, false), 5 * DAY);
        let verdict = said(&alone, alone.usage.last_seen);
        assert_eq!(verdict, "quiet for 5 days, and no other was used since: keep it");
    }

    #[test]
    fn what_has_not_begun_says_when_it_will() {
        let mut later = certificate(200 * DAY, false);
        later.not_before = now() + 2 * DAY;
        assert_eq!(said(&later, None), "not yet valid: begins in 2 days");
    }
}

//! Validity periods, and the one place that judges them.

use std::fmt;
use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;
use x509_cert::der::DateTime;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The validity period of a certificate, or of a whole chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second in which it is valid.
    pub(crate) not_before: UnixTime,
    /// The first second in which it is expired.
    pub(crate) not_after: UnixTime,
}

/// A validity period seen from one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValidityState {
    /// It begins after this time.
    NotYetValid(Duration),
    /// It is valid, and ends after this time.
    Valid(Duration),
    /// It ended this long ago.
    Expired(Duration),
}

impl Validity {
    /// Judges the period at `now`. An end before the beginning means expired.
    pub(crate) fn at(self, now: UnixTime) -> ValidityState {
        let now = now.as_secs();
        let seconds = Duration::from_secs;
        match (now.checked_sub(self.not_after.as_secs()), self.not_before.as_secs()) {
            (Some(past), _) => ValidityState::Expired(seconds(past)),
            (None, begin) if begin > now => ValidityState::NotYetValid(seconds(begin - now)),
            (None, _) => {
                ValidityState::Valid(seconds(self.not_after.as_secs().saturating_sub(now)))
            }
        }
    }

    pub(crate) fn contains(self, now: UnixTime) -> bool {
        matches!(self.at(now), ValidityState::Valid(_))
    }

    /// The period in which both are valid: for a chain, the earliest end counts.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }
}

/// The days until `not_after`, to the nearest; negative after it. A new certificate for nine days
/// has slightly less left, and its owner expects nine.
pub(crate) fn days_left(not_after: SystemTime, now: SystemTime) -> i64 {
    let days = |span: Duration| {
        i64::try_from((span + DAY / 2).as_secs() / DAY.as_secs()).unwrap_or(i64::MAX)
    };
    match not_after.duration_since(now) {
        Ok(left) => days(left),
        Err(past) => -days(past.duration()),
    }
}

/// A duration for people.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // To the nearest, as in `days_left`.
        let round = |unit: Duration| (self.0.as_secs() + unit.as_secs() / 2) / unit.as_secs();
        let (count, unit) = match (round(DAY), round(HOUR)) {
            (_, 0) => return write!(f, "less than an hour"),
            (_, hours) if self.0 < DAY && hours < 24 => (hours, "hour"),
            (days, _) => (days.max(1), "day"),
        };
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })
    }
}

/// A time in RFC 3339, UTC, to the second.
pub(crate) fn rfc3339(time: UnixTime) -> String {
    match DateTime::from_unix_duration(Duration::from_secs(time.as_secs())) {
        Ok(date) => date.to_string(),
        Err(_) => format!("@{}", time.as_secs()),
    }
}

pub(crate) fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

pub(crate) fn unix_time(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn period_includes_its_first_second_and_excludes_its_last() {
        let validity = Validity { not_before: at(10), not_after: at(20) };
        let seconds = Duration::from_secs;
        for (now, expected) in [
            (9, ValidityState::NotYetValid(seconds(1))),
            (10, ValidityState::Valid(seconds(10))),
            (19, ValidityState::Valid(seconds(1))),
            (20, ValidityState::Expired(seconds(0))),
            (25, ValidityState::Expired(seconds(5))),
        ] {
            assert_eq!(validity.at(at(now)), expected, "at {now}");
        }
        let reversed = Validity { not_before: at(20), not_after: at(10) };
        assert_eq!(reversed.at(at(15)), ValidityState::Expired(seconds(5)));
    }

    #[test]
    fn chain_is_valid_where_each_of_its_certificates_is() {
        let both = Validity { not_before: at(10), not_after: at(20) }
            .and(Validity { not_before: at(5), not_after: at(15) });
        assert_eq!(both, Validity { not_before: at(10), not_after: at(15) });
    }

    #[test]
    fn days_left_are_rounded_and_negative_after_the_end() {
        let end = system_time(at(100 * 86_400));
        assert_eq!(days_left(end, end - 9 * DAY + HOUR), 9);
        assert_eq!(days_left(end, end - 9 * DAY - HOUR), 9);
        assert_eq!(days_left(end, end), 0);
        assert_eq!(days_left(end, end + 3 * DAY + HOUR), -3);
    }
}

//! Certificates whose validity period begins before 1970.
//!
//! The X.509 parser rejects such times; OpenSSL accepts them. A private CA writes them to be valid
//! "always". As the clock never shows a time before 1970, 1970 means the same.

use std::time::Duration;

use x509_cert::der::{DateTime, Decode as _, Header, Reader as _, SliceReader, Tag};

use super::validity::{Validity, rfc3339};

/// The first second that the parser knows, in both forms.
const UTC_TIME: &[u8] = b"700101000000Z";
const GENERALIZED_TIME: &[u8] = b"19700101000000Z";

/// The calendar repeats every 400 years: five times that is later than any year before 1970, and
/// known to the parser.
const REPEATS: u16 = 5;
const REPEATED: Duration = Duration::from_secs(REPEATS as u64 * 146_097 * 24 * 60 * 60);

/// A copy of the certificate in which times before 1970 read 1970; `None` if it has none.
pub(super) fn with_clamped_times(der: &[u8]) -> Option<Vec<u8>> {
    let mut clamped = der.to_vec();
    let mut has_changed = false;
    for time in validity_times(der)? {
        let value = clamped.get_mut(time.offset..time.offset + time.length)?;
        if AncientTime::parse(time.tag, value).is_some() {
            let epoch = if time.tag == Tag::UtcTime { UTC_TIME } else { GENERALIZED_TIME };
            value.copy_from_slice(epoch);
            has_changed = true;
        }
    }
    has_changed.then_some(clamped)
}

/// A validity period as the certificate has it, for people.
#[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "only the commands show all of it"))]
pub(crate) struct WrittenPeriod {
    pub(crate) not_before: String,
    pub(crate) not_after: String,
    /// How long before 1970 it ends.
    pub(crate) ended_before_1970: Duration,
}

impl WrittenPeriod {
    /// The period of a certificate whose validity is known already.
    pub(crate) fn new(der: &[u8], validity: Validity) -> Self {
        let ancient = validity_times(der).map(|times| times.map(|time| time.ancient(der)));
        let [begin, end] = ancient.unwrap_or_default();
        Self {
            not_before: begin.map_or_else(|| rfc3339(validity.not_before), |begin| begin.text),
            ended_before_1970: end.as_ref().map(|end| end.before_1970).unwrap_or_default(),
            not_after: end.map_or_else(|| rfc3339(validity.not_after), |end| end.text),
        }
    }
}

/// A time before 1970.
struct AncientTime {
    /// As RFC 3339 has it.
    text: String,
    before_1970: Duration,
}

impl AncientTime {
    fn parse(tag: Tag, value: &[u8]) -> Option<Self> {
        let digits = value.strip_suffix(b"Z")?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let digits = std::str::from_utf8(digits).ok()?;
        let (year, rest) = match (tag, digits.len()) {
            (Tag::UtcTime, 12) => {
                let (year, rest) = digits.split_at_checked(2)?;
                (year.parse().ok().filter(|year| *year >= 50).map(|year: u16| 1900 + year), rest)
            }
            (Tag::GeneralizedTime, 14) => {
                let (year, rest) = digits.split_at_checked(4)?;
                (year.parse().ok(), rest)
            }
            _ => return None,
        };
        let year = year.filter(|year| *year < 1970)?;
        let number = |index: usize| rest.get(2 * index..2 * index + 2)?.parse::<u8>().ok();
        let [month, day, hour, minute, second] =
            [number(0)?, number(1)?, number(2)?, number(3)?, number(4)?];
        let repeated =
            DateTime::new(year + REPEATS * 400, month, day, hour, minute, second).ok()?;
        Some(Self {
            text: format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"),
            before_1970: REPEATED.checked_sub(repeated.unix_duration())?,
        })
    }
}

struct TimeField {
    tag: Tag,
    offset: usize,
    length: usize,
}

impl TimeField {
    fn ancient(&self, der: &[u8]) -> Option<AncientTime> {
        AncientTime::parse(self.tag, der.get(self.offset..self.offset + self.length)?)
    }
}

/// Where `notBefore` and `notAfter` are: Certificate → TBSCertificate → the fifth field, or the
/// fourth if the version is left out.
fn validity_times(der: &[u8]) -> Option<[TimeField; 2]> {
    let mut reader = SliceReader::new(der).ok()?;
    enter(&mut reader)?;
    enter(&mut reader)?;
    if Tag::peek(&reader).ok()?.is_context_specific() {
        reader.tlv_bytes().ok()?;
    }
    for _serial_algorithm_issuer in 0..3 {
        reader.tlv_bytes().ok()?;
    }
    enter(&mut reader)?;
    Some([field(&mut reader)?, field(&mut reader)?])
}

/// Moves to the first field of a SEQUENCE.
fn enter(reader: &mut SliceReader<'_>) -> Option<()> {
    let header = Header::decode(reader).ok()?;
    (header.tag() == Tag::Sequence).then_some(())
}

fn field(reader: &mut SliceReader<'_>) -> Option<TimeField> {
    let header = Header::decode(reader).ok()?;
    let offset = usize::try_from(reader.position()).ok()?;
    reader.read_slice(header.length()).ok()?;
    let length = usize::try_from(header.length()).ok()?;
    Some(TimeField { tag: header.tag(), offset, length })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::{Certificate, Fingerprint, pem};

    #[test]
    fn certificate_that_began_before_1970_is_parsed_and_keeps_its_bytes() {
        let text = include_bytes!("../../certs-example/client-1.pem");
        let (_, der) = pem::certificates(text).0.remove(0);
        let mut der = der.to_vec();
        let at = der.windows(13).position(|window| window == b"260101000000Z").unwrap();
        der[at..at + 2].copy_from_slice(b"50");
        let certificate = Certificate::parse(der.clone().into()).unwrap();
        assert_eq!(rfc3339(certificate.validity().not_before), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(certificate.validity().not_after), "2049-12-31T00:00:00Z");
        assert_eq!(certificate.der().as_ref(), der);
        assert_eq!(certificate.summary().fingerprint, Fingerprint::of(&der));
        // There is no month 13: another error stays one, before 1970 too.
        for damaged in [b"2613", b"5013"] {
            der[at..at + 4].copy_from_slice(damaged);
            assert!(Certificate::parse(der.clone().into()).is_err());
        }
    }

    #[test]
    fn time_before_1970_is_shown_as_it_is_written() {
        let parse = |tag, value: &str| AncientTime::parse(tag, value.as_bytes());
        for (tag, value, text, seconds) in [
            (Tag::UtcTime, "691231235959Z", "1969-12-31T23:59:59Z", 1),
            (Tag::UtcTime, "600301000000Z", "1960-03-01T00:00:00Z", 310_435_200),
            (Tag::GeneralizedTime, "19500101000000Z", "1950-01-01T00:00:00Z", 631_152_000),
        ] {
            let time = parse(tag, value).unwrap();
            assert_eq!((time.text.as_str(), time.before_1970.as_secs()), (text, seconds));
        }
        assert!(parse(Tag::GeneralizedTime, "00000229000000Z").is_some(), "a leap year");
        for value in ["700101000000Z", "490101000000Z", "600230000000Z", "6001010000Z", ""] {
            assert!(parse(Tag::UtcTime, value).is_none(), "{value}");
        }
        assert!(parse(Tag::GeneralizedTime, "19700101000000Z").is_none());
    }
}

//! Certificates whose validity period begins before 1970.
//!
//! The X.509 parser rejects such times; OpenSSL accepts them. A private CA writes them to be valid
//! "always". As the clock never shows a time before 1970, 1970 means the same.

use x509_cert::der::{Decode as _, Header, Reader as _, SliceReader, Tag};

/// The first second that the parser knows, in both forms.
const UTC_TIME: &[u8] = b"700101000000Z";
const GENERALIZED_TIME: &[u8] = b"19700101000000Z";

/// A copy of the certificate in which times before 1970 read 1970; `None` if it has none.
pub(super) fn with_clamped_times(der: &[u8]) -> Option<Vec<u8>> {
    let mut clamped = der.to_vec();
    let mut has_changed = false;
    for time in validity_times(der)? {
        let value = clamped.get_mut(time.offset..time.offset + time.length)?;
        let epoch = match time.tag {
            Tag::UtcTime if matches!(value, [b'5' | b'6', ..]) => UTC_TIME,
            Tag::GeneralizedTime if value.get(..4)? < b"1970".as_slice() => GENERALIZED_TIME,
            _ => continue,
        };
        if value.len() == epoch.len() {
            value.copy_from_slice(epoch);
            has_changed = true;
        }
    }
    has_changed.then_some(clamped)
}

struct TimeField {
    tag: Tag,
    offset: usize,
    length: usize,
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
    use crate::trust::{Certificate, Fingerprint, pem, rfc3339};

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
        // There is no month 13: another error stays one.
        der[at..at + 4].copy_from_slice(b"2613");
        assert!(Certificate::parse(der.into()).is_err());
    }
}

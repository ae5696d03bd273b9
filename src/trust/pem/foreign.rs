//! Recognizes formats that are often mistaken for PEM, so that the remedy fits.

use super::error::PemErrorKind;

pub(super) const BEGIN: &str = "-----BEGIN ";
pub(super) const END: &str = "-----END ";
pub(super) const DASHES: &str = "-----";

/// The format of a file that is not PEM text at all.
pub(super) fn format(bytes: &[u8], text: &str) -> Option<PemErrorKind> {
    if is_utf16(bytes) {
        return Some(PemErrorKind::Utf16);
    }
    if text.contains(BEGIN) {
        let is_json = text.trim_start_matches(['\u{feff}', ' ', '\n', '\r', '\t']).starts_with('{');
        return (is_json && text.contains("\"pemEncodedCertificate\""))
            .then_some(PemErrorKind::AwsJson);
    }
    // The DER of a certificate or an archive begins with a SEQUENCE whose length takes two bytes
    // or more, and that of an archive (PKCS#12) goes on with the version 3.
    match bytes {
        [0x30, 0x81, _, 0x02, 0x01, 0x03, ..]
        | [0x30, 0x82, _, _, 0x02, 0x01, 0x03, ..]
        | [0x30, 0x83, _, _, _, 0x02, 0x01, 0x03, ..]
        // OpenSSL 3 writes the indefinite length for large ones.
        | [0x30, 0x80, 0x02, 0x01, 0x03, ..] => Some(PemErrorKind::Pkcs12),
        [0x30, 0x81..=0x84, ..] => Some(PemErrorKind::Der),
        _ => None,
    }
}

/// UTF-16 with a byte order mark, or ASCII with a zero beside each byte.
fn is_utf16(bytes: &[u8]) -> bool {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return true;
    }
    let (pairs, _) = bytes.as_chunks::<2>();
    let start = pairs.get(..pairs.len().min(32)).unwrap_or_default();
    start.len() >= 8
        && (start.iter().all(|[first, second]| *first == 0 && *second != 0)
            || start.iter().all(|[first, second]| *first != 0 && *second == 0))
}

/// True for a marker behind a comment sign.
pub(super) fn is_comment(line: &str) -> bool {
    let before = text_before_marker(line);
    ["#", "//", ";", "<!--", "/*"].iter().any(|sign| before.starts_with(sign))
}

/// Why a line that holds more than a marker is not PEM.
pub(super) fn marker_line(line: &str) -> Option<PemErrorKind> {
    if line.contains("\\n") {
        return Some(PemErrorKind::LiteralNewlines);
    }
    let before = text_before_marker(line);
    let after = line.rsplit_once(DASHES).map_or("", |(_, after)| after.trim());
    let quote = |text: &str| text.chars().next().filter(|c| "\"'`".contains(*c));
    if before.chars().next_back().is_some_and(|c| "\"'`".contains(c)) || quote(after).is_some() {
        return Some(PemErrorKind::Quoted);
    }
    if before.ends_with(':') || before.starts_with("- ") || before == "-" {
        return Some(PemErrorKind::Yaml);
    }
    None
}

fn text_before_marker(line: &str) -> &str {
    let begin = line.find(BEGIN).into_iter().chain(line.find(END)).min();
    begin.and_then(|at| line.get(..at)).unwrap_or_default().trim()
}

//! Recognizes formats that are often mistaken for PEM, so that the remedy fits.

use super::error::PemErrorKind;

pub(super) const BEGIN: &str = "-----BEGIN ";
pub(super) const END: &str = "-----END ";
pub(super) const DASHES: &str = "-----";

/// More text without a space is base64.
const BASE64_LINE: usize = 48;

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
    if bytes.starts_with(b"\xfe\xed\xfe\xed") || bytes.starts_with(b"\xce\xce\xce\xce") {
        return Some(PemErrorKind::JavaKeystore);
    }
    der(bytes)
}

/// The kind of a file in DER or BER, by how it begins.
pub(super) fn der(bytes: &[u8]) -> Option<PemErrorKind> {
    const SIGNED_DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
    // A text may begin with these bytes too, so a short length must be that of the file.
    let is_long = matches!(bytes, [SEQUENCE, 0x80..=0x84, ..]);
    let is_short = matches!(bytes, [SEQUENCE, length, ..] if bytes.len() == 2 + *length as usize);
    if !is_long && !is_short {
        return None;
    }
    let (content, _) = element(SEQUENCE, bytes).unwrap_or_default();
    let kind = match content {
        [INTEGER, 1, 3, ..] => PemErrorKind::Pkcs12,
        [INTEGER, 1, 0 | 1, ..] => PemErrorKind::DerKey,
        content if content.starts_with(SIGNED_DATA) => PemErrorKind::Pkcs7Der,
        content => match element(SEQUENCE, content) {
            // An algorithm, then what it encrypts or describes.
            Some(([OBJECT_IDENTIFIER, ..], [OCTET_STRING, ..])) => PemErrorKind::EncryptedDerKey,
            Some(([OBJECT_IDENTIFIER, ..], [BIT_STRING, ..])) => {
                PemErrorKind::OtherDer("a public key")
            }
            // Version 0, then a name. A certificate has its version or serial number, then an
            // algorithm.
            Some(([INTEGER, 1, 0, rest @ ..], _)) if is_name(rest) => {
                PemErrorKind::OtherDer("a certificate request")
            }
            _ => PemErrorKind::Der,
        },
    };
    Some(kind)
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// The content of the element of this tag that the bytes begin with, and what follows it. One of
/// indefinite length, or that is cut short, lasts to the end.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match bytes {
        [first, ..] if *first != tag => return None,
        [_, 0x80, rest @ ..] => (usize::MAX, rest),
        [_, length @ 0..0x80, rest @ ..] => (usize::from(*length), rest),
        [_, count @ 0x81..=0x84, rest @ ..] => {
            let (length, rest) = rest.split_at_checked(usize::from(*count & 0x7f))?;
            (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    Some(rest.split_at_checked(length).unwrap_or((rest, &[])))
}

/// True if the bytes begin with a name, which may be empty.
fn is_name(bytes: &[u8]) -> bool {
    element(SEQUENCE, bytes).is_some_and(|(name, _)| matches!(name, [] | [SET, ..]))
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
    // A line with base64 or another marker on it has lost its breaks.
    let has_text = !before.is_empty() || !after.is_empty();
    let markers = line.matches(BEGIN).count() + line.matches(END).count();
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let longest_run = after.split(|c| !is_base64(c)).map(str::len).max().unwrap_or_default();
    let is_whole = line.matches(DASHES).count() == 2;
    (markers == 1 && has_text && is_whole && longest_run < BASE64_LINE)
        .then_some(PemErrorKind::TextAroundMarker)
}

fn text_before_marker(line: &str) -> &str {
    let begin = line.find(BEGIN).into_iter().chain(line.find(END)).min();
    begin.and_then(|at| line.get(..at)).unwrap_or_default().trim()
}

//! The pure parts, on the shape of API Gateway's certificates.

use proptest::prelude::*;

use super::pem::{self, PemErrorKind};
use super::{Certificate, KeyKind, Summary, rfc3339};

const ONE: &str = include_str!("../../certs-example/client-1.pem");
const TWO: &str = include_str!("../../certs-example/client-2.pem");
const KEY: &str = include_str!("../../certs-example/client-1-key.pem");

/// A problem and its line.
type Placed = (Option<usize>, PemErrorKind);

/// The certificates' DER, and the errors with their lines.
fn read(bytes: impl AsRef<[u8]>) -> (Vec<Vec<u8>>, Vec<Placed>) {
    let (certificates, errors) = pem::certificates(bytes.as_ref());
    let certificates = certificates.into_iter().map(|(_, der)| der.to_vec()).collect();
    (certificates, errors.into_iter().map(|error| (error.line, error.kind)).collect())
}

fn ders() -> [Vec<u8>; 2] {
    [ONE, TWO].map(|text| read(text).0.remove(0))
}

#[test]
fn common_damage_to_pem_files_is_read_as_meant() {
    let [one, two] = ders();
    let crlf = ONE.replace('\n', "\r\n");
    let api = crlf.trim_end().to_owned();
    let cases = [
        ("as it is", ONE.to_owned(), 1),
        ("CR LF", crlf.clone(), 1),
        ("CR only", ONE.replace('\n', "\r"), 1),
        ("no final newline", ONE.trim_end().to_owned(), 1),
        ("as the API has it", api.clone(), 1),
        ("a byte order mark", format!("\u{feff}{ONE}"), 1),
        ("two with a byte order mark each", format!("\u{feff}{ONE}\u{feff}{TWO}"), 2),
        ("two outputs of the API glued together", format!("{api}{}", TWO.trim_end()), 2),
        (
            "text around the blocks",
            format!("Certificate:\n  Data: 1 (0x2)\n{ONE}\n# and\n{TWO}\nend"),
            2,
        ),
        ("white space after the lines", ONE.replace('\n', " \t\n"), 1),
        ("indented", ONE.lines().map(|line| format!("    {line}\n")).collect(), 1),
        ("empty lines within", ONE.replace('\n', "\n\n"), 1),
    ];
    for (what, text, count) in cases {
        let expected = [one.clone(), two.clone()].into_iter().take(count).collect::<Vec<_>>();
        assert_eq!(read(&text), (expected, vec![]), "{what}");
    }
}

#[test]
fn pem_errors_name_the_line() {
    let lines: Vec<&str> = ONE.lines().collect();
    let (head, tail) = lines.split_at(5);
    let one_line = lines.join(" ");
    let literal = format!("{}\n", ONE.replace('\n', "\\n"));
    let json = format!("\"{}\"\n", ONE.replace('\n', "\\n"));
    let der = ders()[0].clone();
    let utf16: Vec<u8> =
        "\u{feff}".encode_utf16().chain(ONE.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let trusted = ONE.replace("CERTIFICATE", "TRUSTED CERTIFICATE");
    let cases: Vec<(&str, Vec<u8>, Option<usize>, PemErrorKind)> = vec![
        ("empty", vec![], None, PemErrorKind::NoCertificate),
        ("text", b"hello\n".to_vec(), None, PemErrorKind::NoCertificate),
        ("cut", head.join("\n").into(), Some(1), PemErrorKind::Truncated),
        (
            "cut, and another behind it",
            format!("{}\n{TWO}", head.join("\n")).into(),
            Some(1),
            PemErrorKind::Truncated,
        ),
        (
            "the second is cut",
            format!("{TWO}{}", head.join("\n")).into(),
            Some(TWO.lines().count() + 1),
            PemErrorKind::Truncated,
        ),
        (
            "cut within its end marker",
            ONE.trim_end().trim_end_matches("-----").into(),
            Some(1),
            PemErrorKind::Truncated,
        ),
        (
            "cut within its first marker",
            b"-----BEGIN CERTIF".to_vec(),
            Some(1),
            PemErrorKind::Truncated,
        ),
        ("the head is missing", tail.join("\n").into(), Some(tail.len()), PemErrorKind::StrayEnd),
        ("bad base64", ONE.replacen("MII", "M*I", 1).into(), Some(2), PemErrorKind::BadBase64),
        (
            "base64 of the wrong length",
            ONE.replacen("MII", "MI", 1).into(),
            Some(1),
            PemErrorKind::BadBase64,
        ),
        ("on one line", one_line.into(), Some(1), PemErrorKind::OneLine),
        ("literal \\n", literal.into(), Some(1), PemErrorKind::LiteralNewlines),
        ("a JSON string", json.into(), Some(1), PemErrorKind::LiteralNewlines),
        ("a private key", KEY.into(), Some(2), PemErrorKind::PrivateKey),
        (
            "a private key behind it",
            format!("{ONE}{KEY}").into(),
            Some(ONE.lines().count() + 2),
            PemErrorKind::PrivateKey,
        ),
        (
            "another kind",
            trusted.into(),
            Some(1),
            PemErrorKind::NotACertificate("TRUSTED CERTIFICATE".into()),
        ),
        ("DER", der, None, PemErrorKind::Der),
        ("UTF-16", utf16, None, PemErrorKind::Utf16),
    ];
    for (what, bytes, line, problem) in cases {
        assert_eq!(read(bytes).1, vec![(line, problem.clone())], "{what}");
        assert!(!problem.remedy().is_empty(), "{what}");
    }
}

#[test]
fn server_key_may_share_a_file_and_an_encrypted_one_is_named() {
    assert!(pem::private_key(format!("{ONE}{KEY}").as_bytes()).is_ok());
    assert_eq!(pem::chain(format!("{KEY}{ONE}{TWO}").as_bytes()).map(|chain| chain.len()), Ok(2));
    let problem = |text: &str| pem::private_key(text.as_bytes()).unwrap_err()[0].kind.clone();
    assert_eq!(problem(ONE), PemErrorKind::NotAPrivateKey("CERTIFICATE".to_owned()));
    assert_eq!(problem(""), PemErrorKind::NoPrivateKey);
    assert_eq!(problem(&format!("{KEY}{KEY}")), PemErrorKind::SeveralPrivateKeys);
    let pkcs8 = KEY.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    assert_eq!(problem(&pkcs8), PemErrorKind::EncryptedKey);
    let begin = "-----BEGIN PRIVATE KEY-----";
    let headers = format!("{begin}\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n");
    assert_eq!(problem(&KEY.replace(begin, &headers)), PemErrorKind::EncryptedKey);
}

#[test]
fn api_gateway_certificate_is_described_as_openssl_does() {
    let certificate = Certificate::parse(ders()[0].clone().into()).unwrap();
    let Summary { fingerprint, subject, serial, validity, .. } = certificate.summary();
    assert_eq!(subject, "CN=ApiGateway,L=Seattle,C=US");
    assert_eq!(certificate.key(), KeyKind::Rsa(2048));
    assert_eq!(rfc3339(validity.not_after), "2049-12-31T00:00:00Z");
    assert_eq!(serial.len(), 16);
    assert_eq!(fingerprint.to_string().len(), 64);
    assert!(!certificate.is_ca());
}

#[test]
fn trailing_bytes_are_an_error() {
    let mut der = ders()[0].clone();
    assert!(Certificate::parse(der.clone().into()).is_ok());
    der.push(0);
    assert_eq!(Certificate::parse(der.into()).unwrap_err(), PemErrorKind::TrailingBytes);
}

/// Texts that are nearly PEM files.
fn nearly_pem() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(ONE.as_bytes().to_vec()),
        Just(TWO.trim_end().as_bytes().to_vec()),
        Just(KEY.as_bytes().to_vec()),
        Just(b"-----BEGIN CERTIFICATE-----".to_vec()),
        Just(b"-----END CERTIFICATE-----".to_vec()),
        Just(b"-----BEGIN ".to_vec()),
        Just(b"\n".to_vec()),
        Just("\u{feff}".as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// RFC 7468, as any other program writes it.
fn written(der: &[u8]) -> String {
    let base64 = |chunk: &[u8]| {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        (0..4)
            .map(|index| match index <= chunk.len() {
                true => char::from(DIGITS[(group >> (18 - 6 * index) & 63) as usize]),
                false => '=',
            })
            .collect::<String>()
    };
    let text: Vec<char> = der.chunks(3).map(base64).collect::<String>().chars().collect();
    let lines = text.chunks(64).map(|line| line.iter().collect::<String>() + "\n");
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = pem::certificates(&bytes);
        let _ = pem::private_key(&bytes);
        let _ = Summary::of(&bytes.into());
    }

    #[test]
    fn file_without_errors_round_trips(bytes in nearly_pem()) {
        let (certificates, errors) = pem::certificates(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        if errors.is_empty() {
            prop_assert_eq!(certificates.len(), text.matches("-----BEGIN CERTIFICATE-----").count());
        }
        for (_, der) in certificates {
            prop_assert_eq!(read(written(&der)), (vec![der.to_vec()], vec![]));
        }
    }

    #[test]
    fn bytes_of_a_block_round_trip(der in proptest::collection::vec(any::<u8>(), 1..300)) {
        prop_assert_eq!(read(written(&der)), (vec![der], vec![]));
    }

    #[test]
    fn a_damaged_certificate_never_panics(at in 0..748_usize, bit in 0..8_u32) {
        let mut der = ders()[0].clone();
        der[at] ^= 1_u8 << bit;
        let _ = Certificate::parse(der.clone().into());
        let _ = Summary::of(&der.into());
    }
}

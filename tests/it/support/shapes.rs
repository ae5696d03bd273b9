//! Certificates of shapes that no tool makes: byte by byte, as X.509 has them.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use x509_cert::der::Encode as _;
use x509_cert::der::asn1::UtcTime;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const PRINTABLE_STRING: u8 = 0x13;

/// sha256WithRSAEncryption, and others whose signatures are not verified.
pub const SHA256_RSA: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 11, 5, 0];
pub const SHA1_RSA: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 5, 5, 0];
pub const SHA512_RSA: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 13, 5, 0];
/// RSASSA-PSS with its default parameters.
pub const PSS: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 10, SEQUENCE, 0];

/// Extensions: SEQUENCE { OID, critical?, OCTET STRING }.
pub const CA_TRUE: &[u8] =
    &[SEQUENCE, 15, 6, 3, 0x55, 0x1d, 19, 1, 1, 0xff, 4, 5, 0x30, 3, 1, 1, 0xff];
pub const CA_FALSE: &[u8] = &[SEQUENCE, 9, 6, 3, 0x55, 0x1d, 19, 4, 2, 0x30, 0];
pub const SERVER_AUTH: &[u8] =
    &[SEQUENCE, 19, 6, 3, 0x55, 0x1d, 37, 4, 12, 0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1];
pub const KEY_CERT_SIGN: &[u8] =
    &[SEQUENCE, 14, 6, 3, 0x55, 0x1d, 15, 1, 1, 0xff, 4, 4, 3, 2, 2, 4];
pub const UNKNOWN_CRITICAL: &[u8] = &[SEQUENCE, 12, 6, 3, 0x2a, 3, 4, 1, 1, 0xff, 4, 2, 5, 0];

/// What can differ from the shape of API Gateway's certificates.
pub struct Shape<'a> {
    pub key: &'a KeyPair,
    /// The signing key, under the same name; by default the certificate's own.
    pub signer: Option<&'a KeyPair>,
    pub is_v1: bool,
    pub serial: u64,
    pub from: SystemTime,
    pub until: SystemTime,
    pub signature: &'static [u8],
    pub extensions: &'a [&'static [u8]],
}

impl<'a> Shape<'a> {
    /// As API Gateway makes them, valid from a day ago for a year.
    pub fn of(key: &'a KeyPair) -> Self {
        // The same each time, so that the same shape is the same certificate.
        static NOW: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);
        let from = *NOW - Duration::from_secs(24 * 60 * 60);
        Self {
            key,
            signer: None,
            is_v1: false,
            serial: 0x6408_3271_8a83_46a4,
            from,
            until: from + Duration::from_secs(365 * 24 * 60 * 60),
            signature: SHA256_RSA,
            extensions: &[],
        }
    }

    pub fn der(&self) -> Vec<u8> {
        let algorithm = tlv(SEQUENCE, &[self.signature]);
        let name = tlv(SEQUENCE, &[&rdn(6, "US"), &rdn(7, "Seattle"), &rdn(3, "ApiGateway")]);
        let validity = tlv(SEQUENCE, &[&utc_time(self.from), &utc_time(self.until)]);
        // An INTEGER is as short as its sign allows.
        let serial = [&[0], self.serial.to_be_bytes().as_slice()].concat();
        let zeros = serial.windows(2).take_while(|pair| pair[0] == 0 && pair[1] < 0x80).count();
        let serial = tlv(2, &[&serial[zeros..]]);
        let version = tlv(0xa0, &[&[2, 1, 2]]);
        let extensions = tlv(0xa3, &[&tlv(SEQUENCE, self.extensions)]);
        let body = tlv(
            SEQUENCE,
            &[
                if self.is_v1 { &[] } else { &version },
                &serial,
                &algorithm,
                &name,
                &validity,
                &name,
                &self.key.subject_public_key_info(),
                if self.extensions.is_empty() { &[] } else { &extensions },
            ],
        );
        let signature = self.signer.unwrap_or(self.key).sign(&body).expect("a signature");
        tlv(SEQUENCE, &[&body, &algorithm, &tlv(3, &[&[0], &signature])])
    }
}

/// The PEM text of a certificate.
pub fn pem(der: &[u8]) -> String {
    use x509_cert::der::pem::{LineEnding, encode_string};
    encode_string("CERTIFICATE", LineEnding::LF, der).expect("PEM")
}

fn utc_time(time: SystemTime) -> Vec<u8> {
    let seconds = time.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let time = UtcTime::from_unix_duration(Duration::from_secs(seconds)).expect("before 2050");
    time.to_der().expect("DER")
}

fn rdn(attribute: u8, value: &str) -> Vec<u8> {
    let value = tlv(PRINTABLE_STRING, &[value.as_bytes()]);
    tlv(SET, &[&tlv(SEQUENCE, &[&[6, 3, 0x55, 4, attribute], &value])])
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let [.., high, low] = length.to_be_bytes();
    let header = match length {
        0..0x80 => vec![tag, low],
        0x80..0x100 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [header, parts.concat()].concat()
}

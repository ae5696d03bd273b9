//! One X.509 certificate: parsed whole from a trust file, or summarized as a client presented it.

use rustls::SignatureScheme;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::oid::db::rfc5280::{ANY_EXTENDED_KEY_USAGE, ID_KP_SERVER_AUTH};
use x509_cert::der::{Decode, Encode, ErrorKind};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage};
use x509_cert::name::Name;
use x509_cert::time::Time;

use super::ancient::with_clamped_times;
use super::fingerprint::Fingerprint;
use super::key::{KeyKind, PublicKey};
use super::pem::PemErrorKind;
use super::validity::Validity;

/// A certificate of a trust file, with a key that can verify signatures.
#[derive(Debug)]
pub struct Certificate {
    der: CertificateDer<'static>,
    key: PublicKey,
    subject_der: Vec<u8>,
    issuer_der: Vec<u8>,
    is_ca: bool,
    signs_certificates: bool,
    is_for_servers: bool,
    summary: Summary,
}

/// What logs and pages show of a certificate.
#[derive(Clone, Debug)]
pub struct Summary {
    /// SHA-256 of the DER.
    pub fingerprint: Fingerprint,
    /// The subject in the form of RFC 4514, with unprintable characters escaped, at most 256
    /// characters.
    pub subject: String,
    /// The serial number, lower-case hex.
    pub serial: String,
    /// SHA-256 of its public key (SubjectPublicKeyInfo, DER).
    pub key_fingerprint: Fingerprint,
    /// Its validity period.
    pub validity: Validity,
}

impl Certificate {
    /// Parses a DER certificate, whole and strictly, and its public key.
    ///
    /// # Errors
    /// What is wrong with it. An expired certificate is not an error.
    pub fn parse(der: CertificateDer<'static>) -> Result<Self, PemErrorKind> {
        let parsed = decode(&der).map_err(|error| match error.kind() {
            ErrorKind::TrailingData { .. } => PemErrorKind::TrailingBytes,
            _ => PemErrorKind::BadDer(error.to_string()),
        })?;
        let bad = |error: x509_cert::der::Error| PemErrorKind::BadDer(error.to_string());
        let tbs = parsed.tbs_certificate();
        let basic_constraints = tbs.get_extension::<BasicConstraints>();
        let key_usage = tbs.get_extension::<KeyUsage>();
        let extended_key_usage = tbs.get_extension::<ExtendedKeyUsage>();
        Ok(Self {
            key: PublicKey::parse(tbs.subject_public_key_info())?,
            subject_der: tbs.subject().to_der().map_err(bad)?,
            issuer_der: tbs.issuer().to_der().map_err(bad)?,
            is_ca: matches!(basic_constraints, Ok(Some((_, BasicConstraints { ca: true, .. })))),
            signs_certificates: matches!(key_usage, Ok(Some((_, usage))) if usage.key_cert_sign()),
            is_for_servers: match extended_key_usage {
                Ok(None) => true,
                Ok(Some((_, ExtendedKeyUsage(purposes)))) => purposes
                    .iter()
                    .any(|purpose| [ID_KP_SERVER_AUTH, ANY_EXTENDED_KEY_USAGE].contains(purpose)),
                Err(_) => false,
            },
            summary: summary(&der, &parsed),
            der,
        })
    }

    /// The certificate itself.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    pub(crate) fn spki(&self) -> &SubjectPublicKeyInfoDer<'static> {
        &self.key.spki
    }

    /// The parsed key for a scheme of RSASSA-PSS, if it is an RSA key.
    pub(crate) fn rsa_pss_key(
        &self,
        scheme: SignatureScheme,
    ) -> Option<&aws_lc_rs::signature::ParsedPublicKey> {
        self.key.rsa_pss(scheme)
    }

    pub(crate) fn subject_der(&self) -> &[u8] {
        &self.subject_der
    }

    pub(crate) fn issuer_der(&self) -> &[u8] {
        &self.issuer_der
    }

    /// The kind of its public key.
    pub fn key(&self) -> KeyKind {
        self.key.kind
    }

    /// True if its basic constraints say `CA:TRUE`.
    pub(crate) fn is_ca(&self) -> bool {
        self.is_ca
    }

    /// True for a CA certificate that was made to issue others: a self-signed client certificate
    /// often says `CA:TRUE` only because openssl writes it by default.
    pub(crate) fn is_issuing_ca(&self) -> bool {
        self.is_ca && (self.signs_certificates || self.subject_der != self.issuer_der)
    }

    /// True if its extended key usage, if any, includes server authentication.
    pub(crate) fn is_for_servers(&self) -> bool {
        self.is_for_servers
    }

    /// What logs and pages show of it.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    pub(crate) fn validity(&self) -> Validity {
        self.summary.validity
    }
}

impl Summary {
    /// Summarizes a certificate from an untrusted client; `None` if it cannot be parsed.
    pub fn of(der: &CertificateDer<'_>) -> Option<Self> {
        Some(summary(der, &decode(der).ok()?))
    }
}

/// Parses a certificate, also one with times before 1970, which the parser rejects.
fn decode(der: &[u8]) -> Result<CertificateInner<Raw>, x509_cert::der::Error> {
    CertificateInner::<Raw>::from_der(der).or_else(|error| match with_clamped_times(der) {
        Some(clamped) => CertificateInner::<Raw>::from_der(&clamped),
        None => Err(error),
    })
}

fn summary(der: &CertificateDer<'_>, parsed: &CertificateInner<Raw>) -> Summary {
    let tbs = parsed.tbs_certificate();
    // The leading zero of a positive integer is no part of the number.
    let serial = match tbs.serial_number().as_bytes() {
        [0, serial @ ..] if !serial.is_empty() => serial,
        serial => serial,
    };
    Summary {
        fingerprint: Fingerprint::of(der),
        key_fingerprint: Fingerprint::of(
            &tbs.subject_public_key_info().to_der().unwrap_or_default(),
        ),
        subject: printable(tbs.subject()),
        serial: serial.iter().map(|byte| format!("{byte:02x}")).collect(),
        validity: Validity {
            not_before: unix_time_of(tbs.validity().not_before),
            not_after: unix_time_of(tbs.validity().not_after),
        },
    }
}

/// The issuer's name (DER) of a certificate from an untrusted client.
pub(super) fn issuer(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    decode(der).ok()?.tbs_certificate().issuer().to_der().ok()
}

fn unix_time_of(time: Time) -> UnixTime {
    UnixTime::since_unix_epoch(time.to_unix_duration())
}

/// A name for a log or a page: without characters that move a cursor, end a line or change the
/// writing direction.
fn printable(name: &Name) -> String {
    const MAX_LENGTH: usize = 256;
    let whole = name.to_string();
    let mut shown = String::new();
    for (index, c) in whole.chars().enumerate() {
        if index == MAX_LENGTH {
            shown.push('…');
            break;
        }
        match c {
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => {
                shown.extend(c.escape_unicode());
            }
            c if c.is_control() => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

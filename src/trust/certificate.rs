//! One X.509 certificate as it was read at load, and what can be said of one that a stranger sent.

use std::fmt;
use std::sync::OnceLock;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, VerificationAlgorithm,
};
use rustls::SignatureScheme;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime, alg_id};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::asn1::UintRef;
use x509_cert::der::{Decode, Encode, ErrorKind, Reader, SliceReader};
use x509_cert::ext::pkix::BasicConstraints;
use x509_cert::name::Name;
use x509_cert::time::Time;

use super::pem::PemErrorKind;
use super::validity::Validity;

/// The SHA-256 of a certificate's DER. Shown as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(crate) fn of(der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        Self(bytes)
    }

    /// The 32 octets of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 64];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        f.write_str(std::str::from_utf8(&hex).unwrap_or_default())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A public key that signatures can be verified with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA, with the length of its modulus in bits.
    Rsa(usize),
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// ECDSA on P-521.
    P521,
    /// Ed25519.
    Ed25519,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "RSA {bits}"),
            Self::P256 => write!(f, "ECDSA P-256"),
            Self::P384 => write!(f, "ECDSA P-384"),
            Self::P521 => write!(f, "ECDSA P-521"),
            Self::Ed25519 => write!(f, "Ed25519"),
        }
    }
}

/// How nearly every client with an RSA key signs, in both versions of TLS.
const RSA_PSS: [(SignatureScheme, &dyn VerificationAlgorithm); 3] = [
    (SignatureScheme::RSA_PSS_SHA256, &RSA_PSS_2048_8192_SHA256),
    (SignatureScheme::RSA_PSS_SHA384, &RSA_PSS_2048_8192_SHA384),
    (SignatureScheme::RSA_PSS_SHA512, &RSA_PSS_2048_8192_SHA512),
];

/// A certificate that was read from a file, parsed whole, with a key that can be verified.
#[derive(Debug)]
pub struct Certificate {
    der: CertificateDer<'static>,
    spki: SubjectPublicKeyInfoDer<'static>,
    /// Where it is an RSA key, beside each of [`RSA_PSS`], once it has been used.
    rsa_pss_keys: [OnceLock<Option<ParsedPublicKey>>; RSA_PSS.len()],
    subject_der: Vec<u8>,
    issuer_der: Vec<u8>,
    key: KeyKind,
    is_ca: bool,
    summary: Summary,
}

/// What a person is told of a certificate.
#[derive(Clone, Debug)]
pub struct Summary {
    /// SHA-256 of the DER.
    pub fingerprint: Fingerprint,
    /// The subject in the form of RFC 4514, what does not print escaped, cut after 256 characters.
    pub subject: String,
    /// The serial number, lower-case hex.
    pub serial: String,
    /// SHA-256 of its public key (SubjectPublicKeyInfo, DER).
    pub key_fingerprint: Fingerprint,
    /// Its dates.
    pub validity: Validity,
}

impl Certificate {
    /// Parses a DER certificate, whole and strictly, and its public key.
    ///
    /// # Errors
    /// What is wrong with it. Its dates are not looked at.
    pub fn parse(der: CertificateDer<'static>) -> Result<Self, PemErrorKind> {
        let parsed =
            CertificateInner::<Raw>::from_der(&der).map_err(|error| match error.kind() {
                ErrorKind::TrailingData { .. } => PemErrorKind::TrailingBytes,
                _ => PemErrorKind::BadDer(error.to_string()),
            })?;
        let bad = |error: x509_cert::der::Error| PemErrorKind::BadDer(error.to_string());
        let tbs = parsed.tbs_certificate();
        let spki = tbs.subject_public_key_info();
        let spki_der = spki.to_der().map_err(bad)?;
        let algorithm = spki.algorithm.to_der().map_err(bad)?;
        let key = spki.subject_public_key.as_bytes().ok_or(PemErrorKind::UnverifiableKey)?;
        let key = key_kind(&algorithm, key, &spki_der)?;
        let is_ca = matches!(
            tbs.get_extension::<BasicConstraints>(),
            Ok(Some((_, BasicConstraints { ca: true, .. })))
        );
        Ok(Self {
            spki: SubjectPublicKeyInfoDer::from(spki_der),
            rsa_pss_keys: Default::default(),
            subject_der: tbs.subject().to_der().map_err(bad)?,
            issuer_der: tbs.issuer().to_der().map_err(bad)?,
            key,
            is_ca,
            summary: summary(&der, &parsed),
            der,
        })
    }

    /// The certificate itself.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    pub(crate) fn spki(&self) -> &SubjectPublicKeyInfoDer<'static> {
        &self.spki
    }

    /// Its key for this scheme, where that is one of RSASSA-PSS and it is an RSA key. It is parsed
    /// once, and what verifying with it takes is computed once: otherwise that is a tenth of each
    /// verification.
    pub(crate) fn rsa_pss_key(&self, scheme: SignatureScheme) -> Option<&ParsedPublicKey> {
        let KeyKind::Rsa(_) = self.key else { return None };
        let index = RSA_PSS.iter().position(|(other, _)| *other == scheme)?;
        let (key, (_, algorithm)) = (self.rsa_pss_keys.get(index)?, RSA_PSS.get(index)?);
        key.get_or_init(|| ParsedPublicKey::new(*algorithm, &self.spki).ok()).as_ref()
    }

    pub(crate) fn subject_der(&self) -> &[u8] {
        &self.subject_der
    }

    pub(crate) fn issuer_der(&self) -> &[u8] {
        &self.issuer_der
    }

    /// The kind of its public key.
    pub fn key(&self) -> KeyKind {
        self.key
    }

    pub(crate) fn is_ca(&self) -> bool {
        self.is_ca
    }

    /// What a person is told of it.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    pub(crate) fn validity(&self) -> Validity {
        self.summary.validity
    }
}

impl Summary {
    /// What can be said of a certificate that anybody may have made; `None` where it is not one.
    pub fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let parsed = CertificateInner::<Raw>::from_der(der).ok()?;
        Some(summary(der, &parsed))
    }
}

fn summary(der: &CertificateDer<'_>, parsed: &CertificateInner<Raw>) -> Summary {
    let tbs = parsed.tbs_certificate();
    // Without the octet that is there for the sign.
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

/// The issuer's name of a certificate that anybody may have made, DER.
pub(super) fn issuer(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    CertificateInner::<Raw>::from_der(der).ok()?.tbs_certificate().issuer().to_der().ok()
}

fn unix_time_of(time: Time) -> UnixTime {
    UnixTime::since_unix_epoch(time.to_unix_duration())
}

/// A name for a log or a page: no character that moves a cursor, ends a line or turns the
/// direction of writing.
fn printable(name: &Name) -> String {
    const LONGEST: usize = 256;
    let whole = name.to_string();
    let mut shown = String::new();
    for (index, c) in whole.chars().enumerate() {
        if index == LONGEST {
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

/// Finds the kind of a key by its whole AlgorithmIdentifier, as a signature's verification will,
/// and has the cryptographic library parse it (a point that is not on its curve fails here).
fn key_kind(algorithm: &[u8], key: &[u8], spki: &[u8]) -> Result<KeyKind, PemErrorKind> {
    // The constants leave out the outer SEQUENCE, whose header takes two octets at this length.
    let algorithm = algorithm.get(2..).unwrap_or_default();
    let (kind, verifier): (_, &'static dyn VerificationAlgorithm) =
        if algorithm == alg_id::RSA_ENCRYPTION.as_ref() {
            (KeyKind::Rsa(rsa_bits(key)?), &RSA_PKCS1_2048_8192_SHA256)
        } else if algorithm == alg_id::ECDSA_P256.as_ref() {
            (KeyKind::P256, &ECDSA_P256_SHA256_ASN1)
        } else if algorithm == alg_id::ECDSA_P384.as_ref() {
            (KeyKind::P384, &ECDSA_P384_SHA384_ASN1)
        } else if algorithm == alg_id::ECDSA_P521.as_ref() {
            (KeyKind::P521, &ECDSA_P521_SHA512_ASN1)
        } else if algorithm == alg_id::ED25519.as_ref() {
            (KeyKind::Ed25519, &ED25519)
        } else {
            return Err(PemErrorKind::UnverifiableKey);
        };
    match ParsedPublicKey::new(verifier, spki) {
        Ok(_) => Ok(kind),
        Err(_) => Err(PemErrorKind::UnverifiableKey),
    }
}

fn rsa_bits(key: &[u8]) -> Result<usize, PemErrorKind> {
    let modulus = |key| {
        SliceReader::new(key)?.sequence(|reader: &mut SliceReader<'_>| {
            let modulus = UintRef::decode(reader)?;
            UintRef::decode(reader)?;
            Ok::<_, x509_cert::der::Error>(modulus)
        })
    };
    let modulus = modulus(key).map_err(|_| PemErrorKind::UnverifiableKey)?;
    let leading = modulus.as_bytes().first().map_or(0, |byte| byte.leading_zeros() as usize);
    match modulus.as_bytes().len() * 8 - leading {
        bits @ ..2048 => Err(PemErrorKind::ShortKey(bits)),
        bits @ 2048..=8192 => Ok(bits),
        _ => Err(PemErrorKind::UnverifiableKey),
    }
}

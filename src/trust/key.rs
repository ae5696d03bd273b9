//! Public keys: which kinds can verify a TLS signature, and why the others cannot.

use std::fmt;
use std::sync::OnceLock;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, VerificationAlgorithm,
};
use rustls::SignatureScheme;
use rustls::pki_types::{SubjectPublicKeyInfoDer, alg_id};
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{self, Any, Decode, Encode, Reader, SliceReader, Tag, Tagged};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use super::pem::PemErrorKind;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_PSS_ONLY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// A public key that can verify signatures.
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

/// The schemes that nearly every client with an RSA key signs with, in both versions of TLS.
const RSA_PSS: [(SignatureScheme, &dyn VerificationAlgorithm); 3] = [
    (SignatureScheme::RSA_PSS_SHA256, &RSA_PSS_2048_8192_SHA256),
    (SignatureScheme::RSA_PSS_SHA384, &RSA_PSS_2048_8192_SHA384),
    (SignatureScheme::RSA_PSS_SHA512, &RSA_PSS_2048_8192_SHA512),
];

/// A certificate's public key.
#[derive(Debug)]
pub(super) struct PublicKey {
    pub(super) kind: KeyKind,
    pub(super) spki: SubjectPublicKeyInfoDer<'static>,
    /// An RSA key, parsed for each scheme of [`RSA_PSS`] when that is first used: parsing takes a
    /// tenth of a verification.
    rsa_pss: [OnceLock<Option<ParsedPublicKey>>; RSA_PSS.len()],
}

impl PublicKey {
    pub(super) fn parse(spki: &SubjectPublicKeyInfoOwned) -> Result<Self, PemErrorKind> {
        let unsupported = |error: der::Error| PemErrorKind::BadDer(error.to_string());
        let spki_der = spki.to_der().map_err(unsupported)?;
        let algorithm = spki.algorithm.to_der().map_err(unsupported)?;
        // The constants leave out the outer SEQUENCE, whose header takes two bytes at this length.
        let algorithm = algorithm.get(2..).unwrap_or_default();
        let (kind, verifier): (_, &'static dyn VerificationAlgorithm) =
            if algorithm == alg_id::RSA_ENCRYPTION.as_ref() {
                let key = spki.subject_public_key.as_bytes();
                let rsa = RsaKey::parse(key.unwrap_or_default()).ok_or(PemErrorKind::OddRsaKey)?;
                let bits = rsa.bits;
                if bits < 2048 {
                    return Err(PemErrorKind::ShortKey(bits));
                }
                (KeyKind::Rsa(bits), &RSA_PKCS1_2048_8192_SHA256)
            } else if algorithm == alg_id::ECDSA_P256.as_ref() {
                (KeyKind::P256, &ECDSA_P256_SHA256_ASN1)
            } else if algorithm == alg_id::ECDSA_P384.as_ref() {
                (KeyKind::P384, &ECDSA_P384_SHA384_ASN1)
            } else if algorithm == alg_id::ECDSA_P521.as_ref() {
                (KeyKind::P521, &ECDSA_P521_SHA512_ASN1)
            } else if algorithm == alg_id::ED25519.as_ref() {
                (KeyKind::Ed25519, &ED25519)
            } else {
                return Err(unsupported_algorithm(&spki.algorithm));
            };
        // This finds a point that is not on its curve, and an RSA key of more than 8192 bits.
        match (ParsedPublicKey::new(verifier, &spki_der), kind) {
            (Ok(_), _) => Ok(Self {
                kind,
                spki: SubjectPublicKeyInfoDer::from(spki_der),
                rsa_pss: Default::default(),
            }),
            (Err(_), KeyKind::Rsa(_)) => Err(PemErrorKind::OddRsaKey),
            (Err(_), _) => Err(PemErrorKind::DamagedKey),
        }
    }

    /// The parsed key for a scheme of RSASSA-PSS, if it is an RSA key.
    pub(super) fn rsa_pss(&self, scheme: SignatureScheme) -> Option<&ParsedPublicKey> {
        let KeyKind::Rsa(_) = self.kind else { return None };
        let index = RSA_PSS.iter().position(|(other, _)| *other == scheme)?;
        let (key, (_, algorithm)) = (self.rsa_pss.get(index)?, RSA_PSS.get(index)?);
        key.get_or_init(|| ParsedPublicKey::new(*algorithm, &self.spki).ok()).as_ref()
    }
}

/// Why no TLS signature can be made or verified with a key of this algorithm.
fn unsupported_algorithm(algorithm: &AlgorithmIdentifierOwned) -> PemErrorKind {
    match (algorithm.oid, &algorithm.parameters) {
        (RSA_PSS_ONLY, _) => PemErrorKind::PssKey,
        (RSA, _) => PemErrorKind::OddRsaKey,
        (EC, Some(parameters)) => unsupported_curve(parameters),
        (ED25519_KEY, _) => PemErrorKind::DamagedKey,
        (oid, _) => PemErrorKind::UnsupportedKey(name(oid, "algorithm")),
    }
}

fn unsupported_curve(parameters: &Any) -> PemErrorKind {
    if parameters.tag() == Tag::Sequence {
        return PemErrorKind::ExplicitCurve;
    }
    match parameters.decode_as::<ObjectIdentifier>() {
        Ok(curve) if SUPPORTED_CURVES.contains(&curve) => PemErrorKind::DamagedKey,
        Ok(curve) => PemErrorKind::UnsupportedKey(name(curve, "elliptic curve")),
        Err(_) => PemErrorKind::UnsupportedKey("elliptic curve".to_owned()),
    }
}

const ED25519_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const SUPPORTED_CURVES: [ObjectIdentifier; 3] = [
    ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"),
    ObjectIdentifier::new_unwrap("1.3.132.0.34"),
    ObjectIdentifier::new_unwrap("1.3.132.0.35"),
];

/// Names of algorithms and curves, as openssl prints them.
const NAMES: [(&str, &str); 22] = [
    ("1.2.840.10040.4.1", "DSA"),
    ("1.2.840.10045.3.1.1", "elliptic curve P-192"),
    ("1.2.840.113549.1.3.1", "Diffie-Hellman"),
    ("1.2.156.10197.1.301", "elliptic curve SM2"),
    ("1.3.101.110", "X25519"),
    ("1.3.101.111", "X448"),
    ("1.3.101.113", "Ed448"),
    ("1.3.132.0.10", "elliptic curve secp256k1"),
    ("1.3.132.0.33", "elliptic curve P-224"),
    ("1.3.36.3.3.2.8.1.1.1", "elliptic curve brainpoolP160r1"),
    ("1.3.36.3.3.2.8.1.1.3", "elliptic curve brainpoolP192r1"),
    ("1.3.36.3.3.2.8.1.1.5", "elliptic curve brainpoolP224r1"),
    ("1.3.36.3.3.2.8.1.1.7", "elliptic curve brainpoolP256r1"),
    ("1.3.36.3.3.2.8.1.1.8", "elliptic curve brainpoolP256t1"),
    ("1.3.36.3.3.2.8.1.1.9", "elliptic curve brainpoolP320r1"),
    ("1.3.36.3.3.2.8.1.1.11", "elliptic curve brainpoolP384r1"),
    ("1.3.36.3.3.2.8.1.1.12", "elliptic curve brainpoolP384t1"),
    ("1.3.36.3.3.2.8.1.1.13", "elliptic curve brainpoolP512r1"),
    ("1.3.36.3.3.2.8.1.1.14", "elliptic curve brainpoolP512t1"),
    ("2.16.840.1.101.3.4.3.17", "ML-DSA-44"),
    ("2.16.840.1.101.3.4.3.18", "ML-DSA-65"),
    ("2.16.840.1.101.3.4.3.19", "ML-DSA-87"),
];

/// The name of an algorithm or curve, or its number behind what it is.
fn name(oid: ObjectIdentifier, what: &str) -> String {
    let number = oid.to_string();
    let named = NAMES.iter().find(|(known, _)| *known == number);
    named.map_or_else(|| format!("{what} {number}"), |(_, name)| (*name).to_owned())
}

/// An RSA key in PKCS#1, public or private.
struct RsaKey {
    /// The length of its modulus.
    bits: usize,
    is_multi_prime: bool,
}

impl RsaKey {
    fn parse(key: &[u8]) -> Option<Self> {
        let parsed = SliceReader::new(key).ok()?.sequence(|reader: &mut SliceReader<'_>| {
            let first = UintRef::decode(reader)?;
            let second = UintRef::decode(reader)?;
            // A public key is modulus and exponent. A private one begins with a version, which is 1
            // if there are more than two primes.
            let is_private = !reader.is_finished();
            reader.read_slice(reader.remaining_len())?;
            Ok::<_, der::Error>((first, second, is_private))
        });
        let (first, second, is_private) = parsed.ok()?;
        let modulus = if is_private { second.as_bytes() } else { first.as_bytes() };
        let leading = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
        Some(Self {
            bits: (modulus.len() * 8).checked_sub(leading)?,
            is_multi_prime: is_private && first.as_bytes() == [1],
        })
    }

    /// Why it cannot sign, given that the TLS library rejects it.
    fn error(&self) -> PemErrorKind {
        match self.bits {
            _ if self.is_multi_prime => PemErrorKind::MultiPrimeKey,
            bits if bits < 2048 => PemErrorKind::ShortKey(bits),
            _ => PemErrorKind::OddRsaKey,
        }
    }
}

/// Why a private key in PKCS#8, PKCS#1 or SEC1 cannot sign.
pub(crate) fn unsupported_private_key(der: &[u8]) -> PemErrorKind {
    if let Some(rsa) = RsaKey::parse(der) {
        return rsa.error();
    }
    let pkcs8 = SliceReader::new(der).ok().and_then(|mut reader| {
        let found = reader.sequence(|reader: &mut SliceReader<'_>| {
            UintRef::decode(reader)?;
            let algorithm = AlgorithmIdentifierOwned::decode(reader)?;
            let key = Any::decode(reader)?;
            reader.read_slice(reader.remaining_len())?;
            Ok::<_, der::Error>((algorithm, key))
        });
        found.ok()
    });
    match pkcs8 {
        Some((algorithm, key)) if algorithm.oid == RSA => {
            RsaKey::parse(key.value()).map_or(PemErrorKind::DamagedKey, |rsa| rsa.error())
        }
        Some((algorithm, _)) => unsupported_algorithm(&algorithm),
        None => sec1_curve(der).map_or(PemErrorKind::DamagedKey, |curve| unsupported_curve(&curve)),
    }
}

/// The curve of a SEC1 key: the content of its context tag 0.
fn sec1_curve(der: &[u8]) -> Option<Any> {
    let mut reader = SliceReader::new(der).ok()?;
    let parameters = reader.sequence(|reader: &mut SliceReader<'_>| {
        UintRef::decode(reader)?;
        Any::decode(reader)?;
        let parameters = Any::decode(reader)?;
        reader.read_slice(reader.remaining_len())?;
        Ok::<_, der::Error>(parameters)
    });
    Any::from_der(parameters.ok()?.value()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PKCS#1 key of these integers.
    fn pkcs1(integers: &[&[u8]]) -> Vec<u8> {
        let element = |tag, content: &[u8]| {
            let [.., high, low] = content.len().to_be_bytes();
            [&[tag, 0x82, high, low], content].concat()
        };
        let content: Vec<u8> = integers.iter().flat_map(|integer| element(2, integer)).collect();
        element(0x30, &content)
    }

    #[test]
    fn length_of_an_rsa_key_is_that_of_its_modulus_to_the_bit() {
        for (first, bits) in [(0x01, 2049), (0x02, 2050), (0x7f, 2055)] {
            let mut modulus = [0xff; 257];
            modulus[0] = first;
            let exponent = [0x11; 257];
            let key = RsaKey::parse(&pkcs1(&[&modulus, &exponent])).unwrap();
            assert_eq!((key.bits, key.is_multi_prime), (bits, false));
        }
        assert!(RsaKey::parse(b"\x30\x00").is_none());
    }
}

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
                let bits = rsa_bits(key.unwrap_or_default()).ok_or(PemErrorKind::OddRsaKey)?;
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
            (Err(_), _) => Err(PemErrorKind::UnsupportedKey("an invalid one".to_owned())),
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
        (EC, Some(parameters)) if parameters.tag() == Tag::Sequence => PemErrorKind::ExplicitCurve,
        (EC, Some(parameters)) => {
            let curve = parameters.decode_as::<ObjectIdentifier>();
            PemErrorKind::UnsupportedKey(curve.map_or_else(
                |_| "elliptic curve".to_owned(),
                |curve| format!("elliptic curve {curve}"),
            ))
        }
        (oid, _) => PemErrorKind::UnsupportedKey(format!("algorithm {oid}")),
    }
}

/// The length of the modulus of an RSA key in PKCS#1, public or private (the latter begins with a
/// version).
fn rsa_bits(key: &[u8]) -> Option<usize> {
    let modulus = SliceReader::new(key).ok()?.sequence(|reader: &mut SliceReader<'_>| {
        let mut modulus = UintRef::decode(reader)?;
        if modulus.as_bytes() == [0] {
            modulus = UintRef::decode(reader)?;
        }
        let _exponent = UintRef::decode(reader)?;
        reader.read_slice(reader.remaining_len())?;
        Ok::<_, der::Error>(modulus)
    });
    let modulus = modulus.ok()?;
    let leading = modulus.as_bytes().first().map_or(0, |byte| byte.leading_zeros() as usize);
    (modulus.as_bytes().len() * 8).checked_sub(leading)
}

/// Why a private key in PKCS#8, PKCS#1 or SEC1 cannot sign; `None` if it is not known.
pub(crate) fn unsupported_private_key(der: &[u8]) -> Option<PemErrorKind> {
    let short = |bits| (bits < 2048).then_some(PemErrorKind::ShortKey(bits));
    if let Some(bits) = rsa_bits(der) {
        return short(bits).or(Some(PemErrorKind::OddRsaKey));
    }
    let pkcs8 = SliceReader::new(der).ok()?.sequence(|reader: &mut SliceReader<'_>| {
        UintRef::decode(reader)?;
        let algorithm = AlgorithmIdentifierOwned::decode(reader)?;
        let key = Any::decode(reader)?;
        reader.read_slice(reader.remaining_len())?;
        Ok::<_, der::Error>((algorithm, key))
    });
    let Ok((algorithm, key)) = pkcs8 else {
        return sec1_curve_is_explicit(der).then_some(PemErrorKind::ExplicitCurve);
    };
    if algorithm.oid == RSA {
        let bits = rsa_bits(key.value());
        return bits.and_then(short).or(Some(PemErrorKind::OddRsaKey));
    }
    Some(unsupported_algorithm(&algorithm))
}

/// True for a SEC1 key whose curve (context tag 0) is spelled out instead of named.
fn sec1_curve_is_explicit(der: &[u8]) -> bool {
    let parameters = SliceReader::new(der).ok().and_then(|mut reader| {
        let found = reader.sequence(|reader: &mut SliceReader<'_>| {
            UintRef::decode(reader)?;
            Any::decode(reader)?;
            let parameters = Any::decode(reader)?;
            reader.read_slice(reader.remaining_len())?;
            Ok::<_, der::Error>(parameters)
        });
        found.ok()
    });
    // The value of the explicit tag begins with the tag of what is in it.
    parameters.is_some_and(|parameters| parameters.value().first() == Some(&0x30))
}

//! The trust store as rustls asks it.

use std::cell::Cell;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    verify_tls12_signature, verify_tls13_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::RawPublicKeyEntity;

use super::certificate::{Certificate, Fingerprint, Summary};
use super::reason::{Reason, VerifyError};
use super::store::TrustStore;

/// What a refused client presented.
#[derive(Clone, Debug)]
pub(crate) struct Presented {
    pub(crate) fingerprint: Fingerprint,
    /// `None` where it was not a certificate.
    pub(crate) summary: Option<Summary>,
}

impl Presented {
    pub(crate) fn new(der: &CertificateDer<'_>) -> Self {
        Self { fingerprint: Fingerprint::of(der), summary: Summary::of(der) }
    }
}

thread_local! {
    /// Why the handshake that this thread is polling refused its client, and what was presented.
    /// A failed handshake leaves nothing but an error that names neither.
    static REFUSED: Cell<Option<(Reason, Presented)>> = const { Cell::new(None) };
}

/// Takes what the verifier refused during the poll of a handshake that has just returned.
pub(crate) fn take_rejection() -> Option<(Reason, Presented)> {
    REFUSED.take()
}

/// Lets in whom the trust store lets in.
#[derive(Debug)]
pub(crate) struct PinnedClientVerifier {
    store: Arc<TrustStore>,
}

impl PinnedClientVerifier {
    pub(crate) fn new(store: Arc<TrustStore>) -> Self {
        Self { store }
    }
}

fn refuse(refusal: VerifyError, der: &CertificateDer<'_>) -> Error {
    REFUSED.set(Some((refusal.reason, Presented::new(der))));
    Error::InvalidCertificate(refusal.error)
}

impl ClientCertVerifier for PinnedClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.store.hints()
    }

    /// Runs before the client has proved that it holds the key.
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.store.admit(end_entity, intermediates, now) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(refusal) => Err(refuse(refusal, end_entity)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.store.pin(cert) {
            Some(pin) => self
                .verify_parsed(message, pin.certificate(), dss)
                .unwrap_or_else(|| self.verify_tls12_pin(message, pin.certificate(), dss)),
            None => verify_tls12_signature(message, cert, dss, self.store.algorithms()),
        }
        .inspect_err(|_| note_bad_signature(cert))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = self.store.algorithms();
        match self.store.pin(cert) {
            Some(pin) => self.verify_parsed(message, pin.certificate(), dss).unwrap_or_else(|| {
                let spki = pin.certificate().spki();
                verify_tls13_signature_with_raw_key(message, spki, dss, algorithms)
            }),
            None => verify_tls13_signature(message, cert, dss, algorithms),
        }
        .inspect_err(|_| note_bad_signature(cert))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.store.algorithms().supported_schemes()
    }
}

impl PinnedClientVerifier {
    /// Verifies a signature with a key that was parsed before. `None` where there is none for it.
    fn verify_parsed(
        &self,
        message: &[u8],
        pin: &Certificate,
        dss: &DigitallySignedStruct,
    ) -> Option<Result<HandshakeSignatureValid, Error>> {
        let mut offered = self.store.algorithms().mapping.iter();
        offered.find(|(scheme, _)| *scheme == dss.scheme)?;
        let verified = pin.rsa_pss_key(dss.scheme)?.verify_sig(message, dss.signature());
        let bad = |_| Error::InvalidCertificate(CertificateError::BadSignature);
        Some(verified.map(|()| HandshakeSignatureValid::assertion()).map_err(bad))
    }

    /// rustls verifies a TLS 1.2 signature through webpki's parser, which refuses certificates
    /// that are pinned for what they are (v1, unknown critical extensions). This is the same with
    /// the key alone. In TLS 1.2 a scheme does not fix the curve (RFC 8446, 4.2.3).
    fn verify_tls12_pin(
        &self,
        message: &[u8],
        pin: &Certificate,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let bad = Error::InvalidCertificate(CertificateError::BadSignature);
        let mapping = self.store.algorithms().mapping;
        let Some((_, algorithms)) = mapping.iter().find(|(scheme, _)| *scheme == dss.scheme) else {
            return Err(bad);
        };
        let Ok(key) = RawPublicKeyEntity::try_from(pin.spki()) else {
            return Err(bad);
        };
        let valid = algorithms
            .iter()
            .any(|algorithm| key.verify_signature(*algorithm, message, dss.signature()).is_ok());
        if valid { Ok(HandshakeSignatureValid::assertion()) } else { Err(bad) }
    }
}

fn note_bad_signature(cert: &CertificateDer<'_>) {
    REFUSED.set(Some((Reason::BadSignature, Presented::new(cert))));
}

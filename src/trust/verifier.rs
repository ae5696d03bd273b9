//! The trust store behind the interface of rustls.

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

use super::certificate::Certificate;
use super::presented::PresentedCertificate;
use super::reason::{Reason, VerifyError};
use super::store::TrustStore;

thread_local! {
    /// Why the handshake that this thread polls rejected its client, and what was presented. The
    /// error of a failed handshake names neither.
    static REJECTION: Cell<Option<TlsRejection>> = const { Cell::new(None) };
}

/// Why the verifier rejected a client.
#[derive(Debug)]
pub(crate) struct TlsRejection {
    pub(crate) reason: Reason,
    pub(crate) presented: PresentedCertificate,
    /// The rule that a chain violates.
    pub(crate) detail: Option<String>,
}

/// Takes what the verifier rejected during the poll of a handshake that has just returned.
pub(crate) fn take_rejection() -> Option<TlsRejection> {
    REJECTION.take()
}

/// A rustls [`ClientCertVerifier`] that accepts the clients of a [`TrustStore`].
///
/// A client certificate is mandatory. A pinned certificate is accepted by its bytes, and its
/// signature is checked with the key that was parsed with the store.
///
/// # Removal
///
/// The verifier alone does not reject a client whose certificate was removed: rustls does not call
/// it when a session is resumed, and connections outlive it. So
///
/// - look the client up with [`TrustStore::identify`] in the newest store after each handshake and
///   before each request, as the example does, and
/// - make a new `ServerConfig` by its builder for each new store, or turn resumption off:
///   `config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {})`,
///   `config.send_tls13_tickets = 0`, and no ticketer.
///
/// [`Config`](crate::Config) does all of this.
///
/// ```
/// use std::sync::Arc;
/// use portcullis::{PinnedClientVerifier, Reason, TrustStore};
/// use rustls::{ServerConfig, crypto::aws_lc_rs::default_provider};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let pem = include_bytes!("../../certs-example/client-1.pem");
/// let store = TrustStore::builder().pin_pem("client-1.pem", pem).map_err(|all| all[0].clone())?;
/// let store = Arc::new(store.build());
/// let verifier = Arc::new(PinnedClientVerifier::new(Arc::clone(&store)));
/// let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
///     .with_safe_default_protocol_versions()?
///     .with_client_cert_verifier(verifier);
/// // … builder.with_single_cert(chain, key)?
/// assert_eq!(store.identify(b"another certificate").err(), Some(Reason::UnknownCertificate));
/// # let _ = builder;
/// # Ok(())
/// # }
/// ```
///
/// `examples/accept_loop.rs` serves with it, removes a certificate, and shows that a resumed
/// session and a live connection are rejected.
#[derive(Debug)]
pub struct PinnedClientVerifier {
    store: Arc<TrustStore>,
}

impl PinnedClientVerifier {
    /// Accepts the clients of this store.
    pub fn new(store: Arc<TrustStore>) -> Self {
        Self { store }
    }
}

fn reject(verify_error: VerifyError, der: &CertificateDer<'_>) -> Error {
    let VerifyError { reason, error, detail } = verify_error;
    let presented = PresentedCertificate::new(der);
    REJECTION.set(Some(TlsRejection { reason, presented, detail }));
    Error::InvalidCertificate(error)
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
            Err(error) => Err(reject(error, end_entity)),
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
        .inspect_err(|_| record_bad_signature(cert))
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
        .inspect_err(|_| record_bad_signature(cert))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.store.algorithms().supported_schemes()
    }
}

impl PinnedClientVerifier {
    /// Verifies a signature with the parsed key; `None` if there is none for its scheme.
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

    /// Verifies a TLS 1.2 signature with the key alone. rustls would go through webpki's parser,
    /// which rejects some certificates that may be pinned (v1, unknown critical extensions). In
    /// TLS 1.2 a scheme does not fix the curve (RFC 8446, 4.2.3).
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

fn record_bad_signature(cert: &CertificateDer<'_>) {
    let presented = PresentedCertificate::new(cert);
    REJECTION.set(Some(TlsRejection { reason: Reason::BadSignature, presented, detail: None }));
}

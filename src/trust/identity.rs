//! The identity of a client that has proved it.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use http::HeaderValue;
use rustls::pki_types::CertificateDer;

use super::certificate::Certificate;
use super::fingerprint::Fingerprint;
use super::usage::UsageCounters;
use super::validity::{Validity, system_time};

/// A client that has proved that it holds the key of a trusted certificate.
///
/// The server puts one into the extensions of every request, and
/// [`TrustStore::identify`](crate::TrustStore::identify) returns one. There is no other way to get
/// one, so a function that takes a `ClientIdentity` serves verified clients only. (Tests of
/// applications make theirs with `ClientIdentity::for_test`, behind the feature `test-util`.)
/// Cloning is cheap.
#[derive(Clone)]
pub struct ClientIdentity(Arc<Inner>);

struct Inner {
    certificate: Arc<Certificate>,
    validity: Validity,
    origin: Origin,
    file: Arc<Path>,
    /// The counters of its own certificate, or of its trust anchor's.
    counts: Arc<UsageCounters>,
    /// The values of the identity headers, made when a request first needs them.
    as_headers: OnceLock<[HeaderValue; 2]>,
}

/// Why a client was accepted.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// Its certificate is pinned.
    Pin,
    /// Its certificate was issued under a trust anchor; the intermediates are kept as received.
    Chain { anchor: Fingerprint, intermediates: Arc<[CertificateDer<'static>]> },
}

impl ClientIdentity {
    pub(super) fn new(
        certificate: Arc<Certificate>,
        validity: Validity,
        origin: Origin,
        file: Arc<Path>,
        counts: Arc<UsageCounters>,
    ) -> Self {
        let as_headers = OnceLock::new();
        Self(Arc::new(Inner { certificate, validity, origin, file, counts, as_headers }))
    }

    /// An identity for the tests of an application, as if this certificate (DER) had been pinned
    /// by this file and presented.
    ///
    /// # Errors
    /// The certificate cannot be parsed.
    #[cfg(any(test, feature = "test-util"))]
    pub fn for_test(
        der: impl Into<Vec<u8>>,
        file: impl AsRef<Path>,
    ) -> Result<Self, super::pem::PemErrorKind> {
        let certificate = Arc::new(Certificate::parse(CertificateDer::from(der.into()))?);
        let validity = certificate.validity();
        let file = Arc::from(file.as_ref());
        Ok(Self::new(certificate, validity, Origin::Pin, file, Arc::default()))
    }

    /// SHA-256 of the certificate's DER.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.certificate.summary().fingerprint
    }

    /// The certificate's subject in the form of RFC 4514, with unprintable characters escaped. Every
    /// certificate that API Gateway makes has the same subject: it does not identify the client.
    pub fn subject(&self) -> &str {
        &self.0.certificate.summary().subject
    }

    /// The certificate's serial number, lower-case hex.
    pub fn serial(&self) -> &str {
        &self.0.certificate.summary().serial
    }

    /// The beginning of its validity period. For a chain, the latest beginning.
    pub fn not_before(&self) -> SystemTime {
        system_time(self.0.validity.not_before)
    }

    /// The end of its validity period. For a chain, the earliest end.
    pub fn not_after(&self) -> SystemTime {
        system_time(self.0.validity.not_after)
    }

    /// The certificate that the client presented, DER.
    pub fn der(&self) -> &[u8] {
        self.0.certificate.der()
    }

    /// The file that pinned it, or that holds the trust anchor of its chain.
    pub fn file(&self) -> &Path {
        &self.0.file
    }

    /// The fingerprint of the trust anchor of its chain; `None` for a pinned certificate.
    pub fn anchor(&self) -> Option<Fingerprint> {
        match &self.0.origin {
            Origin::Pin => None,
            Origin::Chain { anchor, .. } => Some(*anchor),
        }
    }

    /// The values of the identity headers. They are the same for all requests of a connection:
    /// `make` is called once.
    pub(crate) fn as_headers(
        &self,
        make: impl FnOnce(&Self) -> [HeaderValue; 2],
    ) -> &[HeaderValue; 2] {
        self.0.as_headers.get_or_init(|| make(self))
    }

    pub(crate) fn certificate(&self) -> &Arc<Certificate> {
        &self.0.certificate
    }

    pub(crate) fn counts(&self) -> &UsageCounters {
        &self.0.counts
    }

    pub(crate) fn validity(&self) -> Validity {
        self.0.validity
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.0.origin
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity")
            .field("fingerprint", &self.fingerprint())
            .field("subject", &self.subject())
            .field("file", &self.file())
            .finish_non_exhaustive()
    }
}

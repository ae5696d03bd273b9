//! A certificate as a client presented it, trusted or not.

use rustls::pki_types::CertificateDer;

use super::certificate::Summary;
use super::fingerprint::Fingerprint;

/// The certificate that a rejected client presented.
#[derive(Clone, Debug)]
pub(crate) struct PresentedCertificate {
    pub(crate) fingerprint: Fingerprint,
    /// `None` if it cannot be parsed.
    pub(crate) summary: Option<Summary>,
}

impl PresentedCertificate {
    pub(crate) fn new(der: &CertificateDer<'_>) -> Self {
        Self { fingerprint: Fingerprint::of(der), summary: Summary::of(der) }
    }
}

//! Chains to a trust anchor, verified by webpki.

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::certificate::{Certificate, Summary, issuer};
use super::loaded::LoadedCertificate;
use super::reason::VerifyError;
use super::validity::{Validity, ValidityState};

/// True if a chain can be verified up to this certificate.
pub(crate) fn is_anchor(certificate: &Certificate) -> bool {
    webpki::anchor_from_trusted_cert(certificate.der()).is_ok()
}

/// The trust anchors of one store.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    anchors: Vec<TrustAnchor<'static>>,
    /// For each of `anchors`, the certificate that it was made from.
    certificates: Vec<LoadedCertificate>,
}

/// A verified chain.
pub(super) struct VerifiedChain<'a> {
    pub(super) anchor: &'a LoadedCertificate,
    pub(super) end_entity: Certificate,
    /// The period in which all of its certificates are valid, the anchor included.
    pub(super) validity: Validity,
}

impl Anchors {
    /// Adds an anchor, unless webpki cannot use it or it is there already: `false`.
    pub(super) fn add(&mut self, loaded: &LoadedCertificate) -> bool {
        let der = loaded.certificate.der();
        let Ok(anchor) = webpki::anchor_from_trusted_cert(der) else { return false };
        self.anchors.push(anchor.to_owned());
        self.certificates.push(loaded.clone());
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// Verifies a chain: signatures, purposes, constraints and validity periods.
    pub(super) fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        algorithms: &WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> Result<VerifiedChain<'_>, VerifyError> {
        // webpki would accept an anchor's own certificate as an end entity: it needs no issuer.
        if self.certificates.iter().any(|anchor| anchor.certificate.der() == end_entity) {
            return Err(VerifyError::UNKNOWN);
        }
        // webpki judges a certificate before it searches for its issuer. A certificate of an
        // unknown issuer is unknown, whatever its validity period and purpose are.
        let rejection = |error| match self.is_issuer_of_any(end_entity, intermediates) {
            true => VerifyError::of_chain(&error),
            false => VerifyError::UNKNOWN,
        };
        let leaf = EndEntityCert::try_from(end_entity).map_err(rejection)?;
        // webpki ignores an anchor's own validity period, and accepts a certificate in the second
        // in which it ends.
        let is_valid = |path: &VerifiedPath<'_>| {
            let validity = self.validity_of(end_entity, path).ok_or(webpki::Error::BadDer)?;
            let Validity { not_before, not_after } = validity;
            match validity.at(now) {
                ValidityState::Valid(_) => Ok(()),
                ValidityState::Expired(_) => {
                    Err(webpki::Error::CertExpired { time: now, not_after })
                }
                ValidityState::NotYetValid(_) => {
                    Err(webpki::Error::CertNotValidYet { time: now, not_before })
                }
            }
        };
        let path = leaf
            .verify_for_usage(
                algorithms.all,
                &self.anchors,
                intermediates,
                now,
                KeyUsage::client_auth(),
                None,
                Some(&is_valid),
            )
            .map_err(rejection)?;
        Ok(VerifiedChain {
            anchor: self.anchor_of(&path).ok_or(VerifyError::UNKNOWN)?,
            end_entity: Certificate::parse(end_entity.clone().into_owned())
                .map_err(|_| VerifyError::of_chain(&webpki::Error::BadDer))?,
            validity: self.validity_of(end_entity, &path).ok_or(VerifyError::UNKNOWN)?,
        })
    }

    /// True if the issuer of any of these is the subject of an anchor.
    fn is_issuer_of_any(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> bool {
        std::iter::once(end_entity).chain(intermediates).any(|der| {
            issuer(der).is_some_and(|issuer| {
                let mut anchors = self.certificates.iter();
                anchors.any(|anchor| anchor.certificate.subject_der() == issuer)
            })
        })
    }

    fn validity_of(
        &self,
        end_entity: &CertificateDer<'_>,
        path: &VerifiedPath<'_>,
    ) -> Option<Validity> {
        let mut validity = self.anchor_of(path)?.certificate.validity();
        let mut narrow = |der: &CertificateDer<'_>| {
            validity = validity.and(Summary::of(der)?.validity);
            Some(())
        };
        narrow(end_entity)?;
        path.intermediate_certificates().try_for_each(|certificate| narrow(&certificate.der()))?;
        Some(validity)
    }

    fn anchor_of(&self, path: &VerifiedPath<'_>) -> Option<&LoadedCertificate> {
        let index = self.anchors.iter().position(|anchor| std::ptr::eq(anchor, path.anchor()))?;
        self.certificates.get(index)
    }
}

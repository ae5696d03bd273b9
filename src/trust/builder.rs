//! A trust store from bytes, for applications with an accept loop of their own.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;

use super::certificate::Certificate;
use super::chain::is_anchor;
use super::loaded::{LoadedCertificate, Role};
use super::pem::{self, PemError, PemErrorKind};
use super::store::TrustStore;

/// Collects the certificates of a [`TrustStore`].
#[derive(Debug, Default)]
#[must_use = "it makes a store once it is built"]
pub struct TrustStoreBuilder {
    loaded: Vec<LoadedCertificate>,
}

impl TrustStore {
    /// Begins an empty store.
    pub fn builder() -> TrustStoreBuilder {
        TrustStoreBuilder::default()
    }
}

impl TrustStoreBuilder {
    /// Pins every certificate of a PEM text. `name` appears as [`ClientIdentity::file`] and in
    /// messages.
    ///
    /// [`ClientIdentity::file`]: crate::ClientIdentity::file
    ///
    /// # Errors
    /// All errors in the text. Nothing of it is pinned then.
    pub fn pin_pem(self, name: impl AsRef<Path>, pem: &[u8]) -> Result<Self, Vec<PemError>> {
        self.add_pem(Role::Pin, name.as_ref(), pem)
    }

    /// Pins a certificate in DER.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub fn pin_der(
        mut self,
        name: impl AsRef<Path>,
        der: impl Into<Vec<u8>>,
    ) -> Result<Self, PemError> {
        let file = Arc::from(name.as_ref());
        self.loaded.push(load(Role::Pin, file, CertificateDer::from(der.into()))?);
        Ok(self)
    }

    /// Trusts the chains to every CA certificate of a PEM text.
    ///
    /// # Errors
    /// All errors in the text. Nothing of it is trusted then.
    pub fn anchor_pem(self, name: impl AsRef<Path>, pem: &[u8]) -> Result<Self, Vec<PemError>> {
        self.add_pem(Role::Anchor, name.as_ref(), pem)
    }

    /// Builds the store, with rustls' aws-lc-rs algorithms.
    pub fn build(self) -> TrustStore {
        TrustStore::new(None, self.loaded, default_provider().signature_verification_algorithms)
    }

    fn add_pem(mut self, role: Role, name: &Path, pem: &[u8]) -> Result<Self, Vec<PemError>> {
        let file: Arc<Path> = Arc::from(name);
        let (blocks, mut errors) = pem::certificates(pem);
        for (line, der) in blocks {
            match load(role, Arc::clone(&file), der) {
                Ok(loaded) => self.loaded.push(loaded),
                Err(error) => errors.push(PemError::at(line, error.kind)),
            }
        }
        if errors.is_empty() { Ok(self) } else { Err(errors) }
    }
}

fn load(
    role: Role,
    file: Arc<Path>,
    der: CertificateDer<'static>,
) -> Result<LoadedCertificate, PemError> {
    let certificate = parse_for(role, der).map_err(PemError::whole)?;
    Ok(LoadedCertificate { role, certificate: Arc::new(certificate), file })
}

/// Parses a certificate and checks that it can be used in its role.
pub(crate) fn parse_for(
    role: Role,
    der: CertificateDer<'static>,
) -> Result<Certificate, PemErrorKind> {
    let certificate = Certificate::parse(der)?;
    match role {
        Role::Anchor if !certificate.is_ca() => Err(PemErrorKind::NotACa),
        Role::Anchor if !is_anchor(&certificate) => Err(PemErrorKind::UnusableCa),
        Role::Pin | Role::Anchor => Ok(certificate),
    }
}

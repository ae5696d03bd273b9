//! A certificate of the trust store: with its role, and the file that it was read from.

use std::path::Path;
use std::sync::Arc;

use super::certificate::Certificate;
use super::fingerprint::Fingerprint;

/// What a trusted certificate is trusted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// A client presents it itself.
    Pin,
    /// It has issued, directly or through intermediates, what a client presents.
    Anchor,
}

impl Role {
    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Anchor => "anchor",
        }
    }
}

/// A certificate with its role and the file that it was read from.
#[derive(Clone, Debug)]
pub(crate) struct LoadedCertificate {
    pub(crate) role: Role,
    pub(crate) certificate: Arc<Certificate>,
    pub(crate) file: Arc<Path>,
}

impl LoadedCertificate {
    /// Identifies it: a store holds each certificate once in each role.
    pub(crate) fn key(&self) -> (Role, Fingerprint) {
        (self.role, self.certificate.summary().fingerprint)
    }
}

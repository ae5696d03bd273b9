//! The trusted certificate that is nearest to a rejected one. It shows what went wrong in a
//! rotation.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use super::fingerprint::Fingerprint;
use super::loaded::LoadedCertificate;
use super::presented::PresentedCertificate;
use super::validity::{rfc3339, unix_time};

/// How a rejected certificate is related to one that is, or was, trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Relation {
    /// It is this one, rejected for its validity period, its key or its role.
    Same,
    /// It was this one until it was removed.
    Removed,
    /// Another certificate for the same key.
    SameKey,
    /// Another certificate with the same serial number.
    SameSerial,
}

impl Relation {
    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Removed => "removed",
            Self::SameKey => "same_key",
            Self::SameSerial => "same_serial",
        }
    }
}

/// The trusted certificate that is nearest to a rejected one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Nearest {
    /// What they have in common.
    pub relation: Relation,
    /// The fingerprint of the trusted one.
    pub fingerprint: Fingerprint,
    /// The file that it is, or was, in.
    pub file: PathBuf,
    /// When it was removed; `None` while it is trusted.
    pub removed_at: Option<SystemTime>,
}

impl Nearest {
    pub(super) fn trusted(relation: Relation, loaded: &LoadedCertificate) -> Self {
        Self {
            relation,
            fingerprint: loaded.certificate.summary().fingerprint,
            file: loaded.file.to_path_buf(),
            removed_at: None,
        }
    }

    pub(crate) fn removed(fingerprint: Fingerprint, file: PathBuf, at: SystemTime) -> Self {
        Self { relation: Relation::Removed, fingerprint, file, removed_at: Some(at) }
    }
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { relation, fingerprint, file, removed_at } = self;
        let file = file.display();
        match (relation, removed_at) {
            (Relation::Same, _) => write!(f, "the same certificate is in {file}"),
            (Relation::Removed, Some(at)) => {
                let at = rfc3339(unix_time(*at));
                write!(f, "this certificate was removed at {at}; it was in {file}")
            }
            (Relation::Removed, None) => write!(f, "this certificate was removed from {file}"),
            (Relation::SameKey, _) => write!(f, "same key as {fingerprint} in {file}"),
            (Relation::SameSerial, _) => write!(f, "same serial as {fingerprint} in {file}"),
        }
    }
}

/// The certificates of a store by what an unknown one may have in common with them. Each value is
/// an index into them.
#[derive(Debug, Default)]
pub(super) struct NearestIndex {
    by_fingerprint: HashMap<Fingerprint, usize>,
    by_key: HashMap<Fingerprint, usize>,
    by_serial: HashMap<Box<str>, usize>,
}

impl NearestIndex {
    pub(super) fn of(certificates: &[LoadedCertificate]) -> Self {
        let mut index = Self::default();
        for (at, loaded) in certificates.iter().enumerate() {
            let summary = loaded.certificate.summary();
            index.by_fingerprint.entry(summary.fingerprint).or_insert(at);
            index.by_key.entry(summary.key_fingerprint).or_insert(at);
            index.by_serial.entry(summary.serial.as_str().into()).or_insert(at);
        }
        index
    }

    pub(super) fn find(&self, presented: &PresentedCertificate) -> Option<(Relation, usize)> {
        if let Some(at) = self.by_fingerprint.get(&presented.fingerprint) {
            return Some((Relation::Same, *at));
        }
        let summary = presented.summary.as_ref()?;
        let same_key = self.by_key.get(&summary.key_fingerprint);
        let same_serial = || self.by_serial.get(summary.serial.as_str());
        same_key
            .map(|at| (Relation::SameKey, *at))
            .or_else(|| same_serial().map(|at| (Relation::SameSerial, *at)))
    }
}

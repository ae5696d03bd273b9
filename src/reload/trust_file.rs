//! One trust file and its last good content.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::reload::problem::Problem;
use crate::reload::read::{MAX_FILE_SIZE, ReadError, metadata, read_regular};
use crate::reload::stamp::Stamp;
use crate::reload::watch::BeingWritten;
use crate::trust::pem::{self, PemError, PemErrorKind};
use crate::trust::{Certificate, Fingerprint, Role, parse_for};

/// How files are read.
#[derive(Debug)]
pub(super) struct ReadContext<'a> {
    /// At start, the good certificates of a file with errors count: there is no former content
    /// that could stay, and a restart must not turn one bad block into an outage.
    pub(super) is_first: bool,
    /// A file that is being written loses no certificate before its writer closes it.
    pub(super) being_written: &'a BeingWritten,
}

#[derive(Debug, Default)]
pub(super) struct TrustFile {
    /// `None` if the content has to be read again whatever the stamp is.
    stamp: Option<Stamp>,
    digest: Option<Fingerprint>,
    /// The certificates of its last good content.
    certificates: Vec<Arc<Certificate>>,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl TrustFile {
    pub(super) fn certificates(&self) -> &[Arc<Certificate>] {
        &self.certificates
    }

    pub(super) fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.errors.iter().chain(&self.warnings)
    }

    /// Makes the next read ignore the stamp.
    pub(super) fn invalidate_stamp(&mut self) {
        self.stamp = None;
    }

    /// Reads the file if it has changed. `false` if it does not exist.
    pub(super) fn read(&mut self, path: &Path, role: Role, context: &ReadContext<'_>) -> bool {
        match self.read_changed(path) {
            Ok(None) => {}
            Ok(Some(bytes)) => self.update(path, role, &bytes, context),
            Err(error) => {
                (self.stamp, self.digest) = (None, None);
                self.errors = vec![Problem::unreadable(path, &error)];
                return !error.is_not_found();
            }
        }
        true
    }

    /// The content, unless it is the one that was read last.
    fn read_changed(&mut self, path: &Path) -> Result<Option<Vec<u8>>, ReadError> {
        let metadata = metadata(path)?;
        let stamp = Stamp::of(&metadata);
        if self.stamp.as_ref() == Some(&stamp) {
            return Ok(None);
        }
        let now = SystemTime::now();
        let bytes = read_regular(path, &metadata)?;
        self.stamp = stamp.is_settled(now).then_some(stamp);
        let digest = Some(Fingerprint::of(&bytes));
        if self.digest == digest {
            return Ok(None);
        }
        self.digest = digest;
        Ok(Some(bytes))
    }

    /// Takes the certificates of new content, if it is good.
    pub(super) fn update(
        &mut self,
        path: &Path,
        role: Role,
        bytes: &[u8],
        context: &ReadContext<'_>,
    ) {
        let parsed = Parsed::new(bytes, role);
        let mut certificates = parsed.certificates;
        if parsed.errors.is_empty() && context.being_written.contains(path) {
            let is_missing =
                |old: &&Arc<Certificate>| !certificates.iter().any(|new| new.der() == old.der());
            let missing: Vec<_> = self.certificates.iter().filter(is_missing).cloned().collect();
            if !missing.is_empty() {
                certificates.extend(missing);
                (self.stamp, self.digest) = (None, None);
            }
        }
        if parsed.errors.is_empty() || context.is_first {
            self.certificates = certificates;
        }
        self.errors = parsed.errors.iter().map(|error| Problem::in_pem(path, error)).collect();
        let remedy = "use --trust-ca to accept the clients that it has issued certificates to";
        let warning = |line: &usize| {
            let message = "this is a CA certificate: pinned, it accepts only a client that \
                presents the CA certificate itself";
            Problem { line: Some(*line), ..Problem::warning(path, message, remedy) }
        };
        self.warnings = parsed.pinned_cas.iter().map(warning).collect();
    }
}

/// The content of a trust file.
struct Parsed {
    certificates: Vec<Arc<Certificate>>,
    errors: Vec<PemError>,
    /// The lines of the CA certificates that are pinned.
    pinned_cas: Vec<usize>,
}

impl Parsed {
    fn new(bytes: &[u8], role: Role) -> Self {
        let mut parsed =
            Self { certificates: Vec::new(), errors: Vec::new(), pinned_cas: Vec::new() };
        if bytes.len() as u64 > MAX_FILE_SIZE {
            parsed.errors.push(PemError::whole(PemErrorKind::TooLarge));
            return parsed;
        }
        let (blocks, errors) = pem::certificates(bytes);
        parsed.errors = errors;
        for (line, der) in blocks {
            match parse_for(role, der) {
                Ok(certificate) => {
                    if role == Role::Pin && certificate.is_issuing_ca() {
                        parsed.pinned_cas.push(line);
                    }
                    parsed.certificates.push(Arc::new(certificate));
                }
                Err(kind) => parsed.errors.push(PemError::at(line, kind)),
            }
        }
        parsed
    }
}

//! A problem of a file, with its line and remedy.

use std::fmt;
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use crate::reload::read::ReadError;
use crate::trust::pem::{PemError, PemErrorKind};

/// How serious a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The affected content is not active.
    Error,
    /// The affected content is active, and the operator should know.
    Warning,
}

const GIVE_CERTIFICATE: &str = "give the PEM file of the server's certificate, followed by its chain; --cert and --key may be \
     swapped";

/// A problem of one file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// How serious it is.
    pub severity: Severity,
    /// The file or directory.
    pub file: PathBuf,
    /// The line, counted from 1, where there is one.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    pub(super) fn error(file: &Path, message: impl Into<String>, remedy: &str) -> Self {
        Self {
            severity: Severity::Error,
            file: file.to_owned(),
            line: None,
            message: message.into(),
            remedy: remedy.to_owned(),
        }
    }

    pub(super) fn warning(file: &Path, message: impl Into<String>, remedy: &str) -> Self {
        Self { severity: Severity::Warning, ..Self::error(file, message, remedy) }
    }

    pub(super) fn in_pem(file: &Path, error: &PemError) -> Self {
        let PemError { line, kind } = error;
        Self { line: *line, ..Self::error(file, kind.to_string(), kind.remedy()) }
    }

    /// An error in the server's own certificate or key, which does not come from API Gateway.
    pub(super) fn in_server_pem(file: &Path, error: &PemError, is_key: bool) -> Self {
        let mut problem = Self::in_pem(file, error);
        let remedy = match (&error.kind, is_key) {
            (PemErrorKind::OneLine | PemErrorKind::LiteralNewlines, _) => {
                "write it with its line breaks, as it was issued"
            }
            (PemErrorKind::Pkcs12, true) => {
                "extract the key as PEM: openssl pkcs12 -in FILE -nocerts -nodes -out FILE.pem"
            }
            (PemErrorKind::JavaKeystore, true) => {
                "convert it: keytool -importkeystore -srckeystore FILE -destkeystore FILE.p12 \
                 -deststoretype pkcs12, then openssl pkcs12 -in FILE.p12 -nocerts -nodes -out \
                 FILE.pem"
            }
            (PemErrorKind::CommentedOut, _) => "remove the comment signs",
            (PemErrorKind::DerKey | PemErrorKind::EncryptedDerKey, true) => {
                "convert it to PEM: openssl pkey -inform der -in FILE -out FILE.pem"
            }
            (PemErrorKind::Der | PemErrorKind::Pkcs7Der | PemErrorKind::OtherDer(_), true) => {
                "give the file of the certificate's private key; --cert and --key may be swapped"
            }
            (PemErrorKind::NoCertificate, _)
            | (
                PemErrorKind::DerKey | PemErrorKind::EncryptedDerKey | PemErrorKind::OtherDer(_),
                false,
            ) => GIVE_CERTIFICATE,
            (PemErrorKind::NotACertificate(label), _) if label.ends_with("KEY") => GIVE_CERTIFICATE,
            _ => return problem,
        };
        remedy.clone_into(&mut problem.remedy);
        problem
    }

    pub(super) fn unreadable(file: &Path, error: &ReadError) -> Self {
        Self::error(file, error.to_string(), error.remedy())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}; {}", self.message, self.remedy)
    }
}

/// Logs one problem.
pub(crate) fn log_problem(problem: &Problem, is_first: bool) {
    let Problem { severity, file, line, message, remedy } = problem;
    let (file, line, problem) = (file.display(), *line, message);
    match severity {
        Severity::Error if is_first => error!(%file, line, problem, remedy, "load_failed"),
        Severity::Error => error!(%file, line, problem, remedy, "reload_failed"),
        Severity::Warning => warn!(%file, line, problem, remedy, "trust_file_warning"),
    }
}

//! What is wrong, or odd, with the files that were given: the culprit, the place, the remedy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::trust::pem::{PemError, PemErrorKind};

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// What it is about is not in force.
    Error,
    /// It is in force, and somebody should know.
    Warning,
}

/// One thing that a person should know about one file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// How much it weighs.
    pub severity: Severity,
    /// The file or directory.
    pub file: PathBuf,
    /// The line, counted from 1, where there is one.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    pub(super) fn fault(file: &Path, problem: impl Into<String>, remedy: &str) -> Self {
        Self {
            severity: Severity::Error,
            file: file.to_owned(),
            line: None,
            problem: problem.into(),
            remedy: remedy.to_owned(),
        }
    }

    pub(super) fn warning(file: &Path, problem: impl Into<String>, remedy: &str) -> Self {
        Self { severity: Severity::Warning, ..Self::fault(file, problem, remedy) }
    }

    pub(super) fn in_pem(file: &Path, fault: &PemError) -> Self {
        let line = fault.line;
        Self { line, ..Self::fault(file, fault.problem.to_string(), fault.problem.remedy()) }
    }

    /// A fault in the server's own certificate or key, which does not come from API Gateway.
    pub(super) fn in_server_pem(file: &Path, fault: &PemError, is_key: bool) -> Self {
        let mut problem = Self::in_pem(file, fault);
        let remedy = match (&fault.problem, is_key) {
            (PemErrorKind::OneLine | PemErrorKind::LiteralNewlines, _) => {
                "write it with its line breaks, as it was issued"
            }
            (PemErrorKind::Der, true) => {
                "convert it to PEM: openssl pkey -inform der -in FILE -out FILE.pem"
            }
            (PemErrorKind::NoCertificate, _) => {
                "give the PEM file of the server's certificate, followed by its chain"
            }
            _ => return problem,
        };
        remedy.clone_into(&mut problem.remedy);
        problem
    }

    pub(super) fn unreadable(file: &Path, error: &io::Error) -> Self {
        // Too many open files, in the process or in all.
        if matches!(error.raw_os_error(), Some(23 | 24)) {
            let remedy = "raise the limit on open files, or lower --max-connections";
            return Self::fault(file, format!("it cannot be read: {error}"), remedy);
        }
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "check the path, or put the file back",
            io::ErrorKind::PermissionDenied => {
                "let the user that runs portcullis read it; if a link has come to lead there since \
                 it started, start it again (or with --no-sandbox)"
            }
            _ => "make it readable again",
        };
        Self::fault(file, format!("it cannot be read: {error}"), remedy)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}; {}", self.problem, self.remedy)
    }
}

//! Why a poll failed: a kind for the metric, a sentence and a remedy for the log.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::aws::{CallError, ErrorKind};

/// The closed list of what can fail, as the metric has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Call(ErrorKind),
    /// The account lists no certificate.
    EmptyList,
    /// Nothing is selected.
    NothingSelected,
    /// An id or a stage that does not exist, or that presents nothing.
    Unknown,
    /// A stage presents an ACM certificate.
    Acm,
    /// The API returns what is no certificate.
    BadCertificate,
    /// A file that `fetch` did not write is in the way.
    ForeignFile,
    /// The manifest is of another region or endpoint.
    Elsewhere,
    /// The directory, the manifest or the lock.
    Disk,
}

impl Kind {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let own = [
            Self::EmptyList,
            Self::NothingSelected,
            Self::Unknown,
            Self::Acm,
            Self::BadCertificate,
            Self::ForeignFile,
            Self::Elsewhere,
            Self::Disk,
        ];
        ErrorKind::ALL.into_iter().map(Self::Call).chain(own)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Call(kind) => kind.as_str(),
            Self::EmptyList => "empty_list",
            Self::NothingSelected => "nothing_selected",
            Self::Unknown => "unknown",
            Self::Acm => "acm",
            Self::BadCertificate => "bad_certificate",
            Self::ForeignFile => "foreign_file",
            Self::Elsewhere => "elsewhere",
            Self::Disk => "disk",
        }
    }
}

/// A failure that the log names.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    text: String,
    pub(crate) remedy: String,
    pub(crate) retry_after: Option<Duration>,
    /// True if another try cannot succeed: the daemon exits too.
    pub(crate) is_final: bool,
}

impl Failure {
    pub(super) fn new(kind: Kind, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (text, remedy) = (text.into(), remedy.into());
        Self { kind, text, remedy, retry_after: None, is_final: false }
    }

    pub(super) fn disk(path: &Path, error: &io::Error) -> Self {
        let text = format!("{}: {error}", path.display());
        Self::new(Kind::Disk, text, "check --into, its owner and the space of its disk")
    }

    pub(super) fn and_final(self) -> Self {
        Self { is_final: true, ..self }
    }

    pub(crate) fn log(&self) {
        let kind = self.kind.as_str();
        tracing::error!(kind, error = self.text, remedy = self.remedy, "fetch_failed");
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let own = Self::new(Kind::Call(error.kind), error.to_string(), error.remedy());
        Self { retry_after: error.retry_after, ..own }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.text, self.remedy)
    }
}

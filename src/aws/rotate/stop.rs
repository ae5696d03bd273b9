//! Why a rotation stops, and what the operator does about it.

use super::{CallError, ErrorKind};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) reason: String,
    pub(crate) remedy: String,
    /// True if what was asked for cannot be done, however often it is tried.
    pub(crate) is_usage: bool,
}

impl Stop {
    pub(crate) fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: remedy.into(), is_usage: false }
    }

    pub(crate) fn usage(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { is_usage: true, ..Self::new(reason, remedy) }
    }
}

impl From<CallError> for Stop {
    fn from(error: CallError) -> Self {
        let stop = Self::new(error.to_string(), error.remedy());
        Self { is_usage: error.kind == ErrorKind::NoRegion, ..stop }
    }
}

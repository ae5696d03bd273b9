//! Why a connection closed, as a closed list for the log and the counters.

/// Why an admitted connection closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum CloseReason {
    /// The client or the service ended it.
    Done,
    /// The client broke the protocol or the connection.
    Failed,
    /// A request's head was larger than the limit.
    LargeHead,
    /// The client reset, or broke, more HTTP/2 requests than the limit.
    Flooding,
    /// Its certificate was removed.
    CertificateRemoved,
    /// Its certificate has expired.
    CertificateExpired,
    /// It had no request in flight for too long.
    Idle,
    /// The head of a request was not complete in time.
    SlowHead,
    /// The client did not read in time.
    SlowReader,
    /// It reached the highest age of a connection.
    Aged,
    /// The server stops.
    Stopped,
}

impl CloseReason {
    /// Every reason, in the order of the enum.
    pub(in crate::server) const ALL: [Self; 11] = [
        Self::Done,
        Self::Failed,
        Self::LargeHead,
        Self::Flooding,
        Self::CertificateRemoved,
        Self::CertificateExpired,
        Self::Idle,
        Self::SlowHead,
        Self::SlowReader,
        Self::Aged,
        Self::Stopped,
    ];

    /// Its stable name.
    pub(in crate::server) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::LargeHead => "large_head",
            Self::Flooding => "flooding",
            Self::CertificateRemoved => "certificate_removed",
            Self::CertificateExpired => "certificate_expired",
            Self::Idle => "idle",
            Self::SlowHead => "slow_head",
            Self::SlowReader => "slow_reader",
            Self::Aged => "aged",
            Self::Stopped => "stopped",
        }
    }

    /// True if its certificate is no longer accepted.
    pub(super) fn is_certificate(self) -> bool {
        matches!(self, Self::CertificateRemoved | Self::CertificateExpired)
    }

    /// True if the client may still be sending a request that will not be read.
    pub(super) fn leaves_request_unread(self) -> bool {
        matches!(self, Self::Failed | Self::LargeHead | Self::Flooding)
    }
}

impl From<&hyper::Error> for CloseReason {
    fn from(error: &hyper::Error) -> Self {
        let source = std::error::Error::source(error);
        let h2_error = source.and_then(|source| source.downcast_ref::<h2::Error>());
        let is_flooding = h2_error.is_some_and(|error| {
            error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
        });
        match error.is_parse_too_large() {
            true => Self::LargeHead,
            false if is_flooding => Self::Flooding,
            false => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_close_reason_is_at_its_index() {
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.as_str());
        }
    }
}

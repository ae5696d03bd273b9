//! The log of requests and connections that fail below the service.

use std::error::Error;

use tokio::time::Instant;
use tracing::warn;

use crate::server::http::malformed::Malformed;
use crate::server::http::state::ConnectionState;
use crate::server::log_limiter::LogLimiter;

/// How much of an error is logged: a client can influence it.
const MAX_ERROR: usize = 200;

/// Logs failures, a few of each kind a second.
#[derive(Debug, Default)]
pub(in crate::server) struct FailureLog {
    malformed: LogLimiter,
    causes: LogLimiter,
}

impl FailureLog {
    /// Counts and logs a request that hyper refused.
    pub(super) fn malformed(
        &self,
        state: &ConnectionState,
        reason: Malformed,
        error: &hyper::Error,
    ) {
        state.meters.request_malformed(reason);
        let cause = match reason {
            Malformed::TooManyHeaders => {
                format!("the request has more than {} header lines", state.max_headers)
            }
            _ => with_sources(error),
        };
        let Some(suppressed) = self.malformed.admit(Instant::now()) else { return };
        warn!(
            peer = state.peer_text(),
            certificate = state.fingerprint(),
            reason = reason.as_str(),
            error = cause,
            suppressed = (suppressed > 0).then_some(suppressed),
            "request_malformed"
        );
    }

    /// The cause of a failed connection, for its log line; `None` past the limit.
    pub(super) fn cause(&self, error: &hyper::Error) -> Option<String> {
        self.causes.admit(Instant::now()).map(|_| with_sources(error))
    }
}

/// An error and what caused it, up to a limit.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        // Some errors repeat their source.
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text.chars().take(MAX_ERROR).collect()
}

//! The closed list of failures between a client and an application.

use std::fmt;
use std::io;

use http::StatusCode;
use metrics::{counter, describe_counter};

use crate::service::proxy::upload::UploadError;

/// The size of a buffer. hyper keeps several of them in flight: larger ones would cost megabytes a
/// connection.
pub(super) const BUFFER_SIZE: usize = 64 << 10;

/// The largest head of a response.
pub(super) const MAX_HEAD: usize = BUFFER_SIZE;

/// The most header lines of a response.
pub(super) const MAX_HEADERS: usize = 256;

/// Why a request is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InvalidRequest {
    /// The target is none that this method can have.
    BadTarget,
    /// The body is encoded in another way than chunked.
    TransferEncoding,
    /// Its length is not one number.
    ContentLength,
}

/// How the body of a response broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFailure {
    /// The connection closed before the announced end.
    ShortBody,
    /// The application reset the connection.
    Reset,
    /// A chunk is malformed.
    BadChunk,
}

impl BodyFailure {
    /// Classifies hyper's error of a body.
    pub(super) fn of(error: &hyper::Error, was_reset: bool) -> Self {
        let source = std::error::Error::source(error);
        let kind =
            source.and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
        match kind {
            _ if was_reset => Self::Reset,
            Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => Self::BadChunk,
            _ => Self::ShortBody,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ShortBody => "short_body",
            Self::Reset => "reset",
            Self::BadChunk => "bad_chunk",
        }
    }
}

/// Why the client does not get the application's whole response.
#[derive(Debug)]
pub(super) enum ProxyError {
    /// The request is not passed on.
    Rejection(InvalidRequest),
    /// The request has no client identity: the service runs without the server that verifies.
    NoIdentity,
    /// The request's body is too large.
    BodyTooLarge,
    /// The request's body broke off, or its framing is wrong.
    BodyBroken,
    /// The request's body stalled.
    BodyTimeout,
    /// Too many requests wait for a connection to the upstream.
    QueueFull,
    /// No connection to the upstream became free.
    QueueTimeout,
    /// Connecting failed.
    Connect(io::Error),
    /// Connecting took too long.
    ConnectTimeout,
    /// The connection closed before the response's head was complete.
    Closed(hyper::Error),
    /// The response's head is malformed or cannot be passed on.
    BadResponse(Option<hyper::Error>),
    /// The response's head has too many lines.
    TooManyHeaders,
    /// The response's head is too large.
    HeadTooLarge,
    /// The response's head did not arrive in time.
    ResponseTimeout,
    /// The response's body broke off.
    Body(BodyFailure),
}

impl From<UploadError> for ProxyError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::TooLarge => Self::BodyTooLarge,
            UploadError::Broken => Self::BodyBroken,
            UploadError::Stalled => Self::BodyTimeout,
        }
    }
}

impl ProxyError {
    /// All the reasons.
    const REASONS: [&str; 15] = [
        "bad_target",
        "transfer_encoding",
        "content_length",
        "no_identity",
        "body_too_large",
        "body_broken",
        "body_timeout",
        "queue_full",
        "queue_timeout",
        "connect",
        "connect_timeout",
        "closed",
        "bad_response",
        "response_timeout",
        "body",
    ];

    /// Starts each series at zero, so that its first failure counts as an increase.
    pub(super) fn register_counters() {
        describe_counter!(
            "portcullis_proxy_failures_total",
            "Requests for which the client did not get the application's whole response, by reason."
        );
        for reason in Self::REASONS {
            counter!("portcullis_proxy_failures_total", "reason" => reason).absolute(0);
        }
    }

    pub(super) fn count(&self) {
        counter!("portcullis_proxy_failures_total", "reason" => self.reason()).increment(1);
    }

    /// The reason in the log and the counters.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Rejection(InvalidRequest::BadTarget) => "bad_target",
            Self::Rejection(InvalidRequest::TransferEncoding) => "transfer_encoding",
            Self::Rejection(InvalidRequest::ContentLength) => "content_length",
            Self::NoIdentity => "no_identity",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyBroken => "body_broken",
            Self::BodyTimeout => "body_timeout",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Connect(_) => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Closed(_) => "closed",
            Self::BadResponse(_) | Self::TooManyHeaders | Self::HeadTooLarge => "bad_response",
            Self::Body(_) => "body",
            Self::ResponseTimeout => "response_timeout",
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Rejection(_) | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::NoIdentity => StatusCode::FORBIDDEN,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::QueueFull => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect(_)
            | Self::Closed(_)
            | Self::BadResponse(_)
            | Self::TooManyHeaders
            | Self::HeadTooLarge
            | Self::Body(_) => StatusCode::BAD_GATEWAY,
            Self::QueueTimeout | Self::ConnectTimeout | Self::ResponseTimeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
        }
    }

    /// What the client may know.
    pub(super) fn detail(&self) -> &'static str {
        match self {
            Self::Rejection(InvalidRequest::BadTarget) => "The request's target is malformed.",
            Self::Rejection(InvalidRequest::TransferEncoding) => {
                "The body's encoding is not supported."
            }
            Self::Rejection(InvalidRequest::ContentLength) => "The body's length is malformed.",
            Self::NoIdentity => "The client is not known.",
            Self::BodyTooLarge => "The body is too large.",
            Self::BodyBroken => "The body is malformed or incomplete.",
            Self::BodyTimeout => "The body did not arrive in time.",
            Self::QueueFull => "The application has too much to do.",
            Self::Connect(_) => "The application cannot be reached.",
            Self::Closed(_) => "The application closed the connection without responding.",
            Self::BadResponse(_) => "The application's response is malformed.",
            Self::TooManyHeaders => "The application's response has too many header lines.",
            Self::HeadTooLarge => "The head of the application's response is too large.",
            Self::Body(_) => "The application's response broke off.",
            Self::QueueTimeout | Self::ConnectTimeout | Self::ResponseTimeout => {
                "The application did not respond in time."
            }
        }
    }

    /// True if the client caused it.
    pub(super) fn is_of_client(&self) -> bool {
        self.status().is_client_error()
    }
}

/// The reason in words, for the log.
impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "{error}"),
            Self::Body(failure) => f.write_str(match failure {
                BodyFailure::ShortBody => "the response's body is shorter than announced",
                BodyFailure::Reset => "the application reset the connection within the response",
                BodyFailure::BadChunk => "a chunk of the response's body is malformed",
            }),
            Self::TooManyHeaders => {
                write!(f, "the response has more than {MAX_HEADERS} header lines")
            }
            Self::HeadTooLarge => {
                write!(f, "the head of the response is larger than {} KiB", MAX_HEAD >> 10)
            }
            Self::Closed(error) | Self::BadResponse(Some(error)) => {
                write!(f, "{error}")?;
                let mut source = std::error::Error::source(error);
                while let Some(error) = source {
                    write!(f, ": {error}")?;
                    source = error.source();
                }
                Ok(())
            }
            other => write!(f, "{}", other.detail()),
        }
    }
}

//! What can go wrong between a client and an application, as a closed list.

use std::fmt;
use std::io;

use http::StatusCode;
use metrics::{counter, describe_counter};

use crate::service::proxy::upload::Fault;

/// Why a request was refused before the upstream heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InvalidRequest {
    /// The target is none that this method can have.
    BadTarget,
    /// The body is encoded in another way than chunked.
    TransferEncoding,
    /// Its length is not one number.
    ContentLength,
}

/// Why a request was not answered as the upstream would have it.
#[derive(Debug)]
pub(super) enum ProxyError {
    /// It was refused.
    Rejection(InvalidRequest),
    /// Nobody knows who asks: the service runs without the server that verifies clients.
    NoIdentity,
    /// The body is larger than it may be.
    BodyTooLarge,
    /// The body broke off, or its framing is wrong.
    BodyBroken,
    /// The client did not go on with its body.
    BodyTimeout,
    /// Too many requests wait for a connection to the upstream.
    QueueFull,
    /// No connection to the upstream became free.
    QueueTimeout,
    /// No connection can be made.
    Connect(io::Error),
    /// None was made in time.
    ConnectTimeout,
    /// The connection ended before the answer's head was complete.
    Closed(hyper::Error),
    /// The head of the answer is none that can be passed on.
    BadResponse(Option<hyper::Error>),
    /// There was no head in time.
    ResponseTimeout,
}

impl From<Fault> for ProxyError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TooLarge => Self::BodyTooLarge,
            Fault::Broken => Self::BodyBroken,
            Fault::BodyStalled => Self::BodyTimeout,
        }
    }
}

impl ProxyError {
    /// All the reasons.
    const REASONS: [&str; 14] = [
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
    ];

    /// Has each series begin at zero, so that the first of its kind is seen as an increase.
    pub(super) fn begin_counting() {
        describe_counter!(
            "portcullis_proxy_failures_total",
            "Requests that the proxy answered itself, by what was wrong."
        );
        for reason in Self::REASONS {
            counter!("portcullis_proxy_failures_total", "reason" => reason).absolute(0);
        }
    }

    pub(super) fn count(&self) {
        counter!("portcullis_proxy_failures_total", "reason" => self.reason()).increment(1);
    }

    /// What the log and the counters call it.
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
            Self::BadResponse(_) => "bad_response",
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
            Self::Connect(_) | Self::Closed(_) | Self::BadResponse(_) => StatusCode::BAD_GATEWAY,
            Self::QueueTimeout | Self::ConnectTimeout | Self::ResponseTimeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
        }
    }

    /// What whoever asked may know.
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
            Self::Connect(_) | Self::Closed(_) => "The application cannot be reached.",
            Self::BadResponse(_) => "The application's answer is malformed.",
            Self::QueueTimeout | Self::ConnectTimeout | Self::ResponseTimeout => {
                "The application did not answer in time."
            }
        }
    }

    /// Whether it is the client's doing, and not the upstream's.
    pub(super) fn is_of_client(&self) -> bool {
        self.status().is_client_error()
    }
}

/// The reason in words, for the log.
impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "{error}"),
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

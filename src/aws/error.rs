//! What a failed call to the control plane means, and what the operator does about it.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use aws_sdk_apigateway::config::http::HttpResponse;
use aws_sdk_apigateway::error::{ProvideErrorMetadata, SdkError};

/// The kinds of failure that callers treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ErrorKind {
    /// Too many calls. The call had no effect.
    Throttled,
    /// A 5xx. The call may have had its effect.
    Server,
    /// No response, or half of one. The call may have had its effect.
    NoResponse,
    /// A list that is not complete, or an item without what it must have.
    Incomplete,
    NotFound,
    AccessDenied,
    /// No credentials, or credentials that the service does not accept.
    Credentials,
    /// No region: usage, not a failure.
    NoRegion,
    /// In use, or changed at the same time.
    Conflict,
    /// A quota of the account. The call had no effect.
    LimitExceeded,
    BadRequest,
}

impl ErrorKind {
    pub(crate) const ALL: [Self; 11] = [
        Self::Throttled,
        Self::Server,
        Self::NoResponse,
        Self::Incomplete,
        Self::NotFound,
        Self::AccessDenied,
        Self::Credentials,
        Self::NoRegion,
        Self::Conflict,
        Self::LimitExceeded,
        Self::BadRequest,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Server => "server_error",
            Self::NoResponse => "no_response",
            Self::Incomplete => "incomplete",
            Self::NotFound => "not_found",
            Self::AccessDenied => "access_denied",
            Self::Credentials => "credentials",
            Self::NoRegion => "no_region",
            Self::Conflict => "conflict",
            Self::LimitExceeded => "limit_exceeded",
            Self::BadRequest => "bad_request",
        }
    }

    /// True if the call may have had its effect although it failed.
    pub(crate) fn is_ambiguous(self) -> bool {
        matches!(self, Self::Server | Self::NoResponse)
    }
}

/// What is called: for messages, and for the permission that it needs.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) path: String,
}

impl Call {
    pub(crate) fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self { method, path: path.into() }
    }

    pub(crate) fn error(&self, kind: ErrorKind, detail: impl Into<String>) -> CallError {
        let (call, detail) = (self.to_string(), detail.into());
        CallError { kind, call, detail, retry_after: None, missing_action: None }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// A call that failed for good, after its retries.
#[derive(Clone, Debug)]
pub(crate) struct CallError {
    pub(crate) kind: ErrorKind,
    call: String,
    detail: String,
    pub(crate) retry_after: Option<Duration>,
    /// For [`ErrorKind::AccessDenied`]: the action that the policy lacks, and on what.
    pub(crate) missing_action: Option<String>,
}

impl CallError {
    pub(crate) fn of<E>(call: &Call, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let response = error.raw_response();
        let metadata = error.as_service_error().map(ProvideErrorMetadata::meta);
        let code = metadata.and_then(|meta| meta.code()).unwrap_or_default();
        let message = metadata.and_then(|meta| meta.message());
        let kind = match response {
            Some(response) => kind_of_response(response.status().as_u16(), code),
            None => kind_without_response(error),
        };
        let detail = match (message, response) {
            (Some(message), _) => message.to_owned(),
            (None, Some(response)) if kind != ErrorKind::NoResponse => {
                format!("status {} {code}", response.status().as_u16()).trim_end().to_owned()
            }
            _ => causes(error),
        };
        let retry_after = response
            .and_then(|response| response.headers().get("retry-after"))
            .and_then(|value| value.trim().parse().ok())
            .map(Duration::from_secs);
        let missing_action = (kind == ErrorKind::AccessDenied)
            .then(|| action_in(&detail).unwrap_or_else(|| needed_action(call)));
        Self { retry_after, missing_action, ..call.error(kind, detail) }
    }

    /// What the operator does about it.
    pub(crate) fn remedy(&self) -> String {
        match (self.kind, &self.missing_action) {
            (_, Some(action)) => format!("allow {action} in the policy of these credentials"),
            (ErrorKind::Throttled, _) => {
                "the account allows 10 control-plane calls a second: poll less often".to_owned()
            }
            (ErrorKind::Server | ErrorKind::Incomplete, _) => "it is tried again".to_owned(),
            (ErrorKind::NoResponse, _) => {
                "check the route to the endpoint, AWS_ENDPOINT_URL and the region".to_owned()
            }
            (ErrorKind::Credentials, _) => {
                "check AWS_PROFILE or --profile, AWS_ACCESS_KEY_ID, or the role of this machine"
                    .to_owned()
            }
            (ErrorKind::NoRegion, _) => "set --region or AWS_REGION".to_owned(),
            (ErrorKind::NotFound, _) => "check the id, the region and the account".to_owned(),
            (ErrorKind::Conflict, _) => "see what still uses it".to_owned(),
            (ErrorKind::LimitExceeded, _) => "delete what is unused, or raise the quota".to_owned(),
            (ErrorKind::BadRequest | ErrorKind::AccessDenied, _) => "see the message".to_owned(),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.missing_action, self.call.is_empty()) {
            (Some(action), _) => {
                write!(f, "{}: access denied, {action} is not allowed: {}", self.call, self.detail)
            }
            (None, true) => f.write_str(&self.detail),
            (None, false) => write!(f, "{}: {}: {}", self.call, self.kind.as_str(), self.detail),
        }
    }
}

impl Error for CallError {}

/// Codes of 403 (or 400) that are about the credentials themselves, not about a permission.
const BAD_CREDENTIALS: [&str; 9] = [
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "IncompleteSignatureException",
    "IncompleteSignature",
    "MissingAuthenticationTokenException",
    "ExpiredTokenException",
    "ExpiredToken",
];

fn kind_of_response(status: u16, code: &str) -> ErrorKind {
    match status {
        // A success that cannot be parsed was truncated.
        200..=299 => ErrorKind::NoResponse,
        _ if BAD_CREDENTIALS.contains(&code) => ErrorKind::Credentials,
        429 if code == "LimitExceededException" => ErrorKind::LimitExceeded,
        429 => ErrorKind::Throttled,
        400 if code.contains("Throttl") => ErrorKind::Throttled,
        401 | 403 => ErrorKind::AccessDenied,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        500.. => ErrorKind::Server,
        _ => ErrorKind::BadRequest,
    }
}

fn kind_without_response<E: Error + 'static>(error: &SdkError<E, HttpResponse>) -> ErrorKind {
    match error {
        SdkError::TimeoutError(_) => ErrorKind::NoResponse,
        SdkError::DispatchFailure(failure) if failure.is_io() || failure.is_timeout() => {
            ErrorKind::NoResponse
        }
        SdkError::DispatchFailure(_) if causes(error).contains("credential") => {
            ErrorKind::Credentials
        }
        SdkError::ConstructionFailure(_) => ErrorKind::BadRequest,
        _ => ErrorKind::NoResponse,
    }
}

fn causes(error: &dyn Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts.dedup();
    texts.join(": ")
}

/// The action in "User: … is not authorized to perform: ACTION on resource: ARN …".
fn action_in(message: &str) -> Option<String> {
    let (_, after) = message.split_once("to perform: ")?;
    let mut parts = after.split_whitespace();
    let action = parts.next()?;
    let resource = match (parts.next(), parts.next(), parts.next()) {
        (Some("on"), Some("resource:"), Some(resource)) => Some(resource),
        _ => None,
    };
    Some(match resource {
        Some(resource) => format!("{action} on {resource}"),
        None => action.to_owned(),
    })
}

fn needed_action(call: &Call) -> String {
    format!("apigateway:{} on {}", call.method, call.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_code_decide_the_kind() {
        for (status, code, kind) in [
            (429, "TooManyRequestsException", ErrorKind::Throttled),
            (429, "LimitExceededException", ErrorKind::LimitExceeded),
            (403, "AccessDeniedException", ErrorKind::AccessDenied),
            (403, "ExpiredTokenException", ErrorKind::Credentials),
            (401, "UnauthorizedException", ErrorKind::AccessDenied),
            (409, "ConflictException", ErrorKind::Conflict),
            (404, "NotFoundException", ErrorKind::NotFound),
            (503, "", ErrorKind::Server),
            (400, "BadRequestException", ErrorKind::BadRequest),
            (200, "", ErrorKind::NoResponse),
        ] {
            assert_eq!(kind_of_response(status, code), kind, "{status} {code}");
        }
    }

    #[test]
    fn missing_action_is_taken_from_the_message() {
        let message = "User: arn:aws:iam::1:user/u is not authorized to perform: apigateway:GET \
                       on resource: arn:aws:apigateway:eu-west-1::/tags/x because no policy";
        let action = "apigateway:GET on arn:aws:apigateway:eu-west-1::/tags/x";
        assert_eq!(action_in(message).as_deref(), Some(action));
        assert_eq!(action_in("Forbidden"), None);
    }
}

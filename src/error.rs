//! The one type for errors of services and bodies, whose own types are the caller's choice.

/// Any error that may cross threads.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

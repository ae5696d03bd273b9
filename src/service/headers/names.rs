//! The names of the headers that a proxy sets, and of those for one connection only.

use http::header::HeaderName;

/// The certificate of the client, as RFC 9440 has it: its DER in base64, between colons.
pub const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");

/// The SHA-256 of that DER in lower-case hex.
pub const FINGERPRINT: HeaderName = HeaderName::from_static("x-client-cert-fingerprint");

/// The addresses that the request had under this name, then that of the client.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// `https`, always.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The host that the request names.
pub const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The id of the API, as API Gateway writes it.
pub const API_ID: HeaderName = crate::request_context::API_ID;

/// Headers for one connection and not for the message (RFC 9110 section 7.6.1, and those that were
/// hop-by-hop by name before). `Trailer` is not among them: it announces what follows the body.
pub(super) const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

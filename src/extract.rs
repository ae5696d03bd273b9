//! [`ClientIdentity`] and [`PeerAddr`] as axum extractors (feature `axum`).
//!
//! A handler with one of them as an argument runs for verified clients only. A request that did not
//! pass the gate has neither and gets a `500`, since the application is wired up wrongly.

use axum_core::body::Body;
use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use crate::problem;
use crate::request_context::{RequestContext, log_request};
use crate::{ClientIdentity, PeerAddr};

/// The rejection of a request that has no [`ClientIdentity`] or no [`PeerAddr`], because it
/// bypassed the gate: a `500`, with an event `gate_missing` in the log.
#[derive(Debug)]
pub struct GateMissing(RequestContext);

impl std::fmt::Display for GateMissing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no portcullis gate is in front of this service")
    }
}

impl std::error::Error for GateMissing {}

impl IntoResponse for GateMissing {
    fn into_response(self) -> Response {
        let detail = "The server is not configured to verify clients.";
        let response = problem::response(StatusCode::INTERNAL_SERVER_ERROR, detail, &self.0);
        response.map(Body::new)
    }
}

impl<S: Sync> FromRequestParts<S> for ClientIdentity {
    type Rejection = GateMissing;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Self, GateMissing> {
        extension(head, "ClientIdentity")
    }
}

impl<S: Sync> FromRequestParts<S> for PeerAddr {
    type Rejection = GateMissing;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Self, GateMissing> {
        extension(head, "PeerAddr")
    }
}

fn extension<T>(head: &Parts, missing: &'static str) -> Result<T, GateMissing>
where
    T: Clone + Send + Sync + 'static,
{
    head.extensions.get().cloned().ok_or_else(|| {
        let context = RequestContext::of_head(head);
        let error = "no portcullis gate is in front of this service: serve it by Bound::serve";
        log_request!(error, &context, "gate_missing", missing, error);
        GateMissing(context)
    })
}

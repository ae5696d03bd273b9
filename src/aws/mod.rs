//! The AWS side: what keeps trust directories and stages in step with API Gateway.
//!
//! `fetch` and `rotate` are processes of their own, so that `serve` needs no outbound connection. Of the
//! rest of the crate this module uses the certificate parser only.

#[allow(dead_code, reason = "the rest is for rotate")]
pub(crate) mod control_plane;
mod error;
pub(crate) mod fetch;
mod pace;

#[allow(unused_imports, reason = "the rest is for rotate")]
pub(crate) use control_plane::{ControlPlane, StageName, Tags};
pub(crate) use error::{CallError, ErrorKind};

/// The tag on a new certificate that names the one it replaces.
pub(crate) const REPLACES: &str = "portcullis:replaces";
/// The tag on a certificate that servers must no longer trust.
pub(crate) const RETIRED: &str = "portcullis:retired";

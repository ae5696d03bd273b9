//! The AWS side: what keeps trust directories and stages in step with API Gateway.
//!
//! `fetch` and `rotate` are processes of their own, so that `serve` needs no outbound connection. Of the
//! rest of the crate this module uses the certificate parser only.

pub(crate) mod control_plane;
mod error;
pub(crate) mod fetch;
mod pace;
pub(crate) mod rotate;

pub(crate) use control_plane::{ControlPlane, StageName, Tags};
pub(crate) use error::{CallError, ErrorKind};

/// The tag on a new certificate that names the one it replaces.
pub(crate) const REPLACES: &str = "portcullis:replaces";
/// The tag on a certificate that servers must no longer trust.
pub(crate) const RETIRED: &str = "portcullis:retired";
/// The value of [`RETIRED`] after a roll-back: removing the tag would need one more permission.
pub(crate) const NOT_RETIRED: &str = "no";
/// The tag on a new certificate that gives way to the one it replaced.
pub(crate) const ROLLED_BACK: &str = "portcullis:rolled-back";

pub(crate) fn is_retired(tags: &Tags) -> bool {
    tags.get(RETIRED).is_some_and(|value| value != NOT_RETIRED)
}

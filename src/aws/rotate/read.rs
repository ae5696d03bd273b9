//! Reading the account, whose lists lag behind its changes.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Stop;
use crate::aws::control_plane::{ClientCertificate, Stage};
use crate::aws::{ControlPlane, ErrorKind};

/// How long a list is read before a certificate counts as missing from it.
pub(super) const SETTLE: Duration = Duration::from_secs(5);

/// Every certificate, with its tags.
pub(super) async fn certificates(plane: &ControlPlane) -> Result<Vec<ClientCertificate>, Stop> {
    let mut list = plane.list_certificates().await?;
    let has_tags = list.iter().any(|certificate| certificate.tags.is_some());
    for certificate in &mut list {
        if certificate.tags.is_none() {
            certificate.tags = Some(match has_tags {
                // Where the list carries tags, an item without them has none.
                true => Default::default(),
                false => match plane.certificate_tags(&certificate.id).await {
                    Err(error) if error.kind == ErrorKind::NotFound => Default::default(),
                    tags => tags?,
                },
            });
        }
    }
    Ok(list)
}

/// Every stage of every API in the account.
pub(super) async fn all_stages(plane: &ControlPlane) -> Result<Vec<Stage>, Stop> {
    let mut all = Vec::new();
    for api in plane.list_apis().await? {
        match plane.list_stages(&api.id).await {
            // Deleted since the list was read.
            Err(error) if error.kind == ErrorKind::NotFound => {}
            stages => all.extend(stages?),
        }
    }
    Ok(all)
}

pub(super) fn presented(stages: &[Stage]) -> BTreeSet<String> {
    stages.iter().filter_map(|stage| stage.client_certificate.clone()).collect()
}

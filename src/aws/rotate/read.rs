//! Reading the account, whose lists lag behind its changes.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Stop;
use super::engine::Engine;
use crate::aws::control_plane::{ClientCertificate, Stage};
use crate::aws::{ControlPlane, ErrorKind};

/// For so long a list is read before it counts that a certificate is not in it.
pub(super) const SETTLE: Duration = Duration::from_secs(5);
const BETWEEN_READS: Duration = Duration::from_secs(1);

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

impl Engine<'_> {
    /// Reads the list for [`SETTLE`], and longer until it holds `expected`; returns every certificate
    /// that any of the reads held.
    pub(super) async fn settled_certificates(
        &self,
        expected: Option<&str>,
    ) -> Result<Vec<ClientCertificate>, Stop> {
        let begin = Instant::now();
        let mut union: Vec<ClientCertificate> = Vec::new();
        loop {
            for found in certificates(self.plane).await? {
                match union.iter_mut().find(|known| known.id == found.id) {
                    Some(known) => *known = found,
                    None => union.push(found),
                }
            }
            let is_there =
                expected.is_none_or(|id| union.iter().any(|certificate| certificate.id == id));
            if begin.elapsed() >= SETTLE && (is_there || begin.elapsed() >= self.options.timeout) {
                return Ok(union);
            }
            sleep(BETWEEN_READS).await;
        }
    }
}

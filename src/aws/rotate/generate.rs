//! Generates the successor exactly once, even if a response is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Stop;
use super::display::Step;
use super::engine::{Engine, RotationCertificate};
use super::plan::{successors, winner};
use super::read;
use crate::aws::control_plane::ClientCertificate;
use crate::aws::{ErrorKind, REPLACES, Tags};

/// The account's quota, unless it was raised.
const QUOTA: usize = 60;
const ATTEMPTS: u32 = 3;
const BETWEEN_READS: Duration = Duration::from_secs(1);

impl Engine<'_> {
    /// Returns the successor, and the surplus ones of concurrent runs.
    pub(super) async fn generate(
        &self,
        from: &ClientCertificate,
        presented: &BTreeSet<String>,
    ) -> Result<(RotationCertificate, Vec<ClientCertificate>), Stop> {
        self.display.start(Step::Generate, &format!("generates the successor of {}", from.id));
        let mut attempt = 1;
        // An earlier run's certificate, or that of a call whose response was lost, is in the list.
        let mut list = self.settled_certificates(None).await?;
        let list = loop {
            if winner(usable(&list, from), presented).is_some() {
                break list;
            }
            let tags = Tags::from([(REPLACES.to_owned(), from.id.clone())]);
            let description = format!("portcullis rotate: replaces {}", from.id);
            match self.plane.generate_certificate(&description, &tags).await {
                // Another run may have generated one at the same time.
                Ok(made) => {
                    let mut list = self.settled_certificates(Some(&made.id)).await?;
                    if !list.iter().any(|one| one.id == made.id) {
                        list.push(made);
                    }
                    break list;
                }
                Err(error) if error.kind == ErrorKind::LimitExceeded => {
                    let unused = unused(&list, presented);
                    if list.len() >= QUOTA || attempt == ATTEMPTS {
                        return Err(full(list.len(), &unused));
                    }
                }
                Err(error) if error.kind.is_ambiguous() && attempt < ATTEMPTS => {
                    self.display.wait("the response was lost: reads the list until it settles");
                }
                Err(error) => return Err(error.into()),
            }
            attempt += 1;
            sleep(Duration::from_secs(1)).await;
            list = self.settled_certificates(None).await?;
        };
        let Some(chosen) = winner(usable(&list, from), presented) else {
            return Err(Stop::new("the new certificate is not in the list", "run it again"));
        };
        let lost = usable(&list, from).filter(|one| one.id != chosen.id);
        let lost = lost.filter(|one| !presented.contains(&one.id)).cloned().collect();
        self.display.finish(&format!("{} replaces {}", chosen.id, from.id));
        Ok((RotationCertificate::of(chosen)?, lost))
    }

    /// Reads the list for [`read::SETTLE`], and longer until it holds `expected`; returns every certificate
    /// that any of the reads held.
    pub(super) async fn settled_certificates(
        &self,
        expected: Option<&str>,
    ) -> Result<Vec<ClientCertificate>, Stop> {
        let begin = Instant::now();
        let mut union: Vec<ClientCertificate> = Vec::new();
        loop {
            for found in read::certificates(self.plane).await? {
                match union.iter_mut().find(|known| known.id == found.id) {
                    Some(known) => *known = found,
                    None => union.push(found),
                }
            }
            let is_there =
                expected.is_none_or(|id| union.iter().any(|certificate| certificate.id == id));
            if begin.elapsed() >= read::SETTLE
                && (is_there || begin.elapsed() >= self.options.timeout)
            {
                return Ok(union);
            }
            sleep(BETWEEN_READS).await;
        }
    }
}

fn usable<'a>(
    list: &'a [ClientCertificate],
    from: &'a ClientCertificate,
) -> impl Iterator<Item = &'a ClientCertificate> {
    successors(list, &from.id).filter(|one| one.expires > from.expires)
}

fn unused(list: &[ClientCertificate], presented: &BTreeSet<String>) -> Vec<String> {
    let ids = list.iter().map(|one| one.id.clone());
    ids.filter(|id| !presented.contains(id)).collect()
}

fn full(count: usize, unused: &[String]) -> Stop {
    let names = match unused {
        [] => "every one is used by a stage".to_owned(),
        ids => format!("no stage uses {}", ids.join(", ")),
    };
    Stop::new(
        format!("the account is full ({count} client certificates): {names}"),
        "delete those that no server needs to trust, or raise the quota L-824C9E42",
    )
}

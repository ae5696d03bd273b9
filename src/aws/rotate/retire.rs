//! Retiring the certificate that no stage presents any more.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Stop;
use super::display::Step;
use super::engine::{Engine, RotationCertificate};
use super::switch::presented_elsewhere;
use super::trust_dir::TrustDir;
use super::{plan, read};
use crate::aws::{ErrorKind, RETIRED, StageName, Tags};

impl Engine<'_> {
    /// Tags it, removes it from every replica, deletes it.
    pub(super) async fn retire(
        &self,
        from: &RotationCertificate,
        to: &RotationCertificate,
        dir: Option<&TrustDir>,
    ) -> Result<(), Stop> {
        self.display.start(Step::Retire, &format!("removes and deletes {}", from.id));
        let users = self.users_of(&from.id).await?;
        if !users.is_empty() {
            return Err(presented_elsewhere(&users, &from.id));
        }
        let trusted = self.scan_until(self.options.timeout, |scan| {
            let distrusts = scan.replicas.iter().find(|one| !one.trusts(&to.fingerprint_text));
            distrusts.map_or(Ok(()), |one| {
                Err(format!("http://{} does not trust {}", one.address, to.id))
            })
        });
        trusted.await.map_err(|waited| {
            let remedy = "nothing is removed while a server does not trust what the stages present";
            Stop::new(waited, remedy)
        })?;
        self.display.wait(&format!("tags {} as retired", from.id));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let tags = Tags::from([(RETIRED.to_owned(), now.to_string())]);
        if !from.is_retired {
            match self.plane.tag_certificate(&from.id, &tags).await {
                // Deleted by another run.
                Err(error) if error.kind == ErrorKind::NotFound => {}
                tagged => tagged?,
            }
        }
        if let Some(dir) = dir {
            dir.remove_certificate(from.fingerprint, to.fingerprint)?;
        }
        let gone = self.scan_until(self.options.timeout, |scan| {
            let trusting = scan.replicas.iter().find_map(|replica| {
                Some((replica.address, replica.trusted.get(&from.fingerprint_text)?))
            });
            trusting.map_or(Ok(()), |(address, counters)| {
                Err(format!("http://{address} still trusts {} by {}", from.id, counters.file))
            })
        });
        gone.await.map_err(|waited| {
            let after = humantime::format_duration(self.options.timeout);
            Stop::new(
                format!("after {after}: {waited}"),
                "it is deleted once no server trusts it: remove it there, or see why its files are not read",
            )
        })?;
        self.display.wait(&format!("deletes {}", from.id));
        match self.plane.delete_certificate(&from.id).await {
            Err(error) if matches!(error.kind, ErrorKind::Conflict | ErrorKind::BadRequest) => {
                let users = self.users_of(&from.id).await?;
                let names: Vec<_> = users.iter().map(ToString::to_string).collect();
                let used_by = match names.as_slice() {
                    [] => "no stage that can be listed".to_owned(),
                    names => names.join(", "),
                };
                return Err(Stop::new(
                    format!("{error}; it is presented by {used_by}"),
                    "name these stages with --stage too",
                ));
            }
            deleted => deleted?,
        }
        self.display.finish(&format!("{} is deleted", from.id));
        Ok(())
    }

    /// Every stage of the account that presents it, named or not.
    async fn users_of(&self, id: &str) -> Result<Vec<StageName>, Stop> {
        let stages = read::all_stages(self.plane).await?;
        Ok(plan::unnamed(&stages, &[], id).into_iter().cloned().collect())
    }
}

//! The steps of a rotation, in their order.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::display::{Display, Step};
use super::plan::{self, Plan, PlanOptions, Rotation};
use super::replicas::{self, FleetScan};
use super::trust_dir::{TrustDir, parse_one};
use super::{Active, Options, Stop, read};
use crate::aws::control_plane::{ClientCertificate, Stage};
use crate::aws::{ControlPlane, ErrorKind, RETIRED, ROLLED_BACK, StageName, Tags};
use crate::trust::Fingerprint;

/// How often a replica that does not respond is asked before anything is generated.
const FIRST_SCANS: u32 = 3;

/// One run.
pub(crate) struct Engine<'a> {
    pub(super) options: &'a Options,
    pub(super) plane: &'a ControlPlane,
    pub(super) display: &'a Display,
    active: &'a Active,
}

/// The old or the new certificate of a rotation.
#[derive(Clone, Debug)]
pub(super) struct RotationCertificate {
    pub(super) id: String,
    pub(super) pem: String,
    pub(super) fingerprint: Fingerprint,
    pub(super) fingerprint_text: String,
    pub(super) is_retired: bool,
}

impl RotationCertificate {
    pub(super) fn of(certificate: &ClientCertificate) -> Result<Self, Stop> {
        let parsed = parse_one(&certificate.pem).ok_or_else(|| {
            Stop::new(
                format!("the PEM of {} in the account is no certificate", certificate.id),
                "check AWS_ENDPOINT_URL",
            )
        })?;
        let fingerprint = parsed.summary().fingerprint;
        Ok(Self {
            id: certificate.id.clone(),
            pem: certificate.pem.clone(),
            fingerprint,
            fingerprint_text: fingerprint.to_string(),
            is_retired: certificate.is_retired(),
        })
    }
}

impl<'a> Engine<'a> {
    pub(super) fn new(
        options: &'a Options,
        plane: &'a ControlPlane,
        display: &'a Display,
        active: &'a Active,
    ) -> Self {
        Self { options, plane, display, active }
    }

    pub(super) async fn run(&self) -> Result<ExitCode, Stop> {
        let dir = self.options.trust.as_ref();
        let dir = dir.map(|path| TrustDir::open(path, !self.options.dry_run)).transpose()?;
        self.display.start(Step::Plan, "reads the account and the replicas");
        let stages = self.named_stages().await?;
        let rotation = match self.plan(&stages).await? {
            Plan::Rotate(rotation) => rotation,
            nothing => return Ok(self.nothing_to_do(&nothing)),
        };
        let everywhere = read::all_stages(self.plane).await?;
        // Surplus is what no stage of the account presents.
        let rotation = self.plan_again(&stages, &everywhere, rotation).await?;
        let expired = rotation.to.as_ref().filter(|to| to.expires <= Some(SystemTime::now()));
        if let Some(to) = expired {
            return Err(Stop::new(
                format!("{} has expired: the stages cannot present it", to.id),
                "without --roll-back, rotate to a new one",
            ));
        }
        let from = RotationCertificate::of(&rotation.from)?;
        let is_presented =
            stages.iter().any(|stage| stage.client_certificate.as_ref() == Some(&from.id));
        if !is_presented && self.is_deleted(&from.id).await? {
            let presented = rotation.to.unwrap_or(rotation.from);
            return Ok(self.nothing_to_do(&Plan::NothingToDo { presented }));
        }
        if let Some(dir) = dir.as_ref().filter(|_| !from.is_retired) {
            // A roll-back may come before the new one was written.
            dir.check_removable(from.fingerprint, &from.id, rotation.is_roll_back)?;
        }
        let unnamed = plan::unnamed(&everywhere, &self.options.stages, &from.id);
        let unnamed: Vec<_> = unnamed.into_iter().cloned().collect();
        let replicas = self.check_replicas(is_presented.then_some(&from)).await?;
        self.show_plan(&rotation, &stages, &unnamed, replicas);
        if self.options.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        if rotation.is_roll_back {
            self.begin_roll_back(&rotation).await?;
        }
        let (to, surplus) = match &rotation.to {
            Some(to) => (RotationCertificate::of(to)?, rotation.surplus.clone()),
            None => {
                let presented = read::presented(&everywhere);
                let (to, lost) = self.generate(&rotation.from, &presented).await?;
                (to, lost.into_iter().chain(rotation.surplus.clone()).collect())
            }
        };
        self.trust(&to, is_presented.then_some(&from), dir.as_ref(), &surplus).await?;
        let is_switched =
            stages.iter().all(|stage| stage.client_certificate.as_ref() == Some(&to.id));
        if let Some(probe) = self.options.probe.as_ref().filter(|_| !is_switched) {
            self.try_it(probe, &to).await?;
        }
        self.switch_and_wait(&stages, &from, &to, &unnamed).await?;
        self.retire(&from, &to, dir.as_ref()).await?;
        self.show_done(&rotation, &from, &to);
        Ok(ExitCode::SUCCESS)
    }

    async fn named_stages(&self) -> Result<Vec<Stage>, Stop> {
        let mut stages = Vec::new();
        for name in &self.options.stages {
            let stage = self.plane.stage(name).await?;
            note_active(self.active, &stage);
            stages.push(stage);
        }
        Ok(stages)
    }

    fn plan_options(&self) -> PlanOptions {
        let Options { renew_before, roll_back, .. } = *self.options;
        PlanOptions { renew_before, roll_back, now: SystemTime::now() }
    }

    async fn plan(&self, stages: &[Stage]) -> Result<Plan, Stop> {
        let presented = read::presented(stages);
        let deadline = Instant::now() + read::SETTLE;
        loop {
            let certificates = read::certificates(self.plane).await?;
            let planned = plan::plan(stages, &certificates, &presented, &self.plan_options());
            match planned {
                // A list that lags does not hold what a stage presents.
                Err(stop) if !stop.is_usage && Instant::now() < deadline => {
                    sleep(Duration::from_secs(1)).await;
                }
                planned => return planned,
            }
        }
    }

    async fn plan_again(
        &self,
        stages: &[Stage],
        everywhere: &[Stage],
        first: Rotation,
    ) -> Result<Rotation, Stop> {
        if first.surplus.is_empty() {
            return Ok(first);
        }
        let certificates = read::certificates(self.plane).await?;
        let presented = read::presented(everywhere);
        match plan::plan(stages, &certificates, &presented, &self.plan_options())? {
            Plan::Rotate(rotation) => Ok(rotation),
            _ => Ok(Rotation { surplus: Vec::new(), ..first }),
        }
    }

    /// Asks for the certificate itself: the list may lag behind its deletion.
    async fn is_deleted(&self, id: &str) -> Result<bool, Stop> {
        for _ in 0..2 {
            match self.plane.certificate(id).await {
                Err(error) if error.kind == ErrorKind::NotFound => return Ok(true),
                found => found?,
            };
        }
        Ok(false)
    }

    /// Every replica must respond, and trust what the stages present.
    async fn check_replicas(&self, presented: Option<&RotationCertificate>) -> Result<usize, Stop> {
        let mut scans = 1;
        loop {
            let scan = self.scan().await;
            if scan.failures.is_empty() {
                let distrusts = presented.and_then(|side| {
                    scan.replicas.iter().find(|replica| !replica.trusts(&side.fingerprint_text))
                });
                return match (distrusts, presented) {
                    (Some(replica), Some(side)) => Err(Stop::new(
                        format!(
                            "http://{} does not trust {}, which is presented now",
                            replica.address, side.id
                        ),
                        "bring its trust files in step first",
                    )),
                    _ => Ok(scan.replicas.len()),
                };
            }
            if scans == FIRST_SCANS {
                return Err(not_responding(&scan));
            }
            scans += 1;
            sleep(Duration::from_secs(1).min(self.options.timeout)).await;
        }
    }

    /// Records the direction, and that the old certificate is wanted again.
    async fn begin_roll_back(&self, rotation: &Rotation) -> Result<(), Stop> {
        let Some(to) = &rotation.to else { return Ok(()) };
        if rotation.from.tag(ROLLED_BACK).is_none() {
            let tags = Tags::from([(ROLLED_BACK.to_owned(), to.id.clone())]);
            self.plane.tag_certificate(&rotation.from.id, &tags).await?;
        }
        if to.is_retired() {
            let tags = Tags::from([(RETIRED.to_owned(), crate::aws::NOT_RETIRED.to_owned())]);
            self.plane.tag_certificate(&to.id, &tags).await?;
        }
        Ok(())
    }

    async fn trust(
        &self,
        to: &RotationCertificate,
        from: Option<&RotationCertificate>,
        dir: Option<&TrustDir>,
        surplus: &[ClientCertificate],
    ) -> Result<(), Stop> {
        self.display.start(Step::Trust, &format!("every replica must trust {}", to.id));
        if let Some(dir) = dir {
            dir.add(&to.id, &to.pem)?;
        }
        for one in surplus {
            if let Some(dir) = dir {
                dir.remove_certificate(RotationCertificate::of(one)?.fingerprint, to.fingerprint)?;
            }
            self.plane.delete_certificate(&one.id).await?;
        }
        let trusted = self.scan_until(self.options.timeout, |scan| {
            for replica in &scan.replicas {
                let address = replica.address;
                if !replica.accepts(&to.fingerprint_text) {
                    return Err(format!("http://{address} does not trust {} yet", to.id));
                }
                if let Some(from) = from.filter(|from| !replica.trusts(&from.fingerprint_text)) {
                    return Err(format!("http://{address} does not trust {} any more", from.id));
                }
            }
            Ok(())
        });
        trusted.await.map_err(|waited| {
            Stop::new(
                format!("after {}: {waited}", humantime::format_duration(self.options.timeout)),
                "nothing is switched while one server would refuse: see its log and its trust path",
            )
        })?;
        self.display.finish(&format!("every replica trusts {}", to.id));
        Ok(())
    }

    pub(super) async fn scan(&self) -> FleetScan {
        replicas::scan(&self.options.replicas).await
    }

    /// Reads the replicas until all respond and `judge` succeeds; after `limit` returns what is
    /// missing.
    pub(super) async fn scan_until(
        &self,
        limit: Duration,
        mut judge: impl FnMut(&FleetScan) -> Result<(), String>,
    ) -> Result<(), String> {
        let end = Instant::now() + limit;
        loop {
            let scan = self.scan().await;
            let judged = match scan.failures.first() {
                // What the others report counts all the same.
                Some(failure) => judge(&scan).and(Err(format!("{failure} (it does not respond)"))),
                None => judge(&scan),
            };
            let Err(waits_for) = judged else { return Ok(()) };
            if Instant::now() >= end {
                return Err(waits_for);
            }
            self.display.wait(&waits_for);
            sleep(pause(limit)).await;
        }
    }

    /// The APIs of the named stages.
    pub(super) fn apis(&self) -> BTreeSet<String> {
        self.options.stages.iter().map(|name| name.api.clone()).collect()
    }

    pub(super) fn note_active(&self, stage: &Stage) {
        note_active(self.active, stage);
    }
}

/// The pause between two scans: long in a wait of hours, short in one of seconds.
pub(super) fn pause(limit: Duration) -> Duration {
    (limit / 100).clamp(Duration::from_millis(100), Duration::from_secs(2))
}

fn not_responding(scan: &FleetScan) -> Stop {
    Stop::new(
        format!("a replica does not respond: {}", scan.failures.join("; ")),
        "start it, or take it out of --replicas if it serves no requests",
    )
}

pub(super) fn lock(active: &Active) -> MutexGuard<'_, Vec<(StageName, Option<String>)>> {
    active.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn note_active(active: &Active, stage: &Stage) {
    let mut active = lock(active);
    let presented = stage.client_certificate.clone();
    match active.iter_mut().find(|(name, _)| *name == stage.name) {
        Some((_, id)) => *id = presented,
        None => active.push((stage.name.clone(), presented)),
    }
}

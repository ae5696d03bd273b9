//! The steps of a rotation, in their order.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::display::{Display, Step};
use super::plan::{self, Plan, Rotation, Wish};
use super::replicas::{self, Look};
use super::trust_dir::{TrustDir, parse_one};
use super::{Active, Options, Stop, read};
use crate::aws::control_plane::{ClientCertificate, Stage};
use crate::aws::{ControlPlane, ErrorKind, RETIRED, ROLLED_BACK, StageName, Tags};
use crate::trust::Fingerprint;

/// How often a replica that does not respond is asked before anything is generated.
const FIRST_LOOKS: u32 = 3;

/// One run.
pub(crate) struct Engine<'a> {
    pub(super) options: &'a Options,
    pub(super) plane: &'a ControlPlane,
    pub(super) display: &'a Display,
    active: &'a Active,
}

/// One of the two certificates.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) id: String,
    pub(super) pem: String,
    pub(super) fingerprint: Fingerprint,
    pub(super) fingerprint_text: String,
    pub(super) is_retired: bool,
}

impl Side {
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
        let from = Side::of(&rotation.from)?;
        let is_presented =
            stages.iter().any(|stage| stage.client_certificate.as_ref() == Some(&from.id));
        if !is_presented && self.is_deleted(&from.id).await? {
            let presented = rotation.to.unwrap_or(rotation.from);
            return Ok(self.nothing_to_do(&Plan::NothingToDo { presented }));
        }
        if let Some(dir) = dir.as_ref().filter(|_| !from.is_retired) {
            dir.check_removable(from.fingerprint, &from.id)?;
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
            Some(to) => (Side::of(to)?, rotation.surplus.clone()),
            None => self.generate(&rotation.from, &read::presented(&everywhere)).await?,
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

    fn wish(&self) -> Wish {
        let Options { renew_before, roll_back, .. } = *self.options;
        Wish { renew_before, roll_back, now: SystemTime::now() }
    }

    async fn plan(&self, stages: &[Stage]) -> Result<Plan, Stop> {
        let presented = read::presented(stages);
        let deadline = Instant::now() + read::SETTLE;
        loop {
            let certificates = read::certificates(self.plane).await?;
            let planned = plan::plan(stages, &certificates, &presented, &self.wish());
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
        match plan::plan(stages, &certificates, &presented, &self.wish())? {
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
    async fn check_replicas(&self, presented: Option<&Side>) -> Result<usize, Stop> {
        let mut looks = 1;
        loop {
            let look = self.look().await;
            if look.failures.is_empty() {
                let distrusts = presented.and_then(|side| {
                    look.replicas.iter().find(|replica| !replica.trusts(&side.fingerprint_text))
                });
                return match (distrusts, presented) {
                    (Some(replica), Some(side)) => Err(Stop::new(
                        format!(
                            "http://{} does not trust {}, which is presented now",
                            replica.address, side.id
                        ),
                        "bring its trust files in step first",
                    )),
                    _ => Ok(look.replicas.len()),
                };
            }
            if looks == FIRST_LOOKS {
                return Err(not_responding(&look));
            }
            looks += 1;
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
        to: &Side,
        from: Option<&Side>,
        dir: Option<&TrustDir>,
        surplus: &[ClientCertificate],
    ) -> Result<(), Stop> {
        self.display.start(Step::Trust, &format!("every replica must trust {}", to.id));
        if let Some(dir) = dir {
            dir.add(&to.id, &to.pem)?;
        }
        for one in surplus {
            if let Some(dir) = dir {
                dir.remove_certificate(Side::of(one)?.fingerprint, to.fingerprint)?;
            }
            self.plane.delete_certificate(&one.id).await?;
        }
        let wanted: Vec<_> = [Some(to), from].into_iter().flatten().collect();
        let trusted = self.look_until(self.options.timeout, |look| {
            for side in &wanted {
                if let Some(replica) =
                    look.replicas.iter().find(|one| !one.trusts(&side.fingerprint_text))
                {
                    return Err(format!(
                        "http://{} does not trust {} yet",
                        replica.address, side.id
                    ));
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

    pub(super) async fn look(&self) -> Look {
        replicas::look(&self.options.replicas).await
    }

    /// Looks until every replica responds and `judge` agrees; or else returns what it waited for.
    pub(super) async fn look_until(
        &self,
        limit: Duration,
        mut judge: impl FnMut(&Look) -> Result<(), String>,
    ) -> Result<(), String> {
        let end = Instant::now() + limit;
        loop {
            let look = self.look().await;
            let judged = match look.failures.first() {
                // What the others report counts all the same.
                Some(failure) => judge(&look).and(Err(format!("{failure} (it does not respond)"))),
                None => judge(&look),
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

    fn nothing_to_do(&self, plan: &Plan) -> ExitCode {
        let (line, object) = match plan {
            Plan::NothingToDo { presented } => {
                let days = days_left(presented);
                let line = format!("nothing to do: {} ends in {days} days", presented.id);
                (
                    line,
                    json!({"event": "nothing_to_do", "certificate": presented.id, "days_left": days}),
                )
            }
            _ => (
                "nothing to do: no rotation is unfinished".to_owned(),
                json!({"event": "nothing_to_do", "certificate": null, "days_left": null}),
            ),
        };
        self.display.report(&[line], &object);
        ExitCode::SUCCESS
    }

    fn show_plan(
        &self,
        rotation: &Rotation,
        stages: &[Stage],
        unnamed: &[StageName],
        replicas: usize,
    ) {
        let Rotation { from, to, is_roll_back, .. } = rotation;
        let days = days_left(from);
        let verb = if *is_roll_back { "roll back" } else { "replace" };
        let by = to.as_ref().map_or("a new certificate".to_owned(), |to| to.id.clone());
        let mut lines =
            vec![format!("plan: {verb} {}, which ends in {days} days, by {by}", from.id)];
        for stage in stages {
            let id = stage.client_certificate.as_deref().unwrap_or("no certificate");
            lines.push(format!("  {} presents {id}", stage.name));
        }
        let names: Vec<_> = unnamed.iter().map(ToString::to_string).collect();
        if !names.is_empty() {
            lines.push(format!(
                "  not named with --stage: {}: while they present {}, step 7 does not remove or delete it",
                names.join(", "),
                from.id
            ));
        }
        lines.push(format!("  replicas that respond: {replicas}"));
        let stages: Vec<_> = stages
            .iter()
            .map(|stage| json!({"stage": stage.name.to_string(), "certificate": stage.client_certificate}))
            .collect();
        let object = json!({
            "event": "plan", "action": if *is_roll_back { "roll_back" } else { "rotate" },
            "from": from.id, "to": to.as_ref().map(|to| &to.id), "days_left": days,
            "stages": stages, "not_named": names, "replicas": replicas,
        });
        self.display.report(&lines, &object);
    }

    fn show_done(&self, rotation: &Rotation, from: &Side, to: &Side) {
        let names: Vec<_> = self.options.stages.iter().map(ToString::to_string).collect();
        let line = format!("done: {} presents {}; {} is deleted", names.join(", "), to.id, from.id);
        let action = if rotation.is_roll_back { "roll_back" } else { "rotate" };
        let object = json!({"event": "done", "action": action, "from": from.id, "to": to.id});
        self.display.report(&[line], &object);
    }
}

fn days_left(certificate: &ClientCertificate) -> i64 {
    const DAY: u64 = 24 * 60 * 60;
    let days = |span: Duration| i64::try_from(span.as_secs() / DAY).unwrap_or(i64::MAX);
    let expires = certificate.expires.unwrap_or(SystemTime::UNIX_EPOCH);
    match expires.duration_since(SystemTime::now()) {
        Ok(left) => days(left),
        Err(past) => -days(past.duration()),
    }
}

/// Between two looks, so that a wait of hours takes few and one of seconds is exact.
pub(super) fn pause(limit: Duration) -> Duration {
    (limit / 100).clamp(Duration::from_millis(100), Duration::from_secs(2))
}

fn not_responding(look: &Look) -> Stop {
    Stop::new(
        format!("a replica does not respond: {}", look.failures.join("; ")),
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

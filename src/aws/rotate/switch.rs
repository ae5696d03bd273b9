//! Switching the stages, and waiting until the traffic has followed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Stop;
use super::display::Step;
use super::engine::{Engine, RotationCertificate, pause};
use super::track::{ApiTracker, QuietTracker};
use crate::aws::control_plane::Stage;
use crate::aws::{ErrorKind, StageName};

/// An API that used the old certificate within this time still uses it: connections outlive the
/// switch.
const RECENT: Duration = Duration::from_secs(10);
/// How often GetStage is read before UpdateStage is sent again.
const READS: u32 = 8;
const BETWEEN_READS: Duration = Duration::from_millis(300);
/// GetStage may lag longer than tests want to wait for traffic.
const SHORTEST_CONFIRMATION: Duration = Duration::from_secs(30);

/// The traffic of both certificates since the switch began.
struct Traffic {
    apis: BTreeSet<String>,
    to: ApiTracker,
    from: ApiTracker,
    /// An API that used the old one within this time still uses it.
    recent: Duration,
}

impl Traffic {
    /// The APIs that were not seen with the new one, or still use the old one.
    fn unsettled(&self, now: Instant) -> BTreeSet<String> {
        let is_settled =
            |api: &&String| self.to.is_seen(api) && !self.from.is_recent(api, self.recent, now);
        self.apis.iter().filter(|api| !is_settled(api)).cloned().collect()
    }

    /// The APIs for which setting the deployment again has changed nothing.
    fn stuck(&self, now: Instant) -> BTreeSet<String> {
        let is_stuck = |api: &&String| {
            !self.to.is_seen(api)
                && (!self.to.is_seen_at_all() || self.from.is_recent(api, self.recent, now))
        };
        self.apis.iter().filter(is_stuck).cloned().collect()
    }

    fn unseen(&self) -> Vec<&str> {
        self.apis.iter().filter(|api| !self.to.is_seen(api)).map(String::as_str).collect()
    }
}

impl Engine<'_> {
    /// Steps 5 and 6.
    pub(super) async fn switch_and_wait(
        &self,
        stages: &[Stage],
        from: &RotationCertificate,
        to: &RotationCertificate,
        unnamed: &[StageName],
    ) -> Result<(), Stop> {
        self.display.start(Step::Switch, &format!("the stages present {}", to.id));
        let mut traffic = Traffic {
            apis: self.apis(),
            to: ApiTracker::of(&to.fingerprint_text),
            from: ApiTracker::of(&from.fingerprint_text),
            recent: RECENT.min(self.options.switch_timeout / 4),
        };
        self.observe(&mut traffic).await;
        for stage in stages.iter().filter(|stage| stage.client_certificate.as_ref() != Some(&to.id))
        {
            self.switch(&stage.name, &to.id).await?;
        }
        // The tag records that both steps were taken.
        if from.is_retired {
            self.display.finish("the stages were switched before");
            return Ok(());
        }
        self.follow(&mut traffic, from, to).await?;
        self.display.finish(&format!("the stages present {}, and a replica has seen it", to.id));
        if !unnamed.is_empty() {
            self.display.start(Step::Retire, "checks the other stages");
            return Err(presented_elsewhere(unnamed, &from.id));
        }
        self.quiet(&mut traffic, from, to).await
    }

    async fn switch(&self, name: &StageName, id: &str) -> Result<(), Stop> {
        self.display.wait(&format!("sets {id} on {name}"));
        let end = Instant::now() + self.options.switch_timeout.max(SHORTEST_CONFIRMATION);
        loop {
            let updated = self.plane.set_stage_certificate(name, id).await;
            match updated {
                // A certificate that was just generated may not be known everywhere.
                Err(error)
                    if matches!(
                        error.kind,
                        ErrorKind::BadRequest | ErrorKind::NotFound | ErrorKind::Conflict
                    ) && Instant::now() < end =>
                {
                    sleep(Duration::from_secs(1)).await;
                    continue;
                }
                updated => updated?,
            }
            let mut confirmed = 0;
            for _ in 0..READS {
                let stage = self.plane.stage(name).await?;
                self.note_active(&stage);
                // A read that lags may show either.
                confirmed =
                    if stage.client_certificate.as_deref() == Some(id) { confirmed + 1 } else { 0 };
                if confirmed == 2 {
                    return Ok(());
                }
                sleep(BETWEEN_READS).await;
            }
            if Instant::now() >= end {
                return Err(Stop::new(
                    format!("GetStage does not confirm that {name} presents {id}"),
                    "see who else updates the stage, then run this again",
                ));
            }
        }
    }

    /// Waits until the traffic has followed; sets the deployments again where it has not.
    async fn follow(
        &self,
        traffic: &mut Traffic,
        from: &RotationCertificate,
        to: &RotationCertificate,
    ) -> Result<(), Stop> {
        if self.has_followed(traffic).await {
            return Ok(());
        }
        let unsettled = traffic.unsettled(Instant::now());
        for name in self.options.stages.iter().filter(|name| unsettled.contains(&name.api)) {
            let deployment = self.plane.stage(name).await?.deployment;
            if let Some(deployment) = deployment {
                self.display.wait(&format!("sets the deployment {deployment} of {name} again"));
                self.plane.set_stage_deployment(name, &deployment).await?;
            }
        }
        if self.has_followed(traffic).await {
            return Ok(());
        }
        let stuck = traffic.stuck(Instant::now());
        if stuck.is_empty() {
            return Ok(());
        }
        if self.options.deploy {
            for name in self.options.stages.iter().filter(|name| stuck.contains(&name.api)) {
                self.display.wait(&format!("deploys {name}"));
                let text = format!("portcullis rotate: {} replaces {}", to.id, from.id);
                match self.plane.create_deployment(name, &text).await {
                    // Whether it took effect shows in the traffic.
                    Err(error) if error.kind.is_ambiguous() => {}
                    created => created?,
                }
            }
            if self.has_followed(traffic).await || traffic.stuck(Instant::now()).is_empty() {
                return Ok(());
            }
        }
        Err(not_followed(&stuck, from, to, self.options.deploy))
    }

    /// Waits for `--switch-timeout` until every API is seen with the new certificate only.
    async fn has_followed(&self, traffic: &mut Traffic) -> bool {
        let end = Instant::now() + self.options.switch_timeout;
        loop {
            self.observe(traffic).await;
            let now = Instant::now();
            let unsettled: Vec<_> = traffic.unsettled(now).into_iter().collect();
            if unsettled.is_empty() {
                return true;
            }
            if now >= end {
                return false;
            }
            self.display
                .wait(&format!("waits for requests of {} with it alone", unsettled.join(", ")));
            sleep(pause(self.options.switch_timeout)).await;
        }
    }

    async fn observe(&self, traffic: &mut Traffic) {
        let scan = self.scan().await;
        let now = Instant::now();
        traffic.to.observe(&scan.replicas, now);
        traffic.from.observe(&scan.replicas, now);
    }

    async fn quiet(
        &self,
        traffic: &mut Traffic,
        from: &RotationCertificate,
        to: &RotationCertificate,
    ) -> Result<(), Stop> {
        let text = |duration: Duration| {
            humantime::format_duration(Duration::from_millis(
                u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            ))
        };
        let quiet_for = self.options.quiet_for;
        let start =
            format!("no replica may count a request with {} for {}", from.id, text(quiet_for));
        self.display.start(Step::Quiet, &start);
        let mut quiet = QuietTracker::of(&from.fingerprint_text);
        let end = Instant::now() + self.options.quiet_timeout;
        loop {
            let scan = self.scan().await;
            let now = Instant::now();
            let lasted = quiet.observe(&scan.replicas, now);
            traffic.to.observe(&scan.replicas, now);
            let unseen = traffic.unseen();
            let waits_for = match (scan.failures.first(), unseen.is_empty(), lasted >= quiet_for) {
                (Some(failure), ..) => format!("{failure} (it does not respond)"),
                (None, _, false) => format!("the last request with {} is too recent", from.id),
                (None, false, true) => {
                    format!(
                        "API {} has not been seen with {} since the switch",
                        unseen.join(", "),
                        to.id
                    )
                }
                (None, true, true) => {
                    self.display.finish(&format!(
                        "no request with {} for {}",
                        from.id,
                        text(quiet_for)
                    ));
                    return Ok(());
                }
            };
            if now >= end {
                return Err(Stop::new(
                    format!("not quiet after {}: {waits_for}", text(self.options.quiet_timeout)),
                    "both certificates stay trusted; run it again, it continues",
                ));
            }
            self.display.wait(&waits_for);
            sleep(pause(quiet_for)).await;
        }
    }
}

pub(super) fn presented_elsewhere(names: &[StageName], id: &str) -> Stop {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    Stop::new(
        format!("{id} stays trusted and is not deleted: {} presents it", names.join(", ")),
        "name these stages with --stage too",
    )
}

fn not_followed(
    apis: &BTreeSet<String>,
    from: &RotationCertificate,
    to: &RotationCertificate,
    has_deployed: bool,
) -> Stop {
    let apis: Vec<_> = apis.iter().map(String::as_str).collect();
    let apis = apis.join(", ");
    let reason = format!("no replica has seen a request of API {apis} with {}", to.id);
    let remedy = match has_deployed {
        true => format!(
            "see that the API has traffic and that --replicas names all servers; --roll-back has the \
             stages present {} again",
            from.id
        ),
        false => format!(
            "if the API has traffic, it needs a deployment: run it again with --deploy, which publishes \
             the API as it is being edited; --roll-back has the stages present {} again",
            from.id
        ),
    };
    Stop::new(reason, remedy)
}

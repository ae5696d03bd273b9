//! Decides which certificate replaces which, from the account alone: there is no other state.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::Stop;
use crate::aws::control_plane::{ClientCertificate, Stage};
use crate::aws::{REPLACES, ROLLED_BACK, StageName, is_retired};

/// Which certificate takes the place of which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rotation {
    /// The certificate that stages no longer present in the end.
    pub(crate) from: ClientCertificate,
    /// `None` until it is generated.
    pub(crate) to: Option<ClientCertificate>,
    /// The successor gives way to its predecessor.
    pub(crate) is_roll_back: bool,
    /// Successors that lost against another run, and that no stage presents.
    pub(crate) surplus: Vec<ClientCertificate>,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// The certificate is good for a while yet.
    NothingToDo {
        presented: ClientCertificate,
    },
    /// There is no rotation to roll back.
    NothingToRollBack,
    Rotate(Rotation),
}

/// The options that a plan depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanOptions {
    pub(crate) renew_before: Duration,
    pub(crate) roll_back: bool,
    pub(crate) now: SystemTime,
}

/// Decides what to do. `presented` are the ids that any stage of the account presents.
pub(crate) fn plan(
    stages: &[Stage],
    certificates: &[ClientCertificate],
    presented: &BTreeSet<String>,
    plan_options: &PlanOptions,
) -> Result<Plan, Stop> {
    let mut ids = BTreeSet::new();
    for stage in stages {
        ids.insert(presented_id(stage)?);
    }
    let account = Account { certificates, presented };
    let pair = match ids.iter().copied().collect::<Vec<_>>().as_slice() {
        [one] => account.pair_of(one)?,
        [one, other] => Some(account.pair(one, other).ok_or_else(|| different(stages))?),
        _ => return Err(different(stages)),
    };
    let Some((old, new)) = pair else {
        let id = ids.first().copied().unwrap_or_default();
        return account.without_pair(id, plan_options);
    };
    let is_rolled_back = new.tag(ROLLED_BACK).is_some() || plan_options.roll_back;
    let surplus = account.surplus(&old.id, Some(&new.id));
    let (from, to) = if is_rolled_back { (new, old) } else { (old, new) };
    Ok(Plan::Rotate(Rotation {
        from: from.clone(),
        to: Some(to.clone()),
        is_roll_back: is_rolled_back,
        surplus,
    }))
}

/// The successor that every run chooses: one that a stage presents, or else the first.
pub(crate) fn winner<'a>(
    successors: impl IntoIterator<Item = &'a ClientCertificate>,
    presented: &BTreeSet<String>,
) -> Option<&'a ClientCertificate> {
    let rank = |one: &ClientCertificate| {
        (
            !presented.contains(&one.id),
            one.created.unwrap_or(SystemTime::UNIX_EPOCH),
            one.id.clone(),
        )
    };
    successors.into_iter().min_by_key(|one| rank(one))
}

/// Generated certificates that replace this one and may still do so.
pub(crate) fn successors<'a>(
    certificates: &'a [ClientCertificate],
    id: &str,
) -> impl Iterator<Item = &'a ClientCertificate> {
    let replaces = move |one: &&ClientCertificate| one.tag(REPLACES) == Some(id);
    certificates.iter().filter(replaces).filter(|one| !one.is_retired())
}

struct Account<'a> {
    certificates: &'a [ClientCertificate],
    presented: &'a BTreeSet<String>,
}

impl<'a> Account<'a> {
    fn find(&self, id: &str) -> Option<&'a ClientCertificate> {
        self.certificates.iter().find(|one| one.id == id)
    }

    /// Two that stages present at once: one must replace the other.
    fn pair(
        &self,
        one: &str,
        other: &str,
    ) -> Option<(&'a ClientCertificate, &'a ClientCertificate)> {
        let (one, other) = (self.find(one)?, self.find(other)?);
        if other.tag(REPLACES) == Some(&one.id) {
            return Some((one, other));
        }
        (one.tag(REPLACES) == Some(&other.id)).then_some((other, one))
    }

    /// The unfinished rotation that the only presented certificate is a part of, as old and new.
    fn pair_of(
        &self,
        id: &str,
    ) -> Result<Option<(&'a ClientCertificate, &'a ClientCertificate)>, Stop> {
        let Some(own) = self.find(id) else {
            return Err(Stop::new(
                format!(
                    "the list of client certificates does not hold {id}, which a stage presents"
                ),
                "run it again: reads lag behind changes for seconds",
            ));
        };
        // An older rotation first.
        if let Some(old) = own.tag(REPLACES).and_then(|old| self.find(old)) {
            return Ok(Some((old, own)));
        }
        let rolled_back = self
            .certificates
            .iter()
            .find(|one| one.tag(REPLACES) == Some(id) && one.tag(ROLLED_BACK).is_some());
        let usable = successors(self.certificates, id).filter(|one| is_longer(one, own));
        Ok(rolled_back.or_else(|| winner(usable, self.presented)).map(|new| (own, new)))
    }

    fn without_pair(&self, id: &str, plan_options: &PlanOptions) -> Result<Plan, Stop> {
        let Some(own) = self.find(id) else { return Ok(Plan::NothingToRollBack) };
        if plan_options.roll_back {
            return match own.tag(REPLACES) {
                Some(old) => Err(Stop::new(
                    format!(
                        "{old}, which {id} replaced, is deleted: there is nothing to roll back to"
                    ),
                    "rotate to a new certificate instead: portcullis rotate with --renew-before 365d",
                )),
                None => Ok(Plan::NothingToRollBack),
            };
        }
        let left = own.expires.and_then(|expires| expires.duration_since(plan_options.now).ok());
        if left.is_some_and(|left| left > plan_options.renew_before) {
            return Ok(Plan::NothingToDo { presented: own.clone() });
        }
        let surplus = self.surplus(id, None);
        Ok(Plan::Rotate(Rotation { from: own.clone(), to: None, is_roll_back: false, surplus }))
    }

    fn surplus(&self, old: &str, keep: Option<&str>) -> Vec<ClientCertificate> {
        let found = successors(self.certificates, old);
        let is_surplus = |one: &&ClientCertificate| {
            Some(one.id.as_str()) != keep && !self.presented.contains(&one.id)
        };
        found.filter(is_surplus).cloned().collect()
    }
}

/// True if a successor outlives its predecessor: one that was left behind long ago does not.
fn is_longer(successor: &ClientCertificate, own: &ClientCertificate) -> bool {
    successor.expires > own.expires
}

fn presented_id(stage: &Stage) -> Result<&str, Stop> {
    if let Some(arn) = stage.acm_arn() {
        return Err(Stop::usage(
            format!("{} presents {arn}: ACM renews it; trust its CA with --trust-ca", stage.name),
            "leave the stage out",
        ));
    }
    stage.client_certificate.as_deref().ok_or_else(|| {
        Stop::usage(
            format!("{} presents no client certificate", stage.name),
            "choose one for the stage first: aws apigateway generate-client-certificate, trust it \
             on every server, then update-stage",
        )
    })
}

fn different(stages: &[Stage]) -> Stop {
    let shown = |stage: &Stage| {
        format!("{} presents {}", stage.name, stage.client_certificate.as_deref().unwrap_or("none"))
    };
    let shown: Vec<_> = stages.iter().map(shown).collect();
    Stop::usage(
        format!("the stages present unrelated certificates: {}", shown.join(", ")),
        "run one rotation for the stages of each certificate",
    )
}

/// The stages that present this certificate and are not named.
pub(crate) fn unnamed<'a>(
    stages: &'a [Stage],
    named: &[StageName],
    id: &str,
) -> Vec<&'a StageName> {
    let presents = |stage: &&Stage| stage.client_certificate.as_deref() == Some(id);
    let names = stages.iter().filter(presents).map(|stage| &stage.name);
    names.filter(|name| !named.contains(name)).collect()
}

impl ClientCertificate {
    pub(crate) fn tag(&self, key: &str) -> Option<&str> {
        self.tags.as_ref()?.get(key).map(String::as_str)
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.tags.as_ref().is_some_and(is_retired)
    }
}

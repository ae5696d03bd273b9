//! Selects the client certificates that a fleet trusts, from the account and the flags.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::failure::{Failure, Kind};
use crate::aws::control_plane::ClientCertificate;
use crate::aws::{CallError, ControlPlane, ErrorKind, REPLACES, StageName, Tags, is_retired};

/// What `--stage`, `--tag`, `--id` and `--all` ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selector {
    Stage(StageName),
    Tag { key: String, value: String },
    Id(String),
    All,
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage(name) => write!(f, "--stage {name}"),
            Self::Tag { key, value } => write!(f, "--tag {key}={value}"),
            Self::Id(id) => write!(f, "--id {id}"),
            Self::All => write!(f, "--all"),
        }
    }
}

/// What one poll read from the account.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// By id; with tags, unless they cannot be read yet.
    certificates: BTreeMap<String, ClientCertificate>,
    /// What each named stage presents; `None` for a stage that does not exist.
    stages: BTreeMap<StageName, Option<Presented>>,
    /// Ids that are missing from the complete list, and that NotFound confirms.
    not_found: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Presented {
    Nothing,
    Certificate(String),
    Acm(String),
}

impl Account {
    /// Reads the complete list, the named stages, what the list lacks of both, and tags.
    pub(super) async fn read(
        plane: &ControlPlane,
        selectors: &[Selector],
        in_manifest: &BTreeSet<String>,
    ) -> Result<Self, Failure> {
        let list = plane.list_certificates().await?;
        if list.is_empty() {
            let asked: Vec<_> = selectors.iter().map(ToString::to_string).collect();
            let asked = asked.join(" ");
            return Err(Failure::new(
                Kind::EmptyList,
                format!("the account lists no client certificate: nothing is found for {asked}"),
                "check the region and the account, or generate one",
            ));
        }
        let has_tags = list.iter().any(|certificate| certificate.tags.is_some());
        let mut account = Self::default();
        for mut certificate in list {
            // Where the list carries tags, an item without them has none.
            if has_tags {
                certificate.tags.get_or_insert_default();
            }
            account.certificates.insert(certificate.id.clone(), certificate);
        }
        let listed: BTreeSet<_> = account.certificates.keys().cloned().collect();
        let mut asked: BTreeSet<String> = BTreeSet::new();
        for selector in selectors {
            match selector {
                Selector::Id(id) => drop(asked.insert(id.clone())),
                Selector::Stage(name) => asked.extend(account.read_stage(plane, name).await?),
                Selector::Tag { .. } | Selector::All => {}
            }
        }
        // A missing certificate counts only if the list is of the manifest's account.
        if in_manifest.iter().any(|id| listed.contains(id)) {
            asked.extend(in_manifest.iter().cloned());
        }
        for id in asked.difference(&listed) {
            account.read_unlisted(plane, id).await?;
        }
        account.read_tags(plane).await?;
        Ok(account)
    }

    async fn read_stage(
        &mut self,
        plane: &ControlPlane,
        name: &StageName,
    ) -> Result<Option<String>, CallError> {
        let stage = match plane.stage(name).await {
            Err(error) if error.kind == ErrorKind::NotFound => None,
            stage => Some(stage?),
        };
        let presented = stage.map(|stage| match (stage.acm_arn(), &stage.client_certificate) {
            (Some(arn), _) => Presented::Acm(arn.to_owned()),
            (None, Some(id)) => Presented::Certificate(id.clone()),
            (None, None) => Presented::Nothing,
        });
        let id = match &presented {
            Some(Presented::Certificate(id)) => Some(id.clone()),
            _ => None,
        };
        self.stages.insert(name.clone(), presented);
        Ok(id)
    }

    /// Lists lag behind: only NotFound for the id itself means that it does not exist.
    async fn read_unlisted(&mut self, plane: &ControlPlane, id: &str) -> Result<(), CallError> {
        match plane.certificate(id).await {
            Ok(certificate) => drop(self.certificates.insert(id.to_owned(), certificate)),
            Err(error) if error.kind == ErrorKind::NotFound => {
                self.not_found.insert(id.to_owned());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn read_tags(&mut self, plane: &ControlPlane) -> Result<(), CallError> {
        for certificate in self.certificates.values_mut().filter(|found| found.tags.is_none()) {
            match plane.certificate_tags(&certificate.id).await {
                Ok(tags) => certificate.tags = Some(tags),
                // Just made or just deleted. Without tags nothing is decided about it.
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn tags(&self, id: &str) -> Option<&Tags> {
        self.certificates.get(id)?.tags.as_ref()
    }

    fn has_tag(&self, id: &str, key: &str, value: &str) -> bool {
        self.tags(id).and_then(|tags| tags.get(key)).is_some_and(|found| found == value)
    }

    fn is_retired(&self, id: &str) -> bool {
        self.tags(id).is_some_and(is_retired)
    }

    fn presented(&self) -> impl Iterator<Item = &str> {
        self.stages.values().filter_map(|presented| match presented {
            Some(Presented::Certificate(id)) => Some(id.as_str()),
            _ => None,
        })
    }

    /// The certificate that a stage presents, its successors and its predecessor.
    fn around(&self, presented: &str) -> BTreeSet<String> {
        let predecessor = self.tags(presented).and_then(|tags| tags.get(REPLACES));
        let is_near =
            |id: &&String| predecessor == Some(*id) || self.has_tag(id, REPLACES, presented);
        let near = self.certificates.keys().filter(is_near).filter(|id| !self.is_retired(id));
        near.cloned().chain([presented.to_owned()]).collect()
    }

    fn ids_for(&self, selector: &Selector) -> Result<BTreeSet<String>, Failure> {
        let all = || self.certificates.keys().filter(|id| !self.is_retired(id));
        match selector {
            Selector::All => Ok(all().cloned().collect()),
            Selector::Tag { key, value } => {
                Ok(all().filter(|id| self.has_tag(id, key, value)).cloned().collect())
            }
            Selector::Id(id) if self.certificates.contains_key(id) => {
                Ok(all().filter(|found| *found == id).cloned().collect())
            }
            Selector::Id(_) => Err(Failure::new(
                Kind::Unknown,
                format!("{selector}: there is no such client certificate"),
                "check the id, the region and the account",
            )),
            Selector::Stage(name) => match self.stages.get(name).and_then(Option::as_ref) {
                Some(Presented::Certificate(id)) if self.certificates.contains_key(id) => {
                    Ok(self.around(id))
                }
                Some(Presented::Certificate(id)) => Err(Failure::new(
                    Kind::Unknown,
                    format!("{selector} presents {id}, which cannot be read yet"),
                    "it is tried again; reads lag behind changes for seconds",
                )),
                Some(Presented::Acm(arn)) => Err(Failure::new(
                    Kind::Acm,
                    format!("{selector} presents {arn}: ACM renews it"),
                    "trust its CA with --trust-ca",
                )),
                Some(Presented::Nothing) => Err(Failure::new(
                    Kind::Unknown,
                    format!("{selector} presents no client certificate"),
                    "set one on the stage, or select by --tag, --id or --all",
                )),
                None => Err(Failure::new(
                    Kind::Unknown,
                    format!("{selector}: there is no such stage"),
                    "check the API's id, the stage's name, the region and the account",
                )),
            },
        }
    }

    /// What these selectors select of the account.
    pub(super) fn select(self, selectors: &[Selector]) -> Selection {
        let (mut ids, mut failures) = (BTreeSet::new(), Vec::new());
        for selector in selectors {
            match self.ids_for(selector) {
                Ok(found) => ids.extend(found),
                Err(failure) => failures.push(failure),
            }
        }
        // A stage needs the certificate that it presents, whatever its tags are.
        ids.extend(
            self.presented().filter(|id| self.certificates.contains_key(*id)).map(str::to_owned),
        );
        let state = |id: &String| match self.certificates.get(id) {
            _ if self.not_found.contains(id) => UnselectedState::NotFound,
            Some(found) if found.tags.is_some() && self.is_retired(id) => UnselectedState::Retired,
            Some(found) if found.tags.is_some() => UnselectedState::Unselected,
            _ => UnselectedState::Unclear,
        };
        let known = self.certificates.keys().chain(&self.not_found);
        let unselected_states =
            known.filter(|id| !ids.contains(*id)).map(|id| (id.clone(), state(id))).collect();
        let selected =
            self.certificates.into_values().filter(|found| ids.contains(&found.id)).collect();
        Selection { selected, unselected_states, failures }
    }
}

/// The result of a poll, before the disk is read.
#[derive(Debug)]
pub(super) struct Selection {
    pub(super) selected: Vec<ClientCertificate>,
    /// What is known of ids that are not selected; an id without an entry is unclear.
    pub(super) unselected_states: BTreeMap<String, UnselectedState>,
    /// Selectors that select nothing. While there is one, nothing is removed.
    pub(super) failures: Vec<Failure>,
}

/// What is known of a certificate that is not selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnselectedState {
    Unselected,
    Retired,
    NotFound,
    /// Reads contradict each other, or the list may be another account's.
    Unclear,
}

#[cfg(test)]
#[path = "selection_tests.rs"]
mod tests;

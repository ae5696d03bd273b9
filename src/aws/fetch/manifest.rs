//! What `fetch` wrote into a directory, from where, and what it knows of each certificate.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::directory::Directory;
use super::failure::{Failure, Kind};
use super::selection::UnselectedState;

/// The manifest's name in the directory.
const FILE: &str = ".portcullis-fetch.json";
const VERSION: u32 = 1;
/// How many polls in a row must not find a certificate before it counts as deleted.
const POLLS_UNTIL_DELETED: u32 = 2;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    version: u32,
    region: String,
    endpoint: String,
    pub(super) certificates: BTreeMap<String, Entry>,
}

/// What is known of a file `<id>.pem`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// SHA-256 of the certificate in the file.
    pub(super) fingerprint: String,
    /// Seconds since 1970 at which it was first seen to be no longer selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unselected_since: Option<u64>,
    /// How many polls in a row found that it does not exist.
    #[serde(default, skip_serializing_if = "is_zero")]
    polls_not_found: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Why a file is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    Retired,
    Deleted,
    Unselected,
}

impl Removal {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Retired => "retired",
            Self::Deleted => "deleted",
            Self::Unselected => "unselected",
        }
    }
}

impl Entry {
    pub(super) fn new(fingerprint: String) -> Self {
        Self { fingerprint, unselected_since: None, polls_not_found: 0 }
    }

    /// Records what a poll found of a certificate that is not selected; returns the reason to
    /// remove it now, if any.
    pub(super) fn observe(
        &mut self,
        state: UnselectedState,
        now: SystemTime,
        keep_for: Duration,
    ) -> Option<Removal> {
        if state != UnselectedState::NotFound {
            self.polls_not_found = 0;
        }
        match state {
            UnselectedState::Unclear => None,
            UnselectedState::Retired => Some(Removal::Retired),
            UnselectedState::NotFound => {
                self.polls_not_found = self.polls_not_found.saturating_add(1);
                (self.polls_not_found >= POLLS_UNTIL_DELETED).then_some(Removal::Deleted)
            }
            UnselectedState::Unselected => {
                let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                // A clock that was set back does not make it stay for longer than --keep-for.
                let since = self.unselected_since.filter(|since| *since <= now).unwrap_or(now);
                self.unselected_since = Some(since);
                (now - since >= keep_for.as_secs()).then_some(Removal::Unselected)
            }
        }
    }
}

impl Manifest {
    fn read_any(directory: &Directory) -> Result<Option<Self>, Failure> {
        let path = Self::path(directory);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::disk(&path, &error)),
        };
        let found: Self = serde_json::from_slice(&bytes).map_err(|error| {
            let text = format!("{}: not a manifest of fetch: {error}", path.display());
            let remedy = "remove it; files that hold exactly a selected certificate are adopted";
            Failure::new(Kind::Disk, text, remedy)
        })?;
        if found.version != VERSION {
            let text = format!("{}: version {} is not known", path.display(), found.version);
            return Err(Failure::new(Kind::Disk, text, "use the portcullis that wrote it"));
        }
        Ok(Some(found))
    }

    /// Reads it; a directory without one has an empty one of this region and endpoint.
    pub(super) fn read(
        directory: &Directory,
        region: &str,
        endpoint: &str,
    ) -> Result<Self, Failure> {
        let path = Self::path(directory);
        let Some(found) = Self::read_any(directory)? else {
            let (region, endpoint) = (region.to_owned(), endpoint.to_owned());
            return Ok(Self { version: VERSION, region, endpoint, certificates: BTreeMap::new() });
        };
        // The endpoint is known after the first call only.
        if found.region != region || !["", found.endpoint.as_str()].contains(&endpoint) {
            let text = format!(
                "{} is of {} at {}, and this is {region} at {endpoint}: nothing is changed",
                path.display(),
                found.region,
                found.endpoint,
            );
            let remedy = "use one --into for each account and region, or remove the manifest";
            return Err(Failure::new(Kind::Elsewhere, text, remedy).and_final());
        }
        Ok(found)
    }

    pub(super) fn write(&self, directory: &Directory) -> Result<(), Failure> {
        let path = Self::path(directory);
        let written = serde_json::to_vec_pretty(self)
            .map_err(io::Error::other)
            .and_then(|json| directory.replace(&path, &[&json, b"\n".as_slice()].concat()));
        written.map_err(|error| Failure::disk(&path, &error))
    }

    pub(super) fn ids(&self) -> BTreeSet<String> {
        self.certificates.keys().cloned().collect()
    }

    fn path(directory: &Directory) -> PathBuf {
        directory.path().join(FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(100);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn entry() -> Entry {
        Entry::new("ab".to_owned())
    }

    #[test]
    fn unselected_certificate_stays_for_keep_for() {
        let mut entry = entry();
        assert_eq!(entry.observe(UnselectedState::Unselected, at(0), KEEP), None);
        assert_eq!(entry.observe(UnselectedState::Unclear, at(50), KEEP), None);
        assert_eq!(entry.observe(UnselectedState::Unselected, at(99), KEEP), None);
        assert_eq!(
            entry.observe(UnselectedState::Unselected, at(100), KEEP),
            Some(Removal::Unselected)
        );
    }

    #[test]
    fn clock_that_is_set_back_starts_keep_for_again() {
        let mut entry = entry();
        assert_eq!(entry.observe(UnselectedState::Unselected, at(90), KEEP), None);
        assert_eq!(entry.observe(UnselectedState::Unselected, at(0), KEEP), None);
        assert_eq!(
            entry.observe(UnselectedState::Unselected, at(100), KEEP),
            Some(Removal::Unselected)
        );
    }

    #[test]
    fn deleted_certificate_goes_after_two_polls_in_a_row() {
        let mut entry = entry();
        assert_eq!(entry.observe(UnselectedState::NotFound, at(0), KEEP), None);
        assert_eq!(entry.observe(UnselectedState::Unselected, at(1), KEEP), None);
        assert_eq!(entry.observe(UnselectedState::NotFound, at(2), KEEP), None);
        assert_eq!(entry.observe(UnselectedState::NotFound, at(3), KEEP), Some(Removal::Deleted));
    }

    #[test]
    fn retired_certificate_goes_at_once() {
        assert_eq!(entry().observe(UnselectedState::Retired, at(0), KEEP), Some(Removal::Retired));
    }
}

//! `portcullis fetch`: keeps a directory of trusted certificates in step with an account.
//!
//! A poll reads the account completely ([`selection`]), then changes the disk: it writes what is
//! selected, and removes what the [`manifest`] lists and is retired, deleted, or unselected for
//! `--keep-for`. A poll that fails changes nothing; one in which a selector selects nothing adds and does
//! not remove. The server notices the change by itself.
//!
//! # Events
//!
//! | event | level | when | fields |
//! |---|---|---|---|
//! | `certificate_written` | info | a selected certificate is new on disk | `id`, `file`, `fingerprint`, `not_after` |
//! | `certificate_adopted` | info | a file that was there holds exactly a selected certificate | `id`, `file`, `fingerprint`, `not_after` |
//! | `certificate_removed` | info | a file was removed | `id`, `file`, `reason` (`retired`, `deleted`, `unselected`) |
//! | `certificate_kept` | warn | a file would be removed, and is the last that is valid; logged once | `id`, `file`, `reason`, `remedy` |
//! | `fetched` | info | a poll succeeded: the first, each that changed the disk, each after a failure | `certificates`, `written`, `removed` |
//! | `fetch_failed` | error | a poll failed, or a selector selects nothing | `kind`, `error`, `remedy` |
//! | `fetch_stopped` | info | SIGTERM or SIGINT ends the daemon | |

pub(crate) mod daemon;
mod directory;
mod failure;
mod manifest;
pub(crate) mod metrics;
mod selection;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

pub(crate) use directory::Directory;
pub(crate) use failure::{Failure, Kind};
pub(crate) use selection::Selector;

use directory::{Content, parse};
use manifest::{Entry, Manifest, Removal};
use selection::{Account, Selection};

use super::ControlPlane;
use super::control_plane::ClientCertificate;
use crate::trust::{Certificate, rfc3339};

/// What is fetched, from where, into what.
#[derive(Debug)]
pub(crate) struct Fetcher {
    plane: ControlPlane,
    selectors: Vec<Selector>,
    directory: Directory,
    keep_for: Duration,
    /// Those that are kept as the last valid ones, and logged.
    kept: BTreeSet<String>,
}

/// What a poll did.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) certificates: usize,
    pub(crate) written: usize,
    pub(crate) removed: usize,
    /// What the poll could not do.
    pub(crate) failures: Vec<Failure>,
}

/// A selected certificate whose PEM text holds what it should.
struct Selected {
    id: String,
    file: PathBuf,
    certificate: Certificate,
    pem: String,
}

/// A file that is to be removed.
struct Candidate {
    id: String,
    file: PathBuf,
    reason: Removal,
    content: Content,
}

impl Fetcher {
    pub(crate) fn new(
        plane: ControlPlane,
        selectors: Vec<Selector>,
        directory: Directory,
        keep_for: Duration,
    ) -> Self {
        Self { plane, selectors, directory, keep_for, kept: BTreeSet::new() }
    }

    /// Reads the account and brings the directory in step with it.
    ///
    /// # Errors
    /// The account cannot be read completely, or the disk cannot be written.
    pub(crate) async fn poll(&mut self) -> Result<Report, Failure> {
        self.directory.check()?;
        let known = self.manifest()?.ids();
        let account = Account::read(&self.plane, &self.selectors, &known).await?;
        let manifest = self.manifest()?;
        self.apply(account.select(&self.selectors), manifest, SystemTime::now())
    }

    fn manifest(&self) -> Result<Manifest, Failure> {
        Manifest::read(&self.directory, self.plane.region(), self.plane.endpoint())
    }

    fn apply(
        &mut self,
        selection: Selection,
        mut manifest: Manifest,
        now: SystemTime,
    ) -> Result<Report, Failure> {
        let before = manifest.clone();
        let Selection { selected, unselected_states, mut failures } = selection;
        let mut report = Report::default();
        let mut ids = BTreeSet::new();
        for found in selected {
            ids.insert(found.id.clone());
            match self.checked(found) {
                Ok(selected) => match self.write(&selected, &mut manifest) {
                    Ok(is_new) => report.written += usize::from(is_new),
                    Err(failure) => failures.push(failure),
                },
                Err(failure) => failures.push(failure),
            }
        }
        if ids.is_empty() && failures.is_empty() {
            let text = "no client certificate of the account is selected: nothing is changed";
            let remedy = "check --stage, --tag and --id against the account";
            return Err(Failure::new(Kind::NothingSelected, text, remedy));
        }
        // What is new is recorded before anything is removed.
        if manifest != before {
            manifest.write(&self.directory)?;
        }
        if failures.is_empty() {
            let before = manifest.clone();
            let mut candidates = Vec::new();
            for (id, entry) in &mut manifest.certificates {
                let Some(state) = unselected_states.get(id).filter(|_| !ids.contains(id)) else {
                    continue;
                };
                if let Some(reason) = entry.observe(*state, now, self.keep_for) {
                    let file = self.directory.file_of(id)?;
                    let content = self.directory.content(&file)?;
                    candidates.push(Candidate { id: id.clone(), file, reason, content });
                }
            }
            report.removed = self.remove(candidates, &mut manifest, now)?;
            if manifest != before {
                manifest.write(&self.directory)?;
            }
        }
        report.certificates = manifest.certificates.len();
        report.failures = failures;
        Ok(report)
    }

    /// Parses the PEM text before it is written to a trust file.
    fn checked(&self, found: ClientCertificate) -> Result<Selected, Failure> {
        let file = self.directory.file_of(&found.id)?;
        let Some(certificate) = parse(found.pem.as_bytes()) else {
            let text = format!("{}: the API returns no certificate that can be trusted", found.id);
            return Err(Failure::new(Kind::BadCertificate, text, "check the endpoint"));
        };
        // The API's text has CR LF and no final newline, so that two of them cannot be joined.
        let lines = found.pem.lines().map(str::trim).filter(|line| !line.is_empty());
        let pem = lines.fold(String::new(), |text, line| text + line + "\n");
        Ok(Selected { id: found.id, file, certificate, pem })
    }

    /// Writes or adopts a file; returns whether it is new.
    fn write(&self, selected: &Selected, manifest: &mut Manifest) -> Result<bool, Failure> {
        let Selected { id, file, certificate, pem } = selected;
        let fingerprint = certificate.summary().fingerprint;
        let not_after = rfc3339(certificate.summary().validity.not_after);
        let content = self.directory.content(file)?;
        let is_same = content.fingerprint() == Some(fingerprint);
        let is_known = manifest.certificates.contains_key(id);
        if !is_same && !is_known && !matches!(content, Content::Nothing) {
            let text = format!("{}: fetch did not write it, and it differs", file.display());
            return Err(Failure::new(Kind::ForeignFile, text, "move it out of the way"));
        }
        if !is_same {
            let written = self.directory.replace(file, pem.as_bytes());
            written.map_err(|error| Failure::disk(file, &error))?;
            let file = file.display();
            info!(id, %file, %fingerprint, not_after, "certificate_written");
        } else if !is_known {
            let file = file.display();
            info!(id, %file, %fingerprint, not_after, "certificate_adopted");
        }
        manifest.certificates.insert(id.clone(), Entry::new(fingerprint.to_string()));
        Ok(!is_same)
    }

    /// Removes files, but never the last one that is valid now; returns how many.
    fn remove(
        &mut self,
        candidates: Vec<Candidate>,
        manifest: &mut Manifest,
        now: SystemTime,
    ) -> Result<usize, Failure> {
        let goes = |id: &String| candidates.iter().any(|candidate| candidate.id == *id);
        let mut stays_valid = false;
        for id in manifest.certificates.keys().filter(|id| !goes(id)) {
            let content = self.directory.content(&self.directory.file_of(id)?)?;
            stays_valid |= content.valid_until(now).is_some();
        }
        let valid = candidates.iter().filter_map(|candidate| {
            candidate.content.valid_until(now).map(|until| (until, candidate.id.clone()))
        });
        let last = valid.max().filter(|_| !stays_valid).map(|(_, id)| id);
        self.kept.retain(|id| Some(id) == last.as_ref());
        let mut removed = 0;
        for Candidate { id, file, reason, content } in candidates {
            let (shown, reason) = (file.display(), reason.as_str());
            if last.as_ref() == Some(&id) {
                if self.kept.insert(id.clone()) {
                    let remedy = "it is the last valid certificate here: select another one";
                    warn!(id, file = %shown, reason, remedy, "certificate_kept");
                }
                continue;
            }
            let recorded = manifest.certificates.remove(&id);
            let is_own = content.fingerprint().map(|found| found.to_string())
                == recorded.map(|entry| entry.fingerprint);
            if is_own {
                self.directory.remove_if_there(&file)?;
                info!(id, file = %shown, reason, "certificate_removed");
                removed += 1;
            } else if !matches!(content, Content::Nothing) {
                let remedy = "it no longer holds what fetch wrote: remove it by hand";
                warn!(id, file = %shown, reason, remedy, "certificate_kept");
            }
        }
        Ok(removed)
    }

    /// True if the directory holds a certificate that is valid now, so that a server can start.
    pub(crate) fn is_usable(&self) -> bool {
        let now = SystemTime::now();
        let ids = self.manifest().map(|manifest| manifest.ids()).unwrap_or_default();
        ids.iter().any(|id| {
            let content = self.directory.file_of(id).and_then(|file| self.directory.content(&file));
            content.is_ok_and(|content| content.valid_until(now).is_some())
        })
    }
}

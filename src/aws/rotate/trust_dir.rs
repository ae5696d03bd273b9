//! The trust directory that `rotate --trust` writes.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Stop;
use crate::trust::{Certificate, Fingerprint, pem, unix_time};

const LOCK: &str = ".portcullis-rotate.lock";
/// One name, so that a run that was killed leaves at most one behind, and the next one removes it.
const TEMPORARY: &str = ".portcullis-rotate.tmp";

/// A directory that no other rotation writes while this value lives.
#[derive(Debug)]
pub(crate) struct TrustDir {
    path: PathBuf,
    _lock: Option<File>,
}

/// A file that holds a certificate.
#[derive(Debug)]
struct TrustFileContent {
    path: PathBuf,
    certificates: Vec<Certificate>,
    /// It holds something that is no certificate, or is broken.
    has_more: bool,
}

impl TrustDir {
    pub(crate) fn open(path: &Path, takes_lock: bool) -> Result<Self, Stop> {
        let shown = path.display();
        if !path.is_dir() {
            let what = if path.exists() { "is not a directory" } else { "does not exist" };
            return Err(Stop::usage(
                format!("--trust {shown} {what}"),
                "name the directory that the servers read with --trust",
            ));
        }
        // A dry run leaves no trace.
        if !takes_lock {
            return Ok(Self { path: path.to_owned(), _lock: None });
        }
        let lock_path = path.join(LOCK);
        let lock = File::options().create(true).write(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(|error| failed(&lock_path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Stop::new(
                    format!("another rotation writes {shown}"),
                    "wait until it ends, or stop it",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(failed(&lock_path, &error)),
        }
        let dir = Self { path: path.to_owned(), _lock: Some(lock) };
        dir.remove(&dir.path.join(TEMPORARY))?;
        Ok(dir)
    }

    /// Writes a certificate beside the others, unless a file holds it already.
    pub(crate) fn add(&self, id: &str, text: &str) -> Result<(), Stop> {
        let certificate = parse_one(text)
            .ok_or_else(|| Stop::new(format!("the PEM of {id} is no certificate"), "try again"))?;
        let fingerprint = certificate.summary().fingerprint;
        if !self.holders(fingerprint)?.is_empty() {
            return Ok(());
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let path = self.path.join(format!("{id}.pem"));
        if id.is_empty() || !id.chars().all(is_plain) || path.exists() {
            return Err(Stop::new(
                format!("{} exists and holds something else", path.display()),
                "move it away",
            ));
        }
        // The API's text has CR LF and no final newline, which breaks `cat a.pem b.pem`.
        let lines: Vec<_> = text.trim().lines().collect();
        self.write(&path, &format!("{}\n", lines.join("\n"))).map_err(|error| failed(&path, &error))
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let temporary = self.path.join(TEMPORARY);
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        // Certificates are public, and the server may run as another user.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(&self.path)?.sync_all()
    }

    /// Checks that a certificate can be removed later: its files hold nothing else. Unless
    /// `may_be_absent`, there is such a file.
    pub(crate) fn check_removable(
        &self,
        fingerprint: Fingerprint,
        id: &str,
        may_be_absent: bool,
    ) -> Result<(), Stop> {
        let holders = self.holders(fingerprint)?;
        if holders.is_empty() && !may_be_absent {
            let dir = self.path.display();
            return Err(Stop::new(
                format!("no file in {dir} holds {id}, which could not be removed later"),
                "name with --trust the directory that the servers trust it from, or use \
                 --fleet-fetches",
            ));
        }
        match holders.iter().find(|holder| holder.has_others(fingerprint)) {
            Some(holder) => Err(not_edited(holder)),
            None => Ok(()),
        }
    }

    /// Removes the files of a certificate, if another one that is valid now stays.
    pub(crate) fn remove_certificate(
        &self,
        fingerprint: Fingerprint,
        stays: Fingerprint,
    ) -> Result<(), Stop> {
        let holders = self.holders(fingerprint)?;
        if holders.is_empty() {
            return Ok(());
        }
        let now = unix_time(SystemTime::now());
        let is_valid = |holder: &TrustFileContent| {
            let own = holder.certificates.iter();
            own.map(Certificate::summary)
                .any(|own| own.fingerprint == stays && own.validity.contains(now))
        };
        if fingerprint == stays || !self.holders(stays)?.iter().any(is_valid) {
            return Err(Stop::new(
                format!("{} would hold no valid certificate any more", self.path.display()),
                "run this again: it writes the certificate that the stages present",
            ));
        }
        for holder in holders {
            if holder.has_others(fingerprint) {
                return Err(not_edited(&holder));
            }
            self.remove(&holder.path)?;
        }
        Ok(())
    }

    /// The files that hold a certificate, whatever their names.
    fn holders(&self, fingerprint: Fingerprint) -> Result<Vec<TrustFileContent>, Stop> {
        let entries = fs::read_dir(&self.path).map_err(|error| failed(&self.path, &error))?;
        let mut holders = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| failed(&self.path, &error))?.path();
            let is_hidden =
                path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            let is_trust = path.extension().and_then(|extension| extension.to_str());
            let is_trust = is_trust.is_some_and(|extension| {
                ["pem", "crt", "cer"].iter().any(|known| extension.eq_ignore_ascii_case(known))
            });
            if is_hidden || !is_trust || !path.is_file() {
                continue;
            }
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(&path, &error)),
            };
            let (found, problems) = pem::certificates(&bytes);
            let parsed = found.into_iter().map(|(_, der)| Certificate::parse(der));
            let (mut certificates, mut has_more) = (Vec::new(), !problems.is_empty());
            for parsed in parsed {
                match parsed {
                    Ok(certificate) => certificates.push(certificate),
                    Err(_) => has_more = true,
                }
            }
            let holder = TrustFileContent { path, certificates, has_more };
            if holder.holds(fingerprint) {
                holders.push(holder);
            }
        }
        Ok(holders)
    }

    fn remove(&self, path: &Path) -> Result<(), Stop> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed,
        }
        .and_then(|()| File::open(&self.path)?.sync_all())
        .map_err(|error| failed(path, &error))
    }
}

impl TrustFileContent {
    fn holds(&self, fingerprint: Fingerprint) -> bool {
        self.certificates.iter().any(|one| one.summary().fingerprint == fingerprint)
    }

    fn has_others(&self, fingerprint: Fingerprint) -> bool {
        self.has_more
            || self.certificates.iter().any(|one| one.summary().fingerprint != fingerprint)
    }
}

/// The one certificate of a PEM text.
pub(crate) fn parse_one(text: &str) -> Option<Certificate> {
    let (found, _) = pem::certificates(text.as_bytes());
    let [(_, der)] = found.as_slice() else { return None };
    Certificate::parse(der.clone()).ok()
}

fn not_edited(holder: &TrustFileContent) -> Stop {
    Stop::new(
        format!("{} holds other certificates too: it is not edited", holder.path.display()),
        "split it into one file for each certificate, then run this again",
    )
}

fn failed(path: &Path, error: &io::Error) -> Stop {
    Stop::new(
        format!("{}: {error}", path.display()),
        "check the owner and the permissions of the --trust directory, and the space of its disk",
    )
}

//! The directory that `fetch` writes: a lock, atomic replacement, and files compared by certificate.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustls::pki_types::UnixTime;

use super::failure::{Failure, Kind};
use crate::trust::{Certificate, Fingerprint, pem, unix_time};

const LOCK: &str = ".portcullis-fetch.lock";
/// One name for every file that is being written, so that a process that was killed leaves at most
/// one behind, and the next one takes it.
const TEMPORARY: &str = ".portcullis-fetch.tmp";

/// A directory that this process alone fetches into, while this value lives.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    lock: File,
}

impl Directory {
    /// Creates the directory if there is none, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(path).map_err(|error| Failure::disk(path, &error))?;
        let lock_path = path.join(LOCK);
        let lock = File::options().create(true).write(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(|error| Failure::disk(&lock_path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("{}: another fetch writes this directory", path.display());
                let remedy = "stop the other one, or give each a --into of its own";
                return Err(Failure::new(Kind::Disk, text, remedy).and_final());
            }
            Err(TryLockError::Error(error)) => return Err(Failure::disk(&lock_path, &error)),
        }
        let directory = Self { path: path.to_owned(), lock };
        directory.remove_if_there(&directory.path.join(TEMPORARY))?;
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that the directory is still the one that was locked.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let lock_path = self.path.join(LOCK);
        let same = fs::metadata(&lock_path).and_then(|there| {
            let own = self.lock.metadata()?;
            Ok((there.dev(), there.ino()) == (own.dev(), own.ino()))
        });
        match same {
            Ok(true) => Ok(()),
            _ => {
                let text = format!("{}: the directory was replaced", self.path.display());
                Err(Failure::new(Kind::Disk, text, "start fetch again").and_final())
            }
        }
    }

    /// `<id>.pem`. An id is part of a file's name, and comes from outside.
    pub(super) fn file_of(&self, id: &str) -> Result<PathBuf, Failure> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if id.is_empty() || id.len() > 128 || !id.chars().all(is_plain) {
            let text = format!("{id:?} is not the id of a client certificate");
            return Err(Failure::new(Kind::BadCertificate, text, "check the endpoint"));
        }
        Ok(self.path.join(format!("{id}.pem")))
    }

    /// Replaces a file in one step: a reader sees the old content or the new.
    pub(super) fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let temporary = self.path.join(TEMPORARY);
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        // Certificates are public, and the server may run as another user.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        self.sync()
    }

    pub(super) fn remove_if_there(&self, path: &Path) -> Result<(), Failure> {
        let removed = match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed.and_then(|()| self.sync()),
        };
        removed.map_err(|error| Failure::disk(path, &error))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// What a file holds.
    pub(super) fn content(&self, path: &Path) -> Result<Content, Failure> {
        match fs::read(path) {
            Ok(bytes) => Ok(parse(&bytes)
                .map_or(Content::Other, |certificate| Content::One(Box::new(certificate)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Content::Nothing),
            Err(error) => Err(Failure::disk(path, &error)),
        }
    }
}

/// What a file holds.
#[derive(Debug)]
pub(super) enum Content {
    Nothing,
    /// Exactly one certificate, and nothing wrong with the file.
    One(Box<Certificate>),
    Other,
}

impl Content {
    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            Self::One(certificate) => Some(certificate.summary().fingerprint),
            Self::Nothing | Self::Other => None,
        }
    }

    /// The end of the certificate's validity period, if it is valid now.
    pub(super) fn valid_until(&self, now: std::time::SystemTime) -> Option<UnixTime> {
        let Self::One(certificate) = self else { return None };
        let validity = certificate.summary().validity;
        validity.contains(unix_time(now)).then_some(validity.not_after)
    }
}

/// The one certificate of a PEM text.
pub(super) fn parse(bytes: &[u8]) -> Option<Certificate> {
    let (found, problems) = pem::certificates(bytes);
    let [(_, der)] = found.as_slice() else { return None };
    problems.is_empty().then(|| Certificate::parse(der.clone()).ok()).flatten()
}

//! A trust path: a file, or the files of a directory.
//!
//! A file that cannot be read or parsed keeps its last good content. A file that is gone from its
//! directory is a removal. A directory that is gone, or that was replaced by a new one without a
//! usable certificate, is an error and removes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::reload::problem::Problem;
use crate::reload::read::{PemSource, ReadError, metadata};
use crate::reload::stamp::DirectoryIdentity;
use crate::reload::trust_file::{ReadContext, TrustFile};
use crate::trust::{LoadedCertificate, Role};

/// How often a directory is listed again at once because names came or went meanwhile.
const MAX_LISTINGS: usize = 10;

/// A trust path with everything that was read from it.
#[derive(Debug)]
pub(super) struct Source {
    role: Role,
    origin: PemSource,
    /// The directory that the files were found in; `None` for a single file.
    directory: Option<DirectoryIdentity>,
    files: BTreeMap<PathBuf, TrustFile>,
    ignored: BTreeSet<PathBuf>,
    /// The error of the path itself.
    error: Option<Problem>,
}

impl Source {
    pub(super) fn new(role: Role, origin: PemSource) -> Self {
        Self {
            role,
            origin,
            directory: None,
            files: BTreeMap::new(),
            ignored: BTreeSet::new(),
            error: None,
        }
    }

    /// The paths whose changes matter.
    pub(super) fn watched(&self) -> impl Iterator<Item = &Path> {
        // Within a directory only links lead elsewhere.
        let links = self.files.keys().map(PathBuf::as_path).filter(|path| path.is_symlink());
        let watched = self.origin.watched();
        watched.into_iter().chain(watched.is_some().then_some(links).into_iter().flatten())
    }

    pub(super) fn loaded(&self) -> impl Iterator<Item = LoadedCertificate> {
        let role = self.role;
        self.files.iter().flat_map(move |(path, file)| {
            let path: Arc<Path> = Arc::from(path.as_path());
            file.certificates().iter().map(move |certificate| LoadedCertificate {
                role,
                certificate: Arc::clone(certificate),
                file: Arc::clone(&path),
            })
        })
    }

    /// Its problems now.
    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        let is_empty = self.directory.is_some() && self.files.is_empty();
        let empty = is_empty.then(|| {
            let path = self.origin.path();
            let remedy = match is_named_as_certificate(path) {
                true => {
                    "put the certificates to trust into it; a container runtime makes such a \
                     directory when the file to mount is missing: then remove it and mount the file"
                }
                false => "put the certificates to trust into it",
            };
            Problem::warning(path, "the directory holds no *.pem, *.crt or *.cer file", remedy)
        });
        let ignored = self.ignored.iter().map(|path| {
            let remedy = "name it *.pem, *.crt or *.cer if it is to be trusted";
            Problem::warning(path, "passed over for its name", remedy)
        });
        self.error
            .iter()
            .cloned()
            .chain(empty)
            .chain(self.files.values().flat_map(TrustFile::problems).cloned())
            .chain(ignored)
    }

    /// Reads what has changed.
    pub(super) fn read(&mut self, context: &ReadContext<'_>) {
        if let PemSource::Bytes(name, bytes) = &self.origin {
            if context.is_first {
                let mut file = TrustFile::default();
                file.update(name, self.role, bytes, context);
                self.files.insert(name.clone(), file);
            }
            return;
        }
        let path = self.origin.path().to_owned();
        self.error = None;
        let result = match metadata(&path) {
            Ok(metadata) if metadata.is_dir() => self.read_directory(&path, context),
            Ok(_) => {
                self.read_single_file(path.clone(), context);
                Ok(())
            }
            Err(error) => Err(Problem::unreadable(&path, &error)),
        };
        self.error = result.err();
    }

    fn read_single_file(&mut self, path: PathBuf, context: &ReadContext<'_>) {
        let mut file = self.files.remove(&path).unwrap_or_default();
        file.read(&path, self.role, context);
        if self.directory.is_none() || !file.is_empty() {
            self.directory = None;
            self.files.clear();
        }
        self.files.insert(path, file);
    }

    fn read_directory(&mut self, path: &Path, context: &ReadContext<'_>) -> Result<(), Problem> {
        for _ in 0..MAX_LISTINGS {
            if self.read_listed(path, context)? {
                return Ok(());
            }
        }
        // Names come and go faster than they can be read. The former content stays, and the event
        // of the next change starts another reload.
        Ok(())
    }

    /// Reads the files of the directory. `false` if names came or went meanwhile: a file that is
    /// renamed while its directory is listed may be missing from the list.
    fn read_listed(&mut self, path: &Path, context: &ReadContext<'_>) -> Result<bool, Problem> {
        let unreadable = |error| Problem::unreadable(path, &ReadError::Io(error));
        let (identity, listing) = Listing::of(path).map_err(unreadable)?;
        let (mut files, mut vanished) = (BTreeMap::new(), BTreeMap::new());
        for path in &listing.trusted {
            let mut file = self.files.remove(path).unwrap_or_default();
            let exists = file.read(path, self.role, context);
            if exists { &mut files } else { &mut vanished }.insert(path.clone(), file);
        }
        let again = Listing::of(path).map_err(unreadable);
        if again.as_ref().ok() != Some(&(identity.clone(), listing.clone())) {
            self.files.append(&mut files);
            // The next listing shows whether a file is gone or its whole directory.
            self.files.append(&mut vanished);
            return again.map(|_| false);
        }
        self.ignored = listing.ignored;
        let lost_everything = self.files.values().any(|file| !file.is_empty())
            && !files.values().any(|file| !file.is_empty() && !file.has_errors());
        if self.directory.as_ref() != Some(&identity) && lost_everything {
            self.files.append(&mut files);
            return Err(Problem::error(
                path,
                "a new directory without a usable certificate has taken its place",
                "put the certificates into it; until then the former content stays active",
            ));
        }
        self.directory = Some(identity);
        self.files = files;
        Ok(true)
    }

    /// Makes the next read ignore all stamps.
    pub(super) fn invalidate_stamps(&mut self) {
        self.files.values_mut().for_each(TrustFile::invalidate_stamp);
    }
}

fn is_named_as_certificate(path: &Path) -> bool {
    matches!(path.extension().and_then(|name| name.to_str()), Some("pem" | "crt" | "cer"))
}

/// The names in a directory that count.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listing {
    trusted: BTreeSet<PathBuf>,
    ignored: BTreeSet<PathBuf>,
}

impl Listing {
    fn of(directory: &Path) -> io::Result<(DirectoryIdentity, Self)> {
        let identity = DirectoryIdentity::of(&fs::metadata(directory)?);
        let mut listing = Self { trusted: BTreeSet::new(), ignored: BTreeSet::new() };
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let (name, path) = (entry.file_name(), entry.path());
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if is_named_as_certificate(&path) {
                listing.trusted.insert(path);
            } else if path.is_file() {
                listing.ignored.insert(path);
            }
        }
        Ok((identity, listing))
    }
}

#[cfg(test)]
mod tests {
    use std::hint::spin_loop;
    use std::thread;

    use super::*;
    use crate::reload::watch::BeingWritten;

    const FILES: usize = 100;

    /// A directory that is renamed away while its files are read.
    fn certificates_left_after(spins: u32) -> usize {
        let dir = tempfile::tempdir().unwrap();
        let (trust, old) = (dir.path().join("trust"), dir.path().join("old"));
        fs::create_dir(&trust).unwrap();
        let pem = include_bytes!("../../certs-example/client-1.pem");
        for number in 0..FILES {
            fs::write(trust.join(format!("{number}.pem")), pem).unwrap();
        }
        let mut source = Source::new(Role::Pin, PemSource::Path(trust.clone()));
        let being_written = BeingWritten::default();
        source.read(&ReadContext { is_first: true, being_written: &being_written });
        thread::scope(|scope| {
            scope.spawn(|| {
                (0..spins).for_each(|_| spin_loop());
                fs::rename(&trust, &old).unwrap();
            });
            source.read(&ReadContext { is_first: false, being_written: &being_written });
        });
        source.loaded().count()
    }

    #[test]
    fn directory_that_vanishes_while_it_is_read_loses_no_certificate() {
        for spins in (0..100_000).step_by(1_000) {
            assert_eq!(certificates_left_after(spins), FILES, "after {spins} spins");
        }
    }
}

//! The files that say who is trusted, as they were last read, and what each last held that was
//! good.
//!
//! A file that cannot be read or parsed keeps what it last held. A file that is gone from its
//! directory is a removal; a directory that is gone, or whose place a new one without a usable
//! certificate has taken, is a fault and removes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::reload::problem::Problem;
use crate::reload::watch::BeingWritten;
use crate::trust::pem::{self, PemError, PemErrorKind};
use crate::trust::{Certificate, Fingerprint, Loaded, Role, is_anchor};

/// The size of a trust file at the most.
pub(super) const LARGEST: u64 = 1 << 20;

/// A change within this time after another may leave the same time stamp.
const STAMP_GRAIN: Duration = Duration::from_secs(2);

/// So often is a directory listed in which names come and go.
const MOST_LISTINGS: usize = 10;

/// How files are read.
#[derive(Debug)]
pub(super) struct ReadContext<'a> {
    /// At start, what is good in a file with faults counts: there is nothing before it that could
    /// stay, and a restart must not make an outage of one bad block.
    pub(super) is_first: bool,
    /// A file that is being written loses nothing before it has been written.
    pub(super) being_written: &'a BeingWritten,
}

/// A path that was given, and what is known of it.
#[derive(Debug)]
pub(super) struct Source {
    role: Role,
    path: PathBuf,
    /// Which directory the files were found in; `None` for a source that is a file.
    directory: Option<DirectoryIdentity>,
    files: BTreeMap<PathBuf, TrustFile>,
    passed_over: BTreeSet<PathBuf>,
    /// What is wrong with the source itself.
    fault: Option<Problem>,
}

/// Tells a directory from another that was made in its place. The time of its making is there
/// because a file system may give a freed inode number to the next comer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DirectoryIdentity(u64, u64, Option<SystemTime>);

impl DirectoryIdentity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino(), metadata.created().ok())
    }
}

/// What changes when a file's content does.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a change after `now` is sure to show in the stamp.
    fn is_settled(&self, now: SystemTime) -> bool {
        let seconds = u64::try_from(self.changed.0).unwrap_or_default();
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        now.duration_since(changed).is_ok_and(|age| age > STAMP_GRAIN)
    }
}

#[derive(Debug, Default)]
struct TrustFile {
    /// `None` where the content has to be read again whatever the stamp says.
    stamp: Option<Stamp>,
    digest: Option<Fingerprint>,
    /// What it last held that was good.
    certificates: Vec<Arc<Certificate>>,
    problems: Vec<Problem>,
}

impl Source {
    pub(super) fn new(role: Role, path: PathBuf) -> Self {
        Self {
            role,
            path,
            directory: None,
            files: BTreeMap::new(),
            passed_over: BTreeSet::new(),
            fault: None,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The files that it consists of.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    pub(super) fn loaded(&self) -> impl Iterator<Item = Loaded> {
        let role = self.role;
        self.files.iter().flat_map(move |(path, file)| {
            let path: Arc<Path> = Arc::from(path.as_path());
            file.certificates.iter().map(move |certificate| Loaded {
                role,
                certificate: Arc::clone(certificate),
                file: Arc::clone(&path),
            })
        })
    }

    /// All that is wrong with it now.
    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        let passed_over = self.passed_over.iter().map(|path| {
            let remedy = "name it *.pem, *.crt or *.cer if it is to be trusted";
            Problem::warning(path, "passed over for its name", remedy)
        });
        self.fault
            .iter()
            .cloned()
            .chain(self.files.values().flat_map(|file| file.problems.iter().cloned()))
            .chain(passed_over)
    }

    /// Reads what has changed.
    pub(super) fn read(&mut self, how: &ReadContext<'_>) {
        self.fault = None;
        let result = match fs::metadata(&self.path) {
            Ok(metadata) if metadata.is_dir() => self.read_directory(how),
            Ok(_) => {
                self.read_single_file(how);
                Ok(())
            }
            Err(error) => Err(Problem::unreadable(&self.path, &error)),
        };
        self.fault = result.err();
    }

    fn read_single_file(&mut self, how: &ReadContext<'_>) {
        let mut file = self.files.remove(&self.path).unwrap_or_default();
        file.read(&self.path, self.role, how);
        if self.directory.is_none() || !file.certificates.is_empty() {
            self.directory = None;
            self.files.clear();
        }
        self.files.insert(self.path.clone(), file);
    }

    fn read_directory(&mut self, how: &ReadContext<'_>) -> Result<(), Problem> {
        for _ in 0..MOST_LISTINGS {
            if self.read_listed(how)? {
                return Ok(());
            }
        }
        // Names come and go faster than they can be read. What was known stays, and the event of
        // the next change is a reason to look again.
        Ok(())
    }

    /// Reads the files of the directory, unless names come or go meanwhile: `false`. A file that
    /// is renamed while its directory is listed may be missing from the list.
    fn read_listed(&mut self, how: &ReadContext<'_>) -> Result<bool, Problem> {
        let unreadable = |error| Problem::unreadable(&self.path, &error);
        let (identity, listing) = Listing::of(&self.path).map_err(unreadable)?;
        let mut files = BTreeMap::new();
        for path in &listing.trusted {
            // A directory by such a name is nothing to read, unless a file has become it.
            if !self.files.contains_key(path) && path.is_dir() {
                continue;
            }
            let mut file = self.files.remove(path).unwrap_or_default();
            // A link that leads nowhere is still there, and a fault.
            if file.read(path, self.role, how) || path.is_symlink() {
                files.insert(path.clone(), file);
            }
        }
        let again = Listing::of(&self.path).map_err(unreadable);
        if again.as_ref().ok() != Some(&(identity.clone(), listing.clone())) {
            self.files.append(&mut files);
            return again.map(|_| false);
        }
        self.passed_over = listing.passed_over;
        let holds_something = |file: &TrustFile| !file.certificates.is_empty();
        let lost_everything = self.files.values().any(holds_something)
            && !files.values().any(|file| holds_something(file) && file.problems.is_empty());
        if self.directory.as_ref() != Some(&identity) && lost_everything {
            self.files.append(&mut files);
            return Err(Problem::fault(
                &self.path,
                "a new directory without a usable certificate has taken its place",
                "put the certificates into it; what the old one held stays in force until then",
            ));
        }
        self.directory = Some(identity);
        self.files = files;
        Ok(true)
    }

    /// Has the content of every file read again, whatever its time stamps say.
    pub(super) fn invalidate_stamps(&mut self) {
        for file in self.files.values_mut() {
            file.stamp = None;
        }
    }
}

/// The names in a directory that count.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listing {
    trusted: BTreeSet<PathBuf>,
    passed_over: BTreeSet<PathBuf>,
}

impl Listing {
    fn of(directory: &Path) -> io::Result<(DirectoryIdentity, Self)> {
        let identity = DirectoryIdentity::of(&fs::metadata(directory)?);
        let mut listing = Self { trusted: BTreeSet::new(), passed_over: BTreeSet::new() };
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let (name, path) = (entry.file_name(), entry.path());
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let extension = Path::new(&name).extension().and_then(|extension| extension.to_str());
            if matches!(extension, Some("pem" | "crt" | "cer")) {
                listing.trusted.insert(path);
            } else if path.is_file() {
                listing.passed_over.insert(path);
            }
        }
        Ok((identity, listing))
    }
}

impl TrustFile {
    /// Reads the file where it has changed. `false` says that it is not there.
    fn read(&mut self, path: &Path, role: Role, how: &ReadContext<'_>) -> bool {
        match self.read_changed(path) {
            Ok(None) => {}
            Ok(Some(bytes)) => self.take(path, role, &bytes, how),
            Err(error) => {
                self.stamp = None;
                self.digest = None;
                self.problems = vec![Problem::unreadable(path, &error)];
                return error.kind() != io::ErrorKind::NotFound;
            }
        }
        true
    }

    /// The content, where it is not the one that was read last.
    fn read_changed(&mut self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let metadata = fs::metadata(path)?;
        let stamp = Stamp::of(&metadata);
        if self.stamp.as_ref() == Some(&stamp) {
            return Ok(None);
        }
        let now = SystemTime::now();
        let bytes = read_regular(path, &metadata)?;
        self.stamp = stamp.is_settled(now).then_some(stamp);
        let digest = Some(Fingerprint::of(&bytes));
        if self.digest == digest {
            return Ok(None);
        }
        self.digest = digest;
        Ok(Some(bytes))
    }

    fn take(&mut self, path: &Path, role: Role, bytes: &[u8], how: &ReadContext<'_>) {
        let (mut certificates, faults) = parse(bytes, role);
        if faults.is_empty() && how.being_written.contains(path) {
            let is_missing =
                |old: &&Arc<Certificate>| !certificates.iter().any(|new| new.der() == old.der());
            let missing: Vec<_> = self.certificates.iter().filter(is_missing).cloned().collect();
            if !missing.is_empty() {
                certificates.extend(missing);
                (self.stamp, self.digest) = (None, None);
            }
        }
        if faults.is_empty() || how.is_first {
            self.certificates = certificates;
        }
        self.problems = faults.iter().map(|fault| Problem::in_pem(path, fault)).collect();
    }
}

/// Reads a regular file, up to one octet more than a file may have.
pub(super) fn read_regular(path: &Path, metadata: &Metadata) -> io::Result<Vec<u8>> {
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse(bytes: &[u8], role: Role) -> (Vec<Arc<Certificate>>, Vec<PemError>) {
    if bytes.len() as u64 > LARGEST {
        return (Vec::new(), vec![PemError::whole(PemErrorKind::TooLarge)]);
    }
    let (blocks, mut faults) = pem::certificates(bytes);
    let mut certificates = Vec::new();
    for (line, der) in blocks {
        match Certificate::parse(der) {
            Ok(certificate) if role == Role::Anchor && !certificate.is_ca() => {
                faults.push(PemError { line: Some(line), problem: PemErrorKind::NotACa });
            }
            Ok(certificate) if role == Role::Anchor && !is_anchor(&certificate) => {
                faults.push(PemError { line: Some(line), problem: PemErrorKind::UnusableCa });
            }
            Ok(certificate) => certificates.push(Arc::new(certificate)),
            Err(problem) => faults.push(PemError { line: Some(line), problem }),
        }
    }
    (certificates, faults)
}

/// Reads a trust file or directory once: what is good in it, and what is wrong.
#[cfg(feature = "cli")]
pub(crate) fn read_trust(role: Role, path: &Path) -> (Vec<Loaded>, Vec<Problem>) {
    let mut source = Source::new(role, path.to_owned());
    source.read(&ReadContext { is_first: true, being_written: &BeingWritten::default() });
    (source.loaded().collect(), source.problems().collect())
}

/// Reads what a peer presents: its own certificate first.
#[cfg(feature = "cli")]
pub(crate) fn read_chain(
    path: &Path,
) -> Result<Vec<rustls::pki_types::CertificateDer<'static>>, Vec<Problem>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST).read_to_end(&mut bytes))
        .map_err(|error| vec![Problem::unreadable(path, &error)])?;
    let chain = pem::chain(&bytes).map_err(|faults| {
        faults.iter().map(|fault| Problem::in_pem(path, fault)).collect::<Vec<_>>()
    })?;
    Ok(chain.into_iter().map(|(_, der)| der).collect())
}

//! The files that survive a restart: certificate and key, account, and the history of orders.
//!
//! Each file is replaced as a whole, so that a process that is killed midway leaves the former one.
//! Certificate and key are one file, so that they always match.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use instant_acme::AccountCredentials;
use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::schedule::History;

/// The certificate with its chain, and the private key.
pub(super) const PAIR: &str = "certificate-and-key.pem";
const ACCOUNT: &str = "account.json";
const HISTORY: &str = "history.json";
const LOCK: &str = "lock";
/// Written at start and before an order, to check that the cache is writable.
const PROBE: &str = "probe";
/// The suffix of a file that is being written.
const UNFINISHED: &str = ".unfinished";

const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIRECTORY: u32 = 0o700;
/// Access for the group is deliberate: Kubernetes gives it by `fsGroup`, and replicas that only read
/// the pair may run as another user.
const OTHERS: u32 = 0o007;
/// A file of ours is a few KiB; what is larger is not ours.
const LARGEST: u64 = 1 << 20;

/// The directory of `--acme-cache`.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    directory: PathBuf,
}

/// The account at the directory, with its key.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredAccount {
    /// The URL of the ACME directory that knows it.
    pub(super) directory: String,
    pub(super) email: Option<String>,
    pub(super) credentials: AccountCredentials,
}

/// Why a cache cannot be used, with the remedy.
#[derive(Debug)]
pub(crate) struct Unusable {
    pub(crate) file: PathBuf,
    pub(crate) problem: String,
    pub(crate) remedy: &'static str,
}

/// The lock of the one process that orders. The system releases it when the process ends.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "it is held")] File);

impl Cache {
    /// Makes the directory if it is not there. Refuses one that others can read, or that cannot be
    /// written to.
    pub(super) fn open(directory: &Path) -> Result<Self, Unusable> {
        let unusable =
            |problem: String, remedy| Unusable { file: directory.to_owned(), problem, remedy };
        let made = DirBuilder::new().recursive(true).mode(PRIVATE_DIRECTORY).create(directory);
        made.map_err(|error| {
            unusable(format!("--acme-cache cannot be made: {error}"), MAKE_WRITABLE)
        })?;
        let cache = Self::inspect(directory)?;
        for name in [PAIR, ACCOUNT, HISTORY] {
            // A former process may have ended while it wrote this file.
            let _ = fs::remove_file(cache.path(&format!("{name}{UNFINISHED}")));
        }
        cache.probe().map_err(|error| {
            unusable(format!("--acme-cache cannot be written to: {error}"), MAKE_WRITABLE)
        })?;
        Ok(cache)
    }

    /// The same without a change: a directory that is not there is made by `serve`.
    pub(super) fn inspect(directory: &Path) -> Result<Self, Unusable> {
        let cache = Self { directory: directory.to_owned() };
        cache.find_exposed_file()?;
        Ok(cache)
    }

    fn find_exposed_file(&self) -> Result<(), Unusable> {
        for path in [self.directory.clone(), self.pair(), self.path(ACCOUNT)] {
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let mode = metadata.permissions().mode() & 0o7777;
            if mode & OTHERS != 0 {
                let problem =
                    format!("every user of this machine can get at the keys (mode {mode:04o})");
                let remedy = "chmod o= on it; if others may have read it, empty the directory, so \
                              that new keys are made";
                return Err(Unusable { file: path, problem, remedy });
            }
        }
        Ok(())
    }

    /// Checks that a file can be written.
    pub(super) fn probe(&self) -> io::Result<()> {
        self.write(PROBE, b"")?;
        fs::remove_file(self.path(PROBE))
    }

    /// Where the certificate, its chain and its key are.
    pub(super) fn pair(&self) -> PathBuf {
        self.path(PAIR)
    }

    pub(super) fn read_pair(&self) -> io::Result<Option<Vec<u8>>> {
        self.read(PAIR)
    }

    pub(super) fn write_pair(&self, chain: &str, key: &str) -> io::Result<()> {
        let separator = if chain.ends_with('\n') { "" } else { "\n" };
        // The key is last: a file that lost its end has none, so that it does not load.
        self.write(PAIR, format!("{chain}{separator}{key}").as_bytes())
    }

    /// Puts back a pair that was read before.
    pub(super) fn restore_pair(&self, pair: &[u8]) -> io::Result<()> {
        self.write(PAIR, pair)
    }

    /// The account, or why it cannot be used.
    pub(super) fn account(&self) -> Result<Option<StoredAccount>, String> {
        self.read_json(ACCOUNT)
    }

    pub(super) fn write_account(&self, account: &StoredAccount) -> io::Result<()> {
        self.write_json(ACCOUNT, account)
    }

    /// Forgets an account that the directory does not know.
    pub(super) fn remove_account(&self) -> io::Result<()> {
        fs::remove_file(self.path(ACCOUNT))
    }

    pub(super) fn history(&self) -> Result<History, String> {
        self.read_json(HISTORY).map(Option::unwrap_or_default)
    }

    pub(super) fn write_history(&self, history: &History) -> io::Result<()> {
        self.write_json(HISTORY, history)
    }

    /// Takes the lock of the process that orders. `None` while another process holds it.
    pub(super) fn lock(&self) -> io::Result<Option<Lock>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE_FILE)
            .open(self.path(LOCK))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, String> {
        let named = |error: String| format!("{}: {error}", self.path(name).display());
        let Some(bytes) = self.read(name).map_err(|error| named(error.to_string()))? else {
            return Ok(None);
        };
        // The parser's message could quote a key.
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|error| {
            named(format!("it is damaged at line {}, column {}", error.line(), error.column()))
        })
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        self.write(name, &serde_json::to_vec_pretty(value)?)
    }

    /// Replaces a file as a whole: a reader sees the one before or this one.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.path(&format!("{name}{UNFINISHED}"));
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, self.path(name))?;
        File::open(&self.directory)?.sync_all()
    }
}

const MAKE_WRITABLE: &str = "give a directory that this user can write to and that survives a \
                             restart, on a volume that is not mounted read-only";

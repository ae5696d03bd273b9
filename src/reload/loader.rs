//! The files that were given, read into what they mean together.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use crate::clock::{self, Clock};
use crate::reload::files::Source;
use crate::reload::finding::{Finding, Severity};
use crate::reload::generation::{Generation, Recipe};
use crate::reload::identity::{IdentityFiles, ServerIdentity};
use crate::trust::{Role, TrustStore, rfc3339};

/// Which files say who the server is and whom it trusts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Material {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Files and directories, in the order in which they were given.
    pub(crate) trust: Vec<(Role, PathBuf)>,
}

/// Reads the files, again and again, and remembers what each last held that was good.
#[derive(Debug)]
pub(crate) struct Loader {
    sources: Vec<Source>,
    identity: IdentityFiles,
    pub(super) recipe: Recipe,
}

impl Loader {
    /// Reads everything for the first time.
    pub(crate) fn new(
        material: Material,
        provider: Arc<CryptoProvider>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let Material { certificate, key, trust } = material;
        let mut loader = Self {
            sources: trust.into_iter().map(|(role, path)| Source::new(role, path)).collect(),
            identity: IdentityFiles::new(certificate, key),
            recipe: Recipe { provider, clock },
        };
        loader.read(true);
        loader
    }

    /// Reads what has changed.
    pub(super) fn read_again(&mut self) {
        self.read(false);
    }

    fn read(&mut self, first: bool) {
        self.identity.read(&self.recipe.provider);
        for source in &mut self.sources {
            source.read(first);
        }
    }

    /// Has everything read again at the next time, whatever the time stamps say.
    pub(super) fn distrust_stamps(&mut self) {
        self.sources.iter_mut().for_each(Source::distrust_stamps);
    }

    /// The paths whose changes matter.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let identity = [self.identity.certificate.as_path(), self.identity.key.as_path()];
        let trust = self.sources.iter().flat_map(|source| {
            // Within a directory only links lead elsewhere.
            let links = source.files().filter(|path| path.is_symlink());
            std::iter::once(source.path()).chain(links)
        });
        identity.into_iter().chain(trust)
    }

    pub(super) fn store(&self) -> TrustStore {
        let loaded = self.sources.iter().flat_map(Source::loaded);
        TrustStore::new(loaded, self.recipe.provider.signature_verification_algorithms)
    }

    /// The file of the server's certificate.
    pub(super) fn server_certificate(&self) -> &Path {
        &self.identity.certificate
    }

    pub(super) fn identity(&self) -> Option<&Arc<ServerIdentity>> {
        self.identity.good()
    }

    /// All that is wrong or odd with the files now, faults first.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let now = clock::unix_time(self.recipe.clock.as_ref());
        let mut findings: Vec<_> = self.identity.findings().cloned().collect();
        findings.extend(self.sources.iter().flat_map(Source::findings));
        if let Some(identity) = self.identity.good() {
            let validity = identity.summary.validity;
            if now >= validity.not_after {
                let problem =
                    format!("the server's certificate ended at {}", rfc3339(validity.not_after));
                let remedy = "renew it: API Gateway connects to no server without a valid one";
                findings.push(Finding::warning(&self.identity.certificate, problem, remedy));
            } else if now < validity.not_before {
                let begin = rfc3339(validity.not_before);
                let problem = format!("the server's certificate is not yet valid, until {begin}");
                findings.push(Finding::warning(&self.identity.certificate, problem, CHECK_CLOCK));
            }
        }
        for loaded in self.sources.iter().flat_map(Source::loaded) {
            let summary = loaded.certificate.summary();
            let name = format!("certificate {}", summary.fingerprint);
            if now >= summary.validity.not_after {
                let problem = format!("{name} ended at {}", rfc3339(summary.validity.not_after));
                let remedy = "remove it, or put its successor beside it";
                findings.push(Finding::warning(&loaded.file, problem, remedy));
            } else if now < summary.validity.not_before {
                let begin = rfc3339(summary.validity.not_before);
                let problem = format!("{name} is not yet valid, until {begin}");
                findings.push(Finding::warning(&loaded.file, problem, CHECK_CLOCK));
            }
        }
        findings.sort_by_key(|finding| finding.severity == Severity::Warning);
        findings.dedup();
        findings
    }

    /// The first generation, or what stands in its way.
    pub(crate) fn first_generation(&self) -> Result<Generation, NotStartable> {
        let now = clock::unix_time(self.recipe.clock.as_ref());
        let identity = self.identity().ok_or(NotStartable::NoServerCertificate)?;
        let store = self.store();
        if !store.certificates().iter().any(|loaded| now < loaded.certificate.validity().not_after)
        {
            return Err(NotStartable::NobodyTrusted);
        }
        let identity = Arc::clone(identity);
        self.recipe
            .make(1, Arc::new(store), identity, None)
            .map_err(|error| NotStartable::Tls(error.to_string()))
    }
}

const CHECK_CLOCK: &str = "if it should be by now, set this machine's clock";

/// Why the server cannot start on what was read.
#[derive(Debug)]
pub enum NotStartable {
    /// The server's own certificate and key do not load.
    NoServerCertificate,
    /// No client certificate and no CA is usable.
    NobodyTrusted,
    /// The TLS library refuses the configuration.
    Tls(String),
}

impl std::fmt::Display for NotStartable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoServerCertificate => {
                write!(f, "the server's certificate (--cert) and key (--key) do not load")
            }
            Self::NobodyTrusted => write!(
                f,
                "there is nobody to let in: give at least one client certificate (--trust) or CA \
                 (--trust-ca) that has not ended"
            ),
            Self::Tls(error) => write!(f, "TLS cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for NotStartable {}

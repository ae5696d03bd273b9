//! Checks settings and cache before anything is ordered, and before the sandbox is entered.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;

use super::cache::{Cache, PAIR, Unusable};
use super::settings::Settings;
use super::{certificate, client};
use crate::Config;
use crate::server::{AcmeLink, AcmeState};
use crate::trust::pem;

/// A certificate that is kept current.
#[derive(Debug)]
pub struct Acme {
    pub(super) settings: Settings,
    pub(super) cache: Cache,
    pub(super) roots: RootCertStore,
    pub(super) link: Arc<AcmeLink>,
}

/// Why there will be no certificate: the flags or the cache are wrong.
#[derive(Debug)]
pub struct NotUsable {
    problem: String,
    remedy: &'static str,
}

impl NotUsable {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        self.remedy
    }
}

impl fmt::Display for NotUsable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for NotUsable {}

impl From<Unusable> for NotUsable {
    fn from(Unusable { file, problem, remedy }: Unusable) -> Self {
        Self { problem: format!("{}: {problem}", file.display()), remedy }
    }
}

impl Acme {
    /// Opens the cache and reads the CAs. It must run before the sandbox is entered.
    ///
    /// # Errors
    /// The cache cannot be used, or is that of another server.
    pub fn prepare(settings: Settings) -> Result<Self, NotUsable> {
        let cache = Cache::open(&settings.cache)?;
        let roots = roots(&settings)?;
        is_ours(&cache, &settings)?;
        let state = AcmeState {
            domains: settings.domains.clone(),
            directory: settings.directory.to_string(),
            ..AcmeState::default()
        };
        Ok(Self { settings, cache, roots, link: Arc::new(AcmeLink::new(state)) })
    }

    /// Finds what [`Acme::prepare`] would refuse, and writes nothing.
    ///
    /// # Errors
    /// The same, except that the cache cannot be made or written to.
    pub fn check(settings: &Settings) -> Result<(), NotUsable> {
        let cache = Cache::inspect(&settings.cache)?;
        roots(settings)?;
        is_ours(&cache, settings)
    }

    /// Has a server prove the names to the directory.
    pub fn attach(&self, config: Config) -> Config {
        config.acme(Arc::clone(&self.link))
    }
}

/// Where a cache has the certificate, its chain and its key.
pub(crate) fn pair(cache: &Path) -> PathBuf {
    cache.join(PAIR)
}

fn roots(settings: &Settings) -> Result<RootCertStore, NotUsable> {
    let roots = client::roots(settings.ca.as_deref());
    roots.map_err(|(problem, remedy)| NotUsable { problem, remedy })
}

/// Refuses a cache that was filled for another server: the two would take turns in it.
fn is_ours(cache: &Cache, settings: &Settings) -> Result<(), NotUsable> {
    const REMEDY: &str = "give each server a directory of its own as --acme-cache, or empty this \
                          one";
    let directory = settings.directory.to_string();
    if let Ok(Some(account)) = cache.account()
        && account.directory != directory
    {
        let problem = format!(
            "--acme-cache {} holds an account of {}, not of {directory} (--acme-directory)",
            settings.cache.display(),
            account.directory
        );
        return Err(NotUsable { problem, remedy: REMEDY });
    }
    let leaf = cache.read_pair().ok().flatten().and_then(|pair| {
        let (_, leaf) = pem::chain(&pair).ok()?.into_iter().next()?;
        Some(leaf)
    });
    let Some(leaf) = leaf else { return Ok(()) };
    if certificate::covered(&leaf, &settings.domains).is_empty() {
        let problem = format!(
            "--acme-cache {} holds a certificate for {}, not for {} (--acme-domain)",
            settings.cache.display(),
            certificate::names(&leaf).join(", "),
            settings.domains.join(", ")
        );
        return Err(NotUsable { problem, remedy: REMEDY });
    }
    Ok(())
}
